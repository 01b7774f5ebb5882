"""The dense CRF in plain torch, several images at once.

It is for a GPU; on a CPU the loops of :mod:`brnf.segment.kernels` are several times as fast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from brnf.config.sections.segmentation import Crf
from brnf.errors import UserError
from brnf.segment.crf import NO_LABEL, SMALLEST_PROBABILITY
from brnf.segment.lattice import TINY, Geometry, geometry

__all__ = ["dense_crf_batch"]


@torch.no_grad()
def dense_crf_batch(
    images: Tensor, probability: Tensor, options: Crf, counts: Tensor | None = None
) -> Tensor:
    """Refine label probabilities as :func:`brnf.segment.crf.dense_crf` does, on any device.

    Arguments:
        images: [B, H, W, 3] uint8 RGB.
        probability: [B, L, H, W] float32, a distribution over the L labels at every pixel.
        options: the pairwise terms.
        counts: [B] how many labels, from the first on, each image has; None: all.

    Returns:
        [B, L, H, W] float32 marginals, 0 for labels that an image does not have.

    Raises:
        UserError: the widths of the pairwise terms are too small for the images.
    """
    batch, labels, height, width = probability.shape
    if images.shape != (batch, height, width, 3) or images.dtype != torch.uint8:
        given = f"images {tuple(images.shape)} {images.dtype}"
        raise ValueError(f"{given} do not fit probabilities {tuple(probability.shape)}")
    if labels == 1 or options.iterations == 0:
        return probability.float()
    place = _places(height, width, images.device)
    everywhere = place.expand(batch, -1, -1).reshape(-1, 2)
    colour = images.reshape(-1, 3).float() / options.bilateral_sigma_rgb
    both = torch.cat([everywhere / options.bilateral_sigma_xy, colour], 1)
    # One lattice of the plane serves all images: their labels stand side by side in its channels.
    smoothness = _Lattice.over(place / options.gaussian_sigma, 1)
    appearance = _Lattice.over(both, batch)
    unary = probability.float().clamp(SMALLEST_PROBABILITY, 1).log().permute(0, 2, 3, 1)
    if counts is not None:
        absent = torch.arange(labels, device=images.device) >= counts[:, None]
        unary = unary.masked_fill(absent[:, None, None], float(NO_LABEL))
    unary = unary.reshape(-1, labels)
    marginals = unary.softmax(1)
    for _ in range(options.iterations):
        beside = marginals.view(batch, -1, labels).transpose(0, 1).reshape(-1, batch * labels)
        near = smoothness.filtered(beside).view(-1, batch, labels).transpose(0, 1)
        alike = appearance.filtered(marginals)
        message = options.bilateral_weight * alike
        message += options.gaussian_weight * near.reshape(-1, labels)
        marginals = (unary + message).softmax(1)
    return marginals.view(batch, height, width, labels).permute(0, 3, 1, 2).contiguous()


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Return [H W, 2] columns and rows of the pixels."""
    rows = torch.arange(height, dtype=torch.float32, device=device)
    columns = torch.arange(width, dtype=torch.float32, device=device)
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([column, row], 2).view(-1, 2)


@dataclass(frozen=True)
class _Lattice:
    """As :class:`brnf.segment.lattice.Lattice`, for P pixels of all images.

    Attributes:
        offsets: [P, d + 1] points around every pixel.
        weights: [P, d + 1] shares, normalised.
        beyond: [d + 1, M + 1] the next point in each direction; M where there is none.
        before: [d + 1, M + 1] the one before.
    """

    offsets: Tensor
    weights: Tensor
    beyond: Tensor
    before: Tensor

    @classmethod
    def over(cls, features: Tensor, batch: int) -> "_Lattice":
        """Build the lattices of ``batch`` images side by side; their features are [P, d]."""
        plane = geometry(features.amax(0).tolist())
        if batch * plane.end >= 2**63:
            raise UserError("the dense CRF cannot tell the points of so many images apart")
        keys, weights = _corners(features, plane)
        image = torch.arange(batch, device=features.device) * plane.end
        keys += image.repeat_interleave(len(features) // batch)[:, None]
        points, offsets = keys.unique(return_inverse=True)
        steps = plane.steps.tolist()
        beyond = torch.stack([_found(points, points + step) for step in steps])
        before = torch.stack([_found(points, points - step) for step in steps])
        raw = cls(offsets, weights, beyond, before)
        norm = raw.filtered(torch.ones_like(weights[:, :1]))
        return cls(offsets, weights * (norm + float(TINY)).rsqrt(), beyond, before)

    def filtered(self, values: Tensor) -> Tensor:
        """Splat, blur and slice values [P, C]."""
        spread = values.new_zeros(self.beyond.shape[1], values.shape[1])
        corners = list(zip(self.offsets.unbind(1), self.weights.unbind(1), strict=True))
        for points, weight in corners:
            spread.index_add_(0, points, weight[:, None] * values)
        for beyond, before in zip(self.beyond, self.before, strict=True):
            spread = spread + 0.5 * (spread[beyond] + spread[before])
            spread[-1] = 0  # the point that does not exist
        found = torch.zeros_like(values)
        for points, weight in corners:
            found += weight[:, None] * spread[points]
        return found


def _corners(features: Tensor, plane: Geometry) -> tuple[Tensor, Tensor]:
    """Return the keys [P, d + 1] of the points around features [P, d], and the shares in them."""
    axes = features.shape[1]
    corners = axes + 1
    elevated = _elevated(features * torch.from_numpy(plane.scales).to(features.device))
    cell = (elevated * (1 / corners)).round()
    rest = elevated - cell * corners
    rank = cell.sum(1, keepdim=True).expand(-1, corners).clone()
    for i in range(corners):
        for j in range(i + 1, corners):
            later = (rest[:, i] < rest[:, j]).float()
            rank[:, i] += later
            rank[:, j] += 1 - later
    turn = (rank < 0).float() - (rank >= corners).float()
    cell, rank = cell + turn, (rank + turn * corners).long()
    order = torch.empty_like(rank).scatter_(1, rank, torch.arange(corners).to(rank).expand_as(rank))
    rest = ((elevated - cell * corners) * (1 / corners)).gather(1, order)
    shares = torch.cat([1 + rest[:, -1:] - rest[:, :1], (rest[:, :-1] - rest[:, 1:]).flip(1)], 1)
    strides = torch.from_numpy(plane.strides).to(features.device)
    zeroth = plane.origin + (cell.long() * corners * strides).sum(1, keepdim=True)
    moved = strides.sum() - corners * strides[order[:, 1:].flip(1)]
    return torch.cat([zeroth, zeroth + moved.cumsum(1)], 1), shares


def _elevated(features: Tensor) -> Tensor:
    """Map scaled features [P, d] into the plane of [P, d + 1] coordinates that add up to 0."""
    total = torch.zeros_like(features[:, 0])
    elevated = []
    for axis in range(features.shape[1], 0, -1):
        feature = features[:, axis - 1]
        elevated.append(total - axis * feature)
        total = total + feature
    return torch.stack([total, *reversed(elevated)], 1)


def _found(points: Tensor, wanted: Tensor) -> Tensor:
    """Return [M + 1] the places of keys among sorted keys [M], and M where there is none."""
    place = torch.searchsorted(points, wanted).clamp(max=len(points) - 1)
    missing = points[place] != wanted
    place[missing] = len(points)
    return torch.cat([place, place.new_tensor([len(points)])])
