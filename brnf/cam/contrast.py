"""FSCL: contrast between region features and samples of the flow (`docs/method.md` section 7)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brnf.engine import distributed

__all__ = ["ContrastBank", "info_nce", "region_features"]


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
    return F.normalize(sums / pixels[images, classes, None], dim=1), classes


class ContrastBank(nn.Module):
    """Remember the latest region features and flow samples of each class, the background among
    them.

    Arguments:
        classes: K with the background.
        dimension: D.
        regions: how many region features a class keeps.
        samples: how many flow samples a class keeps.
    """

    regions: Tensor
    samples: Tensor
    region_counts: Tensor
    sample_counts: Tensor

    def __init__(
        self, classes: int, dimension: int, regions: int = 500, samples: int = 100
    ) -> None:
        super().__init__()
        self.register_buffer("regions", torch.zeros(classes, regions, dimension))
        self.register_buffer("samples", torch.zeros(classes, samples, dimension))
        self.register_buffer("region_counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("sample_counts", torch.zeros(classes, dtype=torch.int64))

    def add_regions(self, vectors: Tensor, classes: Tensor) -> None:
        """Store region features [R, D] of classes [R]; the oldest of a full class leave."""
        _push(self.regions, self.region_counts, vectors, classes)

    def add_samples(self, vectors: Tensor, classes: Tensor) -> None:
        """Remember flow samples [R, D] as unit vectors: samples leave the sphere that the features
        live on.
        """
        _push(self.samples, self.sample_counts, F.normalize(vectors, dim=1), classes)

    def contents(self) -> tuple[Tensor, Tensor]:
        """Return all remembered vectors [B, D] and their classes [B]."""
        vectors, classes = [], []
        for store, counts in (
            (self.regions, self.region_counts),
            (self.samples, self.sample_counts),
        ):
            slots = torch.arange(store.shape[1], device=store.device)
            filled = slots < counts[:, None].clamp(max=store.shape[1])
            vectors.append(store[filled])
            classes.append(torch.nonzero(filled)[:, 0])
        return torch.cat(vectors), torch.cat(classes)


@torch.no_grad()
def _push(store: Tensor, counts: Tensor, vectors: Tensor, classes: Tensor) -> None:
    """Write each vector into its class's ring."""
    capacity = store.shape[1]
    for index in classes.unique().tolist():
        own = vectors[classes == index].detach()[-capacity:] if capacity else vectors[:0]
        slots = (counts[index] + torch.arange(len(own), device=store.device)) % max(capacity, 1)
        store[index, slots] = own.to(store.dtype)
        counts[index] += len(own)


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
        anchor_classes: [R].
        bank: unit vectors [B, D].
        bank_classes: [B].
        temperature: t.

    Returns:
        A scalar, zero (with a gradient of zero) when no anchor has both.
    """
    similarity = anchors @ bank.T / temperature
    positive = anchor_classes[:, None] == bank_classes[None]
    usable = positive.any(1) & (~positive).any(1)
    anchors_that_count = distributed.mean(usable.sum())
    if not usable.any():
        return anchors.sum() * 0
    similarity, positive = similarity[usable], positive[usable]
    against = similarity.masked_fill(positive, float("-inf")).logsumexp(1, keepdim=True)
    terms = F.softplus(against - similarity) * positive
    return (terms.sum(1) / positive.sum(1)).sum() / anchors_that_count
