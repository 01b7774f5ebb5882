"""FSCL: contrast between region features and samples of the flow (`docs/method.md` section 7)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brnf.cam.unit import unit_vectors
from brnf.engine import distributed

__all__ = ["NONE", "ContrastBank", "info_nce", "paired_region_features", "region_features"]

NONE = -1
"""Class of a row that holds nothing: a region without a pixel, a slot not yet filled."""


def region_features(
    features: Tensor, maps: Tensor, chosen: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Average the pixel features where a class is certain, one region per image and class.

    Arguments:
        features: v, [N, D, h, w]; gradients flow back into them.
        maps: P, [N, K, h, w] in 0..1.
        chosen: [N, K, h, w] bool, pixels that may take part: not padding, class of the image or
            background.
        threshold: a pixel belongs to the region where its map is at least this (tau_h).

    Returns:
        Unit vectors [R, D] and their classes [R] int64; regions without a pixel are left out.
    """
    inside = ((maps >= threshold) & chosen).flatten(2).float()
    pixels = inside.sum(2)
    images, classes = torch.nonzero(pixels, as_tuple=True)
    sums = torch.einsum("rp,rdp->rd", inside[images, classes], features.flatten(2)[images])
    return unit_vectors(sums / pixels[images, classes, None], 1), classes


def paired_region_features(
    features: Tensor,
    maps: Tensor,
    chosen: Tensor,
    threshold: float,
    images: Tensor,
    classes: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return what :func:`region_features` does, a row for each pair of an image and a class.

    How many rows there are is then known without asking a device which regions have a pixel.

    Arguments:
        features: as of :func:`region_features`.
        maps: likewise.
        chosen: likewise.
        threshold: likewise.
        images: [R] int64, with ``classes`` every pair that may have a region.
        classes: [R] int64.

    Returns:
        Unit vectors [R, D] and their classes [R]; of a region without a pixel zeros and ``NONE``.
    """
    inside = ((maps >= threshold) & chosen).flatten(2).float()
    pixels = inside.sum(2)[images, classes]
    sums = (inside @ features.flatten(2).transpose(1, 2))[images, classes]
    means = sums / pixels.clamp(min=1).unsqueeze(1)
    return unit_vectors(means, 1), classes.masked_fill(pixels == 0, NONE)


class ContrastBank(nn.Module):
    """Remember the latest region features and flow samples of each class, the background among
    them.

    Arguments:
        classes: K with the background.
        dimension: D.
        regions: how many region features a class keeps.
        samples: how many flow samples a class keeps.

    Attributes:
        regions: [K * regions + 1, D], the rings of the classes one behind the other; the last row
            takes what is not kept, so that rows need not be picked out first.
        samples: [K * samples + 1, D], likewise.
        region_counts: [K] int64, how many each class was given.
        sample_counts: [K] int64, likewise.
    """

    regions: Tensor
    samples: Tensor
    region_counts: Tensor
    sample_counts: Tensor

    def __init__(
        self, classes: int, dimension: int, regions: int = 500, samples: int = 100
    ) -> None:
        super().__init__()
        self.register_buffer("regions", torch.zeros(classes * regions + 1, dimension))
        self.register_buffer("samples", torch.zeros(classes * samples + 1, dimension))
        self.register_buffer("region_counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("sample_counts", torch.zeros(classes, dtype=torch.int64))

    def add_regions(self, vectors: Tensor, classes: Tensor) -> None:
        """Store region features [R, D] of classes [R], or ``NONE``; the oldest of a full class
        leave.
        """
        _push(self.regions, self.region_counts, vectors, classes)

    def add_samples(self, vectors: Tensor, classes: Tensor) -> None:
        """Remember flow samples [R, D] as unit vectors: samples leave the sphere that the features
        live on.
        """
        _push(self.samples, self.sample_counts, F.normalize(vectors, dim=1), classes)

    def contents(self, every_slot: bool = False) -> tuple[Tensor, Tensor]:
        """Return all remembered vectors [B, D] and their classes [B].

        Arguments:
            every_slot: whether those that are not filled yet come along, as zeros of class
                ``NONE``: B is then always the same.
        """
        vectors, classes = [], []
        for store, counts in (
            (self.regions, self.region_counts),
            (self.samples, self.sample_counts),
        ):
            slots = torch.arange(_capacity(store, counts), device=store.device)
            filled = (slots < counts[:, None]).flatten()
            owners = torch.arange(len(counts), device=store.device)
            owners = owners[:, None].expand(-1, len(slots)).flatten()
            if every_slot:
                vectors.append(store[:-1])
                classes.append(owners.masked_fill(~filled, NONE))
            else:
                vectors.append(store[:-1][filled])
                classes.append(owners[filled])
        return torch.cat(vectors), torch.cat(classes)


def _capacity(store: Tensor, counts: Tensor) -> int:
    return (len(store) - 1) // len(counts)


@torch.no_grad()
def _push(store: Tensor, counts: Tensor, vectors: Tensor, classes: Tensor) -> None:
    """Write each vector into its class's ring, in one go; of more than fit the last ones stay."""
    capacity = _capacity(store, counts)
    if not capacity or not len(vectors):
        return
    kinds = torch.arange(len(counts), device=store.device)
    up_to_here = (classes[:, None] == kinds).cumsum(0)  # [R, K] how many of each class
    given, owners = up_to_here[-1], classes.clamp(min=0)
    # Number of a vector among those of its class that stay, negative for those that do not.
    number = up_to_here.gather(1, owners[:, None]).squeeze(1) - 1
    number -= (given - capacity).clamp(min=0)[owners]
    stays = (classes != NONE) & (number >= 0)
    slots = owners * capacity + (counts[owners] + number) % capacity
    rows = torch.where(stays, slots, len(store) - 1)
    store.index_copy_(0, rows, vectors.to(store.dtype).masked_fill(~stays[:, None], 0))
    counts += given.clamp(max=capacity)


def info_nce(
    anchors: Tensor,
    anchor_classes: Tensor,
    bank: Tensor,
    bank_classes: Tensor,
    temperature: float = 0.5,
) -> Tensor:
    """Pull anchors towards their class's vectors and away from all others.

    ``-mean_pos log( e^{a.p/t} / (e^{a.p/t} + sum_neg e^{a.n/t}) )``, averaged over the anchors that
    have both a positive and a negative.

    Arguments:
        anchors: a, unit vectors [R, D].
        anchor_classes: [R]; ``NONE`` leaves an anchor out.
        bank: unit vectors [B, D].
        bank_classes: [B]; ``NONE`` leaves a vector out.
        temperature: t.

    Returns:
        A scalar, zero (with a gradient of zero) when no anchor has both.
    """
    similarity = anchors @ bank.T / temperature
    filled, same = bank_classes != NONE, anchor_classes[:, None] == bank_classes
    positive, negative = same & filled, ~same & filled
    usable = (anchor_classes != NONE) & positive.any(1) & negative.any(1)
    # An anchor that does not count is compared with the whole bank, lest its sum be one of nothing.
    positive = positive & usable[:, None]
    left_out = usable[:, None] & ~negative
    against = similarity.masked_fill(left_out, float("-inf")).logsumexp(1, keepdim=True)
    terms = F.softplus(against - similarity) * positive
    means = terms.sum(1) / positive.sum(1).clamp(min=1)
    return means.sum() / distributed.mean_count(usable)
