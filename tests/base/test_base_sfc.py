"""SFC's formulas against plain rewritings: the weights of VOC, the bank, every term of the loss."""

import pytest
import torch
import torch.nn.functional as F

from brnf.base.sfc import (
    ImageBank,
    SfcObjective,
    bank_draws,
    distribution_weights,
    halved,
)
from brnf.cam.batch import Batch
from brnf.cam.network import CamOutput
from brnf.cam.objective import training_maps
from brnf.config.sections.cam import MapRules, Sfc

VOC = [
    4155,
    1228,
    1188,
    1150,
    1005,
    714,
    705,
    649,
    613,
    590,
    567,
    522,
    504,
    503,
    492,
    468,
    445,
    393,
    300,
    267,
]
"""Images of train_aug with each class, most frequent first."""


def test_voc_draws_396_images_a_class() -> None:
    assert bank_draws(10582 // 16, 4, 20) == 396


def test_weights_of_voc_are_those_of_its_counts() -> None:
    weights = distribution_weights(torch.tensor(VOC), 396)
    plain = [sum(abs(one - other) for other in VOC) / (one + 396) for one in VOC]
    assert plain[0] * (4155 + 396) == 66642 and plain[1] * (1228 + 396) == pytest.approx(
        13956
    )  # as SFC's code has them
    assert weights.tolist() == pytest.approx(
        [value / (sum(plain) / 20) for value in plain], rel=1e-5
    )
    assert weights.mean().item() == pytest.approx(1) and weights.argmin().item() not in (
        0,
        19,
    )  # both ends weigh more than the middle


def test_weights_by_hand() -> None:
    # sums of differences 4, 3, 5 over 1 + 1, 2 + 1, 4 + 1
    assert distribution_weights(torch.tensor([1, 2, 4]), 1).tolist() == pytest.approx(
        [1.5, 0.75, 0.75]
    )
    assert distribution_weights(torch.tensor([5, 5]), 3).tolist() == [1, 1]
    assert distribution_weights(torch.tensor([0, 2]), 0).isfinite().all()


def batch_of(*classes: tuple[int, ...], number: int = 0) -> Batch:
    """Return a batch of one image for each set of classes; the pixels of image i of batch number
    are all 10 number + i.
    """
    labels = torch.zeros(len(classes), 3)
    for row, indices in enumerate(classes):
        labels[row, list(indices)] = 1
    pixels = torch.stack(
        [torch.full((3, 4, 4), 10 * number + row, dtype=torch.uint8) for row in range(len(classes))]
    )
    return Batch(
        pixels,
        labels,
        torch.stack([torch.full((1, 2, 2), row % 2 == 0) for row in range(len(classes))]),
    )


def numbers(batch: Batch) -> list[int]:
    assert isinstance(batch.pixels, torch.Tensor)
    return batch.pixels[:, 0, 0, 0].tolist()


def test_the_bank_holds_the_latest_image_of_each_class() -> None:
    given = [
        batch_of((0,), (0, 2), number=0),
        batch_of((2,), (), number=1),
        batch_of((1,), number=2),
    ]
    joined = list(ImageBank(3, 200, 0).join(given))
    assert [
        numbers(batch)[: len(own.labels)] for batch, own in zip(joined, given, strict=True)
    ] == [[0, 1], [10, 11], [20]]
    added = [numbers(batch)[len(own.labels) :] for batch, own in zip(joined, given, strict=True)]
    assert [set(drawn) for drawn in added] == [
        {1},
        {1, 10},
        {1, 10, 20},
    ]  # no image of class 1 before the third batch
    assert sum(value == 10 for value in added[1]) == pytest.approx(
        100, abs=30
    )  # classes come equally often
    for batch in joined:
        for pixels, labels, valid in zip(numbers(batch), batch.labels, batch.valid, strict=True):
            own = given[pixels // 10]
            assert torch.equal(labels, own.labels[pixels % 10]) and torch.equal(
                valid, own.valid[pixels % 10]
            )


def test_the_bank_draws_the_same_for_the_same_seed_and_step() -> None:
    def run(seed: int) -> list[list[int]]:
        return [
            numbers(batch)
            for batch in ImageBank(3, 4, seed).join(
                [batch_of((0,), (1,), (2,), number=i) for i in range(5)]
            )
        ]

    assert run(1) == run(1) != run(2)
    assert (
        all(len(row) == 3 + 4 for row in run(1))
        and len({tuple(place % 10 for place in row) for row in run(1)}) > 1
    )


def test_a_bank_goes_on_from_its_state() -> None:
    given = [
        batch_of((0,), (1,), number=0),
        batch_of((2,), number=1),
        batch_of((), number=2),
        batch_of((1,), number=3),
    ]
    whole, first, second = ImageBank(3, 4, 0), ImageBank(3, 4, 0), ImageBank(3, 4, 0)
    list(first.join(given[:2]))
    second.load_state_dict(first.state_dict())
    assert [numbers(batch) for batch in second.join(given[2:], 2)] == [
        numbers(batch) for batch in whole.join(given)
    ][2:]


def test_an_empty_bank_adds_nothing() -> None:
    assert [numbers(batch) for batch in ImageBank(3, 4, 0).join([batch_of((), ())])] == [[0, 1]]


def output_of(seed: int, grid: tuple[int, int]) -> CamOutput:
    generator = torch.Generator().manual_seed(seed)
    logits, features, affinity = (
        torch.randn(2, size, *grid, generator=generator, requires_grad=True) for size in (3, 6, 5)
    )
    return CamOutput(logits, features, features.detach(), affinity)


def plain_refined(output: CamOutput, labels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return A by section 2, masked, then propagated by loops over images, into the padding too."""
    maps = []
    for n in range(len(labels)):
        a = output.logits[n].relu()
        a = a / (a.amax((1, 2), keepdim=True) + 1e-5)
        a = (
            torch.cat([1 - a.amax(0, keepdim=True), a])
            * torch.cat([torch.ones(1), labels[n]])[:, None, None]
            * valid[n]
        )
        f = F.normalize(output.affinity[n].flatten(1), dim=0)
        w = (f.T @ f).relu()
        w = w / (w.sum(0) + 1e-5)
        maps.append((a.flatten(1) @ w @ w).view_as(a))
    return torch.stack(maps)


def test_every_term_of_the_loss_equals_a_plain_rewriting() -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    valid = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    valid[1, :, :, 4:] = False
    whole, half = output_of(0, (4, 6)), output_of(1, (2, 3))
    a = torch.tensor([0.5, 2.0, 0.5])
    terms = SfcObjective(Sfc(), MapRules(seed_rule="structure"), a)(whole, half, labels, valid)

    large, small = (
        plain_refined(whole, labels, valid),
        plain_refined(half, labels, valid[:, :, ::2, ::2]),
    )
    scaled = torch.cat([large[:, :1] * 0.3, large[:, 1:]], 1)
    prototype = torch.zeros_like(large)
    for n in range(2):
        winner = scaled[n].argmax(0)
        for k in range(4):
            if k and not labels[n, k - 1]:
                continue
            pixels = (winner == k) & valid[n, 0]
            if pixels.any():
                centre = whole.features[n][:, pixels].mean(1)
                p = F.cosine_similarity(whole.features[n], centre[:, None, None], dim=0).relu()
                prototype[n, k] = p / (p.max() + 1e-5)
    weights = torch.tensor([1.0, *a.tolist()])[:, None, None]
    shrunk = F.interpolate(large, (2, 3), mode="bilinear", align_corners=True)
    scores = [
        F.multilabel_soft_margin_loss(output.logits.mean((2, 3)), labels)
        for output in (whole, half)
    ]
    expected = {
        "classification": (scores[0] + scores[1]) / 2,
        "consistency": 1.6 * (weights * (large - prototype).abs()).mean(),
        "scales": 0.8 * (weights[1:] * (shrunk - small)[:, 1:].abs()).mean(),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_both_scales_learn_from_their_difference_and_only_the_first_from_its_prototypes() -> None:
    labels, valid = (
        torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        torch.ones(2, 1, 4, 6, dtype=torch.bool),
    )
    whole, half = output_of(0, (4, 6)), output_of(1, (2, 3))
    terms = SfcObjective(Sfc(), MapRules(), torch.ones(3))(whole, half, labels, valid)
    terms["consistency"].backward(retain_graph=True)
    assert half.logits.grad is None and half.affinity.grad is None
    assert whole.logits.grad.any() and whole.affinity.grad.any() and whole.features.grad.any()
    terms["scales"].backward()
    assert half.logits.grad.any() and half.affinity.grad.any() and half.features.grad is None


def test_without_an_affinity_maps_are_sipes() -> None:
    whole = output_of(0, (4, 6))
    plain = CamOutput(whole.logits, whole.features, whole.semantic)
    labels, valid = torch.ones(2, 3), torch.ones(2, 1, 4, 6, dtype=torch.bool)
    assert not torch.allclose(
        training_maps(whole, labels, valid, MapRules()).classifier,
        training_maps(plain, labels, valid, MapRules()).classifier,
    )


def test_halved_images_keep_their_corners() -> None:
    images = torch.randint(0, 256, (1, 3, 8, 12), dtype=torch.uint8)
    small = halved(images)
    assert small.shape == (1, 3, 4, 6)
    # A corner's place, up to 11, is some roundings of float32 off; neighbours differ by up to 255.
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert small[0, :, y, x].tolist() == pytest.approx(images[0, :, y, x].tolist(), abs=1e-3)
