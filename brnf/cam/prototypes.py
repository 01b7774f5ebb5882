"""From class maps to seeds, to prototypes, to prototype maps (`docs/method.md` section 2).

All maps are [N, K, h, w] with the background as channel 0, all valid masks [N, 1, h, w].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.cam.unit import unit_vectors
from brnf.config.sections.cam import BackgroundOver, SeedRule

__all__ = [
    "choose_seeds",
    "classifier_maps",
    "divide_by_maximum",
    "plain_seeds",
    "present_classes",
    "prototype_maps",
    "prototypes",
    "structure_seeds",
]

EPSILON = 1e-5

BACKGROUND_WEIGHTS: dict[SeedRule, float] = {"structure": 0.5, "plain": 0.3}
"""What the background is multiplied by before the winner is found, by SIPE's and by SFC's code."""


def divide_by_maximum(maps: Tensor) -> Tensor:
    """Divide each non-negative map by its spatial maximum, [..., h, w]."""
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)


def present_classes(labels: Tensor) -> Tensor:
    """Return which channels exist for each image: the background and its labels.

    Arguments:
        labels: [N, C] in {0, 1}.

    Returns:
        [N, K] bool.
    """
    return torch.cat([torch.ones_like(labels[:, :1]), labels], 1).bool()


def classifier_maps(
    logits: Tensor, labels: Tensor, background_over: BackgroundOver = "all"
) -> Tensor:
    """Normalise the classifier's maps and add the background.

    The background is 1 minus the largest class map, taken before any label mask (SIPE's code) or,
    by choice, over the classes of the image only.

    Arguments:
        logits: [N, C, h, w].
        labels: [N, C] in {0, 1}.
        background_over: classes that count against the background.

    Returns:
        A: [N, K, h, w] in 0..1, not masked by the labels.
    """
    foreground = divide_by_maximum(logits.relu())
    counted = foreground if background_over == "all" else foreground * labels[:, :, None, None]
    return torch.cat([1 - counted.amax(1, keepdim=True), foreground], 1)


def choose_seeds(
    maps: Tensor,
    features: Tensor,
    present: Tensor,
    rule: SeedRule,
    background_weight: float | None = None,
) -> Tensor:
    """Give each pixel the class that one of the two rules finds.

    Arguments:
        maps: A, [N, K, h, w].
        features: f, [N, S, h, w]; of no use to the plain rule.
        present: [N, K] bool.
        rule: see :func:`structure_seeds` and :func:`plain_seeds`.
        background_weight: factor of the background, or None for the rule's own.

    Returns:
        One-hot seeds [N, K, h, w] float32; a pixel won by a class that is not present has none.
    """
    weight = BACKGROUND_WEIGHTS[rule] if background_weight is None else background_weight
    if rule == "structure":
        return structure_seeds(maps, features, present, weight)
    return plain_seeds(maps, present, weight)


def structure_seeds(
    maps: Tensor,
    features: Tensor,
    present: Tensor,
    background_weight: float = BACKGROUND_WEIGHTS["structure"],
) -> Tensor:
    """Give each pixel the class whose map its neighbourhood in feature space resembles most (SIPE).

    ``R_ij = relu(cos(f_i, f_j))``; the pixel's similarity map ``R_i`` is compared with every class
    map by a soft intersection over union.

    Arguments:
        maps: A, [N, K, h, w].
        features: f, [N, S, h, w].
        present: [N, K] bool.
        background_weight: factor of the background's overlap.

    Returns:
        One-hot seeds [N, K, h, w] float32; a pixel won by a class that is not present has none.
    """
    flat_maps = maps.flatten(2)
    directions = F.normalize(features.flatten(2), dim=1)
    similarity = (directions.transpose(1, 2) @ directions).relu()
    intersection = flat_maps @ similarity
    union = similarity.sum(1, keepdim=True) + flat_maps.sum(2, keepdim=True) - intersection
    overlap = intersection / (union + EPSILON)
    return _one_hot(_weighted(overlap.view_as(maps), background_weight), present)


def plain_seeds(
    maps: Tensor,
    present: Tensor,
    background_weight: float = BACKGROUND_WEIGHTS["plain"],
) -> Tensor:
    """Give each pixel the class of the largest map after the background was weighted down (SFC).

    Arguments:
        maps: A, [N, K, h, w].
        present: [N, K] bool.
        background_weight: factor of channel 0.

    Returns:
        One-hot seeds [N, K, h, w] float32.
    """
    return _one_hot(_weighted(maps, background_weight), present)


def _weighted(scores: Tensor, background_weight: float) -> Tensor:
    return torch.cat([scores[:, :1] * background_weight, scores[:, 1:]], 1)


def _one_hot(scores: Tensor, present: Tensor) -> Tensor:
    seeds = F.one_hot(scores.argmax(1), scores.shape[1]).permute(0, 3, 1, 2).float()
    return seeds * present[:, :, None, None]


def prototypes(features: Tensor, seeds: Tensor) -> Tensor:
    """Average the pixel features under each seed.

    Arguments:
        features: v, [N, D, h, w].
        seeds: weights of the pixels, [N, K, h, w].

    Returns:
        p: [N, K, D]; zero where a class has no seed.
    """
    weights = seeds.flatten(2)
    return weights @ features.flatten(2).transpose(1, 2) / (weights.sum(2, keepdim=True) + EPSILON)


def prototype_maps(features: Tensor, centres: Tensor) -> Tensor:
    """Return how much each pixel points the way of each prototype, ``relu(cos(v, p_k))``, not
    divided by its maximum.

    Arguments:
        features: v, [N, D, h, w].
        centres: p, [N, K, D].

    Returns:
        P: [N, K, h, w] in 0..1.
    """
    cosine = unit_vectors(centres, 2) @ unit_vectors(features.flatten(2), 1)
    found: Tensor = cosine.relu().unflatten(2, features.shape[2:])
    return found
