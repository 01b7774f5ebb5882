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
    sums = (inside @ features.flatten(2).transpose(1, 2))[images, classes]
    empty = inside.amax(2)[images, classes] == 0
    return unit_vectors(sums, 1), classes.masked_fill(empty, NONE)


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
        counts: [2, K] int64, how many regions and how many samples each class was given.
        kinds: [K] int64, all classes.
    """

    regions: Tensor
    samples: Tensor
    counts: Tensor
    kinds: Tensor
    _rings: Tensor
    _slots: Tensor
    _owners: Tensor

    def __init__(
        self, classes: int, dimension: int, regions: int = 500, samples: int = 100
    ) -> None:
        super().__init__()
        self.register_buffer("regions", torch.zeros(classes * regions + 1, dimension))
        self.register_buffer("samples", torch.zeros(classes * samples + 1, dimension))
        self.register_buffer("counts", torch.zeros(2, classes, dtype=torch.int64))
        self._capacities = regions, samples
        # Of each row of both, without the last: which ring it lies in, where in that, and whose.
        sizes = torch.tensor(self._capacities).repeat_interleave(classes)
        rings = torch.arange(2 * classes).repeat_interleave(sizes)
        slots = torch.cat([torch.arange(size) for size in sizes.tolist()])
        self.register_buffer("kinds", torch.arange(classes), persistent=False)
        self.register_buffer("_rings", rings, persistent=False)
        self.register_buffer("_slots", slots, persistent=False)
        self.register_buffer("_owners", rings % classes, persistent=False)

    def add_regions(self, vectors: Tensor, classes: Tensor) -> None:
        """Store region features [R, D] of classes [R], or ``NONE``; the oldest of a full class
        leave, and of more than fit the last ones stay.
        """
        capacity, counts = self._capacities[0], self.counts[0]
        if not capacity or not len(vectors):
            return
        up_to_here = (classes[:, None] == self.kinds).cumsum(0)  # [R, K] how many of each class
        given, owners = up_to_here[-1], classes.clamp(min=0)
        # Number of a vector among those of its class that stay, from 1; less for those that do not.
        first = (given - capacity).clamp_(min=0)
        number = (up_to_here - first).gather(1, owners[:, None]).squeeze(1)
        leaves = (classes == NONE) | (number < 1)
        slots = owners * capacity + (counts[owners] + number - 1) % capacity
        rows = slots.masked_fill(leaves, len(self.regions) - 1)
        kept = vectors.detach().to(self.regions.dtype).masked_fill(leaves[:, None], 0)
        self.regions.index_copy_(0, rows, kept)
        counts += given - first

    def add_samples(self, vectors: Tensor, chosen: Tensor) -> None:
        """Remember flow samples as unit vectors: samples leave the sphere that the features live
        on.

        Arguments:
            vectors: [K, S, D], those of each class.
            chosen: [K] bool, of which classes they are remembered.
        """
        capacity, counts = self._capacities[1], self.counts[1]
        kept = F.normalize(vectors[:, -capacity:], dim=2) if capacity else vectors[:, :0]
        numbers = torch.arange(kept.shape[1], device=kept.device)
        slots = self.kinds[:, None] * capacity + (counts[:, None] + numbers) % max(capacity, 1)
        rows = slots.masked_fill(~chosen[:, None], len(self.samples) - 1)
        self.samples.index_copy_(0, rows.flatten(), kept.flatten(0, 1).to(self.samples.dtype))
        counts.add_(chosen, alpha=len(numbers))

    def contents(self, every_slot: bool = False) -> tuple[Tensor, Tensor]:
        """Return all remembered vectors [B, D] and their classes [B].

        Arguments:
            every_slot: whether those that are not filled yet come along, as zeros of class
                ``NONE``: B is then always the same.
        """
        stores = self.regions[:-1], self.samples[:-1]
        empty = self._slots >= self.counts.flatten()[self._rings]
        if every_slot:
            return torch.cat(stores), self._owners.masked_fill(empty, NONE)
        filled = ~empty
        parts = zip(stores, filled.split([len(store) for store in stores]), strict=True)
        return torch.cat([store[part] for store, part in parts]), self._owners[filled]


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
    same = anchor_classes[:, None] == bank_classes
    not_negative = same | (bank_classes == NONE)
    usable = (anchor_classes != NONE) & same.any(1) & ~not_negative.all(1)
    # An anchor that does not count is compared with the whole bank, lest its sum be one of nothing.
    positive, left_out = same & usable[:, None], not_negative & usable[:, None]
    against = similarity.masked_fill(left_out, float("-inf")).logsumexp(1, keepdim=True)
    terms = F.softplus(against - similarity) * positive
    means = terms.sum(1) / positive.sum(1).clamp(min=1)
    return means.sum() / distributed.mean_count(usable)
