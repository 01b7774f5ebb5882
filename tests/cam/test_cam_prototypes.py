"""The order of normalisation, background, masks, seeds and prototypes, worked out by hand from
docs/method.md section 2.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from brnf.cam.prototypes import (
    choose_seeds,
    classifier_maps,
    divide_by_maximum,
    plain_seeds,
    present_classes,
    prototype_maps,
    prototypes,
    structure_seeds,
)
from brnf.config.sections.cam import SeedRule
from tests.reference.recipe import pieces

# Two classes on a 3x3 image; only class 1 is present. Class 1's map peaks at 4, class 2's at 2.
LOGITS = torch.tensor(
    [
        [
            [[4.0, 2.0, -3.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
            [[0.0, 0.0, 2.0], [0.0, 0.0, 1.0], [0.0, -5.0, 0.0]],
        ]
    ]
)
LABELS = torch.tensor([[1.0, 0.0]])
# relu, then division by 4 and by 2.
FIRST = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.25, 0.0], [0.0, 0.0, 0.0]])
SECOND = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])


def test_background_counts_absent_classes_before_the_label_mask() -> None:
    maps = classifier_maps(LOGITS, LABELS)[0]
    torch.testing.assert_close(maps[1], FIRST, atol=1e-4, rtol=0)
    torch.testing.assert_close(maps[2], SECOND, atol=1e-4, rtol=0)  # not masked by the labels
    expected = torch.tensor([[0.0, 0.5, 0.0], [0.5, 0.75, 0.5], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(maps[0], expected, atol=1e-4, rtol=0)


def test_background_over_present_classes_only() -> None:
    maps = classifier_maps(LOGITS, LABELS, "present")[0]
    torch.testing.assert_close(maps[0], 1 - FIRST, atol=1e-4, rtol=0)


def test_plain_seeds_weigh_the_background_and_drop_absent_winners() -> None:
    maps = classifier_maps(LOGITS, LABELS)
    seeds = plain_seeds(maps, present_classes(LABELS))[0]
    # background * 0.3 = [[0, .15, 0], [.15, .225, .15], [.3, .3, .3]] loses wherever class 1 is at
    # least .25
    torch.testing.assert_close(seeds[1], (FIRST > 0).float())
    torch.testing.assert_close(
        seeds[2], torch.zeros(3, 3)
    )  # class 2 wins the right edge but is not of the image
    torch.testing.assert_close(seeds[0], torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 1, 1]]))


def test_structure_seeds_by_hand() -> None:
    # Three pixels in a row; the first two share a direction, the third is orthogonal.
    features = torch.tensor([[[[1.0, 2.0, 0.0]], [[0.0, 0.0, 5.0]]]])
    maps = torch.tensor([[[[0.2, 0.9, 1.0]], [[0.8, 0.1, 0.0]]]])
    # pixel 1: R = (1, 1, 0). background: inter 1.1, union 2 + 2.1 - 1.1 = 3.0, IoU .3667, halved
    # .1833 class: inter .9, union 2 + .9 - .9 = 2.0, IoU .45 -> class; pixel 2 alike, though its
    # own maps say background pixel 3: R = (0, 0, 1). background: 1 / (1 + 2.1 - 1) = .476, halved
    # .238; class 0 -> background
    seeds = structure_seeds(maps, features, torch.ones(1, 2, dtype=torch.bool))[0, :, 0]
    torch.testing.assert_close(seeds, torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))


def test_background_weight_of_one_half_decides() -> None:
    features = torch.ones(1, 2, 1, 4)
    maps = torch.tensor(
        [[[[0.6, 0.6, 0.6, 0.6]], [[0.4, 0.4, 0.4, 0.4]]]]
    )  # IoU .6 against .4; halved .3
    seeds = structure_seeds(maps, features, torch.ones(1, 2, dtype=torch.bool))
    assert seeds[0, 1].all() and not seeds[0, 0].any()


@pytest.mark.parametrize(("rule", "own"), [("structure", 0.5), ("plain", 0.3)])
def test_each_rule_has_its_own_weight_of_the_background(rule: SeedRule, own: float) -> None:
    (maps, features), present = pieces("sipe"), torch.ones(2, 5, dtype=torch.bool)

    def seeds(weight: float | None) -> torch.Tensor:
        return choose_seeds(maps, features, present, rule, weight)

    def background(weight: float | None) -> int:
        return int(seeds(weight)[:, 0].sum())

    assert background(0.01) < background(None) < background(2.0)
    assert torch.equal(seeds(None), seeds(own))
    assert background(own) != background(0.8 - own)  # the other rule's


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_structure_seeds_equal_a_loop_over_pixels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 4, 3, 3, generator=generator)
    features = torch.randn(2, 5, 3, 3, generator=generator)
    present = torch.rand(2, 4, generator=generator) > 0.3
    seeds = structure_seeds(maps, features, present)
    for n in range(2):
        f, a = features[n].flatten(1).T, maps[n].flatten(1)
        for i in range(9):
            similarity = F.cosine_similarity(f[i : i + 1], f).relu()
            overlap = []
            for k in range(4):
                intersection = (similarity * a[k]).sum()
                overlap.append(
                    intersection
                    / (similarity.sum() + a[k].sum() - intersection + 1e-5)
                    * (0.5 if k == 0 else 1.0)
                )
            winner = int(torch.stack(overlap).argmax())
            expected = torch.zeros(4)
            expected[winner] = float(present[n, winner])
            torch.testing.assert_close(seeds[n].flatten(1)[:, i], expected)


def test_prototypes_and_their_maps_by_hand() -> None:
    features = torch.tensor([[[[3.0, 1.0, 0.0]], [[0.0, 0.0, 2.0]]]])
    seeds = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]])
    centres = prototypes(features, seeds)
    torch.testing.assert_close(
        centres[0], torch.tensor([[2.0, 0.0], [0.0, 2.0]]), atol=1e-4, rtol=0
    )
    maps = prototype_maps(features, centres)
    torch.testing.assert_close(maps[0, :, 0], torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_a_class_without_a_seed_has_an_empty_map() -> None:
    features = torch.randn(1, 6, 2, 2)
    seeds = torch.zeros(1, 3, 2, 2)
    seeds[0, 0] = 1
    maps = prototype_maps(features, prototypes(features, seeds))
    assert torch.isfinite(maps).all() and not maps[0, 1:].any()


def test_prototype_maps_never_turn_negative_features_positive() -> None:
    features = torch.tensor([[[[1.0, -1.0]], [[0.0, 0.0]]]])
    maps = prototype_maps(features, torch.tensor([[[1.0, 0.0]]]))
    assert maps.flatten().tolist() == pytest.approx([1.0, 0.0])


def test_division_by_the_maximum_leaves_empty_maps_empty() -> None:
    maps = divide_by_maximum(torch.tensor([[[0.0, 0.0]], [[0.5, 2.0]]]))
    torch.testing.assert_close(maps, torch.tensor([[[0.0, 0.0]], [[0.25, 1.0]]]), atol=1e-4, rtol=0)
