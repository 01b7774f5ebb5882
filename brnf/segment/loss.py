"""Losses of the segmentation: cross entropy, balanced or not, at one scale or at several."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from brnf.data.masks import IGNORE
from brnf.engine import distributed

__all__ = ["enlarged", "multi_scale_logits", "multi_scale_loss", "segmentation_loss"]


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    balanced: bool = False,
    *,
    align_corners: bool = True,
) -> Tensor:
    """Return the mean cross entropy over the labelled pixels.

    Arguments:
        logits: [N, K, h, w], enlarged bilinearly to the labels' size.
        labels: [N, H, W] int64, 255 where ignored.
        balanced: whether background and foreground count half each, whatever their shares of the
            pixels (AFA and its successors); when one of both is absent its half is 0.
        align_corners: see section segmentation.

    Returns:
        scalar float32; 0, with zero gradients, when no pixel is labelled.
    """
    logits = enlarged(logits.float(), labels.shape[-2:], align_corners)
    if not balanced:
        total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        return total / distributed.mean_count(labels != IGNORE)
    each = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    background, foreground = labels == 0, (labels != 0) & (labels != IGNORE)
    parts = (background, foreground)
    halves = [(each * part).sum() / distributed.mean_count(part) for part in parts]
    return (halves[0] + halves[1]) / 2


def enlarged(logits: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize logits [N, K, h, w] bilinearly to height and width ``size``."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)


def multi_scale_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    *,
    align_corners: bool = False,
) -> list[Tensor]:
    """See images at their own size and at others, and take the pixelwise maximum.

    An image is reduced by the factor itself: where its size times the factor is no whole number,
    which is then rounded down, other pixels are mixed than by a reduction to that size.

    Arguments:
        network: from images to logits.
        images: [N, 3, H, W].
        scales: the factors of the further sizes.
        align_corners: of the logits' enlargement, see section segmentation.

    Returns:
        logits at scale 1, those at each further scale on their own grid, and the maximum of all on
        the grid of scale 1.

    References:
        Nakashima, deeplab-pytorch (``docs/method.md`` section 9).
    """
    images = images.float()
    found = [network(images)]
    for scale in scales:
        found.append(network(F.interpolate(images, scale_factor=scale, mode="bilinear")))
    grid = found[0].shape[-2:]
    seen = [enlarged(logits.float(), grid, align_corners) for logits in found]
    return [*found, torch.stack(seen).amax(0)]


def multi_scale_loss(logits: Sequence[Tensor], labels: Tensor, balanced: bool = False) -> Tensor:
    """Add up the losses of :func:`multi_scale_logits`, each on the grid of its own logits.

    Arguments:
        logits: each [N, K, h, w].
        labels: [N, H, W] int64, reduced to each grid by taking the pixel in the middle.
        balanced: see :func:`segmentation_loss`.

    References:
        Chen et al., TPAMI 2018, section 4.1; the order and the reduction of the labels as in
        deeplab-pytorch, with which CLIP-ES trains.
    """
    total = torch.zeros((), device=labels.device)
    for one in logits:
        # torch looks for nearest neighbours among floats only, in which labels are exact.
        size = one.shape[-2:]
        reduced = F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")
        total = total + segmentation_loss(one, reduced[:, 0].long(), balanced)
    return total
