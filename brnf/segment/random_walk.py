"""Random walk over pixels that no class boundary separates: IRN's semantic part.

See docs/method.md section 8.

A boundary map B on the grid says for each pair of near pixels how alike their classes are: ``a_ij =
1 - max B`` along the straight path between them. It is learnt from pairs of labelled pixels, and
maps walk along it.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from brnf.config.sections.segmentation import Walk
from brnf.store.label_type import MOST_IN_A_BYTE, ignored_value

__all__ = [
    "affinity_loss",
    "affinity_terms",
    "pair_affinities",
    "pair_kinds",
    "pair_paths",
    "walk_maps",
]

EPSILON = 1e-5

Offset = tuple[int, int]


@cache
def pair_paths(radius: int) -> dict[Offset, tuple[Offset, ...]]:
    """Return the offsets nearer than a radius, each pair of pixels once, and the cells on the way.

    Arguments:
        radius: in pixels of the grid.

    Returns:
        (dy, dx) with dy > 0, or dy = 0 and dx > 0 -> cells (y, x), both ends included, less than
        one pixel from the straight line.
    """
    offsets = [(0, x) for x in range(1, radius)]
    offsets += [
        (y, x)
        for y in range(1, radius)
        for x in range(1 - radius, radius)
        if y * y + x * x < radius * radius
    ]
    paths = {}
    for dy, dx in offsets:
        box = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
        paths[dy, dx] = tuple((y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx)
    return paths


def pair_affinities(boundaries: Tensor, radius: int) -> dict[Offset, Tensor]:
    """Return for each offset the affinity of all pairs that lie inside the grid.

    Arguments:
        boundaries: B, [N, h, w] in 0..1.
        radius: in pixels of the grid.

    Returns:
        (dy, dx) -> [N, h - dy, w - |dx|]; entry [n, y, x] belongs to the pixels (y, x + max(0,
        -dx)) and that plus (dy, dx).
    """
    found = {}
    for offset, cells in pair_paths(radius).items():
        if offset[0] < boundaries.shape[1] and abs(offset[1]) < boundaries.shape[2]:
            found[offset] = 1 - torch.stack(
                [_shifted(boundaries, offset, cell) for cell in cells]
            ).amax(0)
    return found


def _shifted(values: Tensor, offset: Offset, cell: Offset) -> Tensor:
    """Return what lies at a cell of each pair's path."""
    height, width = values.shape[-2] - offset[0], values.shape[-1] - abs(offset[1])
    left = max(0, -offset[1]) + cell[1]
    return values[..., cell[0] : cell[0] + height, left : left + width]


def affinity_loss(
    boundaries: Tensor, labels: Tensor, radius: int, classes: int = MOST_IN_A_BYTE
) -> Tensor:
    """Return IRN's loss of boundaries: pixels of one class are alike, those of two are separated.

    Half of it are the pairs of one class, background and foreground alike, half those of two. IRN
    passes over pairs whose first pixel lies near the border; here all pairs of the grid count.

    Arguments:
        boundaries: B, [N, h, w] in 0..1.
        labels: [N, h, w] integers, 0 the background.
        radius: of the pairs, in pixels of the grid.
        classes: C, whose number says which label is ignored.
    """
    background, foreground, different = affinity_terms(boundaries, labels, radius, classes)[0]
    found: Tensor = (background + foreground) / 4 + different / 2
    return found


def affinity_terms(
    boundaries: Tensor, labels: Tensor, radius: int, classes: int = MOST_IN_A_BYTE
) -> tuple[Tensor, Tensor]:
    """Return the parts of :func:`affinity_loss`, and how many pairs each is the mean of.

    Arguments:
        boundaries: B, [N, h, w] in 0..1.
        labels: [N, h, w] integers, 0 the background.
        radius: of the pairs, in pixels of the grid.
        classes: C, whose number says which label is ignored.

    Returns:
        the means [3] of ``-log a`` over pairs within the background and within one foreground
        class, and of ``-log(1 - a)`` over pairs of two classes; their counts [3].
    """
    sums, counts = boundaries.new_zeros(3), boundaries.new_zeros(3)
    for offset, affinity in pair_affinities(boundaries, radius).items():
        kinds = pair_kinds(labels, offset, classes)
        near, apart = -(affinity + EPSILON).log(), -(1 + EPSILON - affinity).log()
        losses = zip((near, near, apart), kinds, strict=True)
        sums = sums + torch.stack([(loss * kind).sum() for loss, kind in losses])
        counts = counts + torch.stack([kind.sum() for kind in kinds])
    return sums / (counts + EPSILON), counts


def pair_kinds(
    labels: Tensor, offset: Offset, classes: int = MOST_IN_A_BYTE
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which pairs of an offset lie within the background, one class, and two classes.

    Arguments:
        labels: [N, h, w] integers, 0 the background; pairs with an ignored one are of no kind.
        offset: (dy, dx) with dy >= 0.
        classes: C, whose number says which label is ignored.

    Returns:
        three bool [N, h - dy, w - |dx|], entries as in :func:`pair_affinities`.
    """
    one, other = _shifted(labels, offset, (0, 0)), _shifted(labels, offset, offset)
    ignored = ignored_value(classes)
    known, same = (one != ignored) & (other != ignored), one == other
    return known & same & (one == 0), known & same & (one > 0), known & ~same


def walk_maps(
    maps: NDArray[np.float32], boundary: NDArray[np.float32], walk: Walk
) -> NDArray[np.float32]:
    """Let maps walk: ``M (1 - B) T^(2^t)`` with T the affinities to the power beta, columns divided
    by their sums, and t the exponent.

    The steps are taken one by one with a sparse T, which costs a thousandth of squaring a dense
    one.

    Arguments:
        maps: M, [k, h, w].
        boundary: B, [h, w] in 0..1.
        walk: radius of a step, beta and exponent.

    Returns:
        [k, h, w].
    """
    height, width = boundary.shape
    numbers = torch.arange(height * width).view(1, height, width)
    rows, columns, values = (
        [np.arange(height * width)],
        [np.arange(height * width)],
        [np.ones(height * width, np.float32)],
    )
    for offset, affinity in pair_affinities(torch.from_numpy(boundary)[None], walk.radius).items():
        one, other = (_shifted(numbers, offset, end).flatten().numpy() for end in ((0, 0), offset))
        power = affinity.flatten().numpy() ** walk.beta
        rows, columns, values = [*rows, one, other], [*columns, other, one], [*values, power, power]
    steps = sparse.coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    ).tocsr()
    steps = (steps / steps.sum(axis=0)[None]).tocsr()
    walked = (maps * (1 - boundary)).reshape(len(maps), -1).T
    backward = steps.T.tocsr()
    for _ in range(2**walk.exponent):
        walked = backward @ walked
    return np.asarray(walked.T, np.float32).reshape(maps.shape)
