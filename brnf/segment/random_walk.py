"""Random walk over pixels that no class boundary separates: IRN's semantic part.

See docs/method.md section 8.

A boundary map B on the grid says for each pair of near pixels how alike their classes are: ``a_ij =
1 - max B`` along the straight path between them. It is learnt from pairs of labelled pixels, and
maps walk along it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    height, width = boundaries.shape[1:]
    paths = {
        offset: cells
        for offset, cells in pair_paths(radius).items()
        if offset[0] < height and abs(offset[1]) < width
    }
    if _by_offset(boundaries):
        return {
            offset: 1 - _on_paths(boundaries, offset, cells).amax(0)
            for offset, cells in paths.items()
        }
    largest = _LargestOnPaths.apply(boundaries, paths)
    return {offset: 1 - values for offset, values in zip(paths, largest, strict=True)}


def _by_offset(values: Tensor) -> bool:
    """Return whether one offset after the other suits the device: a CPU's cache, not a GPU, which a
    call costs more than its numbers.
    """
    return values.device.type == "cpu"


def _on_paths(values: Tensor, offset: Offset, cells: Sequence[Offset]) -> Tensor:
    """Return what lies on the cells of each pair's path, [cells, ..., h - dy, w - |dx|]."""
    return torch.stack([_shifted(values, offset, cell) for cell in cells])


class _LargestOnPaths(torch.autograd.Function):
    """The largest boundary on the path of each pair, by offset, as a GPU finds it: one place that
    has it gets the gradient, in 3 calls an offset instead of some 45.
    """

    @staticmethod
    def forward(
        ctx: Any, boundaries: Tensor, paths: Mapping[Offset, Sequence[Offset]]
    ) -> tuple[Tensor, ...]:
        found = [_on_paths(boundaries, *path).max(0) for path in paths.items()]
        ctx.paths, ctx.shape = paths, boundaries.shape
        ctx.save_for_backward(*(one.indices for one in found))
        return tuple(one.values for one in found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Add each pair's gradient to the place that its path's largest value came from."""
        images, height, width = ctx.shape
        by_boundaries = gradients[0].new_zeros(images, height * width)
        places = torch.arange(height * width, device=by_boundaries.device).view(height, width)
        parts = zip(ctx.paths.items(), ctx.saved_tensors, gradients, strict=True)
        for path, indices, gradient in parts:
            on_paths = _on_paths(places, *path)[:, None].expand(-1, images, -1, -1)
            largest = on_paths.gather(0, indices[None])
            by_boundaries.scatter_add_(1, largest.view(images, -1), gradient.flatten(1))
        return by_boundaries.view(ctx.shape), None


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
    for affinity, one, other in _pairs(boundaries, labels, radius):
        kinds = _kinds(one, other, classes)
        near, apart = -(affinity + EPSILON).log(), -(1 + EPSILON - affinity).log()
        losses = zip((near, near, apart), kinds, strict=True)
        sums = sums + torch.stack([(loss * kind).sum() for loss, kind in losses])
        counts = counts + torch.stack([kind.sum() for kind in kinds])
    return sums / (counts + EPSILON), counts


def _pairs(boundaries: Tensor, labels: Tensor, radius: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the affinities of pairs and the labels of both ends, by offset or in one piece."""
    pairs = [
        (affinity, _shifted(labels, offset, (0, 0)), _shifted(labels, offset, offset))
        for offset, affinity in pair_affinities(boundaries, radius).items()
    ]
    if _by_offset(boundaries) or not pairs:
        return pairs
    affinity, one, other = (
        torch.cat([values.flatten() for values in kind]) for kind in zip(*pairs, strict=True)
    )
    return [(affinity, one, other)]


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
    return _kinds(_shifted(labels, offset, (0, 0)), _shifted(labels, offset, offset), classes)


def _kinds(one: Tensor, other: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three kinds of pairs whose pixels have these labels."""
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
