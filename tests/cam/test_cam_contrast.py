"""FSCL against loops."""

import math
from collections import deque

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brnf.cam.contrast import NONE, ContrastBank, info_nce, region_features


def loop_info_nce(anchors, anchor_classes, bank, bank_classes, temperature):
    """Return InfoNCE written as docs/method.md section 7 prints it."""
    losses = []
    for anchor, own in zip(anchors, anchor_classes, strict=True):
        negatives = [
            math.exp(float(anchor @ n) / temperature)
            for n, c in zip(bank, bank_classes, strict=True)
            if c != own
        ]
        positives = [
            math.exp(float(anchor @ p) / temperature)
            for p, c in zip(bank, bank_classes, strict=True)
            if c == own
        ]
        if positives and negatives:
            losses.append(
                sum(-math.log(p / (p + sum(negatives))) for p in positives) / len(positives)
            )
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 2.0))
def test_info_nce_equals_the_loop(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = F.normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64), dim=1)
    bank = F.normalize(torch.randn(9, 4, generator=generator, dtype=torch.float64), dim=1)
    anchor_classes = torch.randint(0, 3, (5,), generator=generator)
    bank_classes = torch.randint(0, 3, (9,), generator=generator)
    loss = info_nce(anchors, anchor_classes, bank, bank_classes, temperature)
    assert math.isclose(
        float(loss),
        loop_info_nce(anchors, anchor_classes, bank, bank_classes, temperature),
        rel_tol=1e-9,
    )


def test_info_nce_without_positives_has_no_gradient() -> None:
    anchors = F.normalize(torch.randn(2, 3), dim=1).requires_grad_()
    loss = info_nce(anchors, torch.tensor([1, 1]), torch.eye(3), torch.tensor([0, 0, 2]))
    loss.backward()
    assert loss.item() == 0 and not anchors.grad.any()


def test_region_features_average_certain_pixels_only() -> None:
    features = torch.tensor([[[[1.0, 3.0, 9.0]], [[0.0, 4.0, 9.0]]]], requires_grad=True)
    maps = torch.tensor([[[[0.0, 0.0, 1.0]], [[0.7, 0.9, 0.69]]]])
    chosen = torch.tensor([[[[True, True, False]], [[True, True, True]]]])
    vectors, classes = region_features(features, maps, chosen, 0.7)
    assert classes.tolist() == [1]  # the background's only certain pixel is padding
    torch.testing.assert_close(vectors, F.normalize(torch.tensor([[2.0, 2.0]]), dim=1))
    vectors.sum().backward()
    assert features.grad is not None


def test_bank_forgets_the_oldest_and_keeps_samples_on_the_sphere() -> None:
    bank = ContrastBank(classes=2, dimension=3, regions=2, samples=1)
    for axis in range(3):
        bank.add_regions(torch.eye(3)[axis : axis + 1], torch.tensor([1]))
    drawn = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 5.0, 0.0]], [[0.0, 0.0, 3.0]] * 2])
    bank.add_samples(drawn, torch.tensor([True, False]))
    vectors, classes = bank.contents()
    assert sorted(classes.tolist()) == [0, 1, 1]
    torch.testing.assert_close(vectors[classes == 1].sum(0), torch.tensor([1.0, 1.0, 0.0]).flip(0))
    torch.testing.assert_close(vectors[classes == 0], torch.tensor([[0.0, 1.0, 0.0]]))


def test_info_nce_leaves_out_what_holds_nothing() -> None:
    torch.manual_seed(0)
    rows, bank = (F.normalize(torch.randn(count, 4), dim=1) for count in (6, 9))
    own, others = (
        torch.tensor([0, NONE, 1, 2, NONE, 3]),
        torch.tensor([0, 1, NONE, 1, 2] + 4 * [NONE]),
    )
    found, expected = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    loss = info_nce(found, own, bank, others)
    kept, filled = own != NONE, others != NONE
    same = info_nce(expected[kept], own[kept], bank[filled], others[filled])
    torch.testing.assert_close(loss, same)
    loss.backward()
    same.backward()
    torch.testing.assert_close(found.grad, expected.grad)


@given(st.integers(0, 3), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=5))
def test_bank_keeps_the_latest_samples_of_the_chosen_classes(
    capacity: int, pushes: list[tuple[bool, bool]]
) -> None:
    bank = ContrastBank(2, 2, 0, capacity)
    expected: list[deque[list[float]]] = [deque(maxlen=capacity) for _ in range(2)]
    for number, chosen in enumerate(pushes):
        angles = number + torch.arange(4.0).view(2, 2) / 10
        vectors = torch.stack([angles.cos(), angles.sin()], 2)
        bank.add_samples(3 * vectors, torch.tensor(chosen))
        for kind in range(2):
            if chosen[kind]:
                expected[kind].extend(vectors[kind].tolist())
    found, owners = bank.contents()
    for kind in range(2):
        of_kind = sorted(found[owners == kind].tolist())
        torch.testing.assert_close(of_kind, sorted(expected[kind]), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 3), st.lists(st.lists(st.integers(NONE, 2), max_size=9), max_size=5))
def test_bank_keeps_the_latest_of_each_class(capacity: int, pushes: list[list[int]]) -> None:
    bank, number = ContrastBank(3, 1, capacity, 0), 0.0
    expected: list[deque[float]] = [deque(maxlen=capacity) for _ in range(3)]
    for classes in pushes:
        values = number + torch.arange(len(classes))[:, None]
        bank.add_regions(values, torch.tensor(classes, dtype=torch.int64))
        for value, kind in zip(values[:, 0].tolist(), classes, strict=True):
            if kind != NONE:
                expected[kind].append(value)
        number += len(classes)
    vectors, found = bank.contents()
    slots, owners = bank.contents(every_slot=True)
    assert len(slots) == 3 * capacity
    for kind in range(3):
        assert sorted(vectors[found == kind, 0].tolist()) == list(expected[kind])
        assert torch.equal(slots[owners == kind], vectors[found == kind])
