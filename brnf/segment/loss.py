"""Losses of the segmentation: cross entropy, balanced or not, at one scale or at several."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from brnf import parallel
from brnf.data.masks import IGNORE

__all__ = ["multi_scale_logits", "multi_scale_loss", "segmentation_loss"]


def segmentation_loss(logits: Tensor, labels: Tensor, balanced: bool = False) -> Tensor:
    """Return the mean cross entropy over the labelled pixels.

    Arguments:
        logits: [N, K, h, w], enlarged bilinearly to the labels' size.
        labels: [N, H, W] int64, 255 where ignored.
        balanced: whether background and foreground count half each, whatever their shares of the pixels (as in the code bases of
            AFA and its successors); when one of both is absent its half is 0.

    Returns:
        scalar float32; 0, with zero gradients, when no pixel is labelled.
    """
    logits = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    if not balanced:
        total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        return total / parallel.mean_count(labels != IGNORE)
    each = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    background, foreground = labels == 0, (labels != 0) & (labels != IGNORE)
    halves = [(each * part).sum() / parallel.mean_count(part) for part in (background, foreground)]
    return (halves[0] + halves[1]) / 2


def multi_scale_logits(network: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """See images at their own size and at others, and take the pixelwise maximum of what was seen.

    Arguments:
        network: from images to logits.
        images: [N, 3, H, W].
        scales: of the further sizes, which are rounded down.

    Returns:
        logits at scale 1, those at each further scale on their own grid, and the maximum of all on the grid of scale 1.
    """
    images = images.float()
    found = [network(images)]
    for scale in scales:
        size = [int(side * scale) for side in images.shape[-2:]]
        found.append(network(F.interpolate(images, size=size, mode="bilinear", align_corners=False)))
    grid = found[0].shape[-2:]
    enlarged = [F.interpolate(logits.float(), size=grid, mode="bilinear", align_corners=False) for logits in found]
    return [*found, torch.stack(enlarged).amax(0)]


def multi_scale_loss(logits: Sequence[Tensor], labels: Tensor, balanced: bool = False) -> Tensor:
    """Add up the losses of :func:`multi_scale_logits`, each on the grid of its own logits (DeepLabV2).

    Arguments:
        logits: each [N, K, h, w].
        labels: [N, H, W] int64, reduced to each grid by taking the pixel in the middle.
        balanced: see :func:`segmentation_loss`.

    References:
        Chen et al., TPAMI 2018, section 4.1; the order and the reduction of the labels as in the PyTorch code base that CLIP-ES
        trains with.
    """
    total = torch.zeros((), device=labels.device)
    for one in logits:
        # torch looks for nearest neighbours among floats only, in which labels are exact.
        reduced = F.interpolate(labels[:, None].float(), size=one.shape[-2:], mode="nearest-exact")[:, 0].long()
        total = total + segmentation_loss(one, reduced, balanced)
    return total
