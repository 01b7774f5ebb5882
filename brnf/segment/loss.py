"""Losses of the segmentation: cross entropy, balanced or not, at one scale or at several."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from brnf.engine import distributed
from brnf.store.label_type import MOST_IN_A_BYTE, ignored_value

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
        labels: [N, H, W] int64; which value is ignored follows from K
            (:func:`brnf.store.label_type.ignored_value`).
        balanced: whether background and foreground count half each, whatever their shares of the
            pixels (AFA and its successors); when one of both is absent its half is 0.
        align_corners: see section segmentation.

    Returns:
        scalar float32; 0, with zero gradients, when no pixel is labelled.
    """
    ignored = ignored_value(logits.shape[1] - 1)
    if logits.shape[1] > 1 + MOST_IN_A_BYTE:
        loss: Tensor = _ImageByImage.apply(
            logits, labels, _weights(labels, ignored, balanced), align_corners
        )
        return loss
    logits = enlarged(logits.float(), labels.shape[-2:], align_corners)
    if not balanced:
        total = _cross_entropy(logits, labels, ignored, "sum")
        return total / distributed.mean_count(labels != ignored)
    each = _cross_entropy(logits, labels, ignored, "none")
    background, foreground = labels == 0, (labels != 0) & (labels != ignored)
    parts = (background, foreground)
    halves = [(each * part).sum() / distributed.mean_count(part) for part in parts]
    return (halves[0] + halves[1]) / 2


def _cross_entropy(logits: Tensor, labels: Tensor, ignored: int, reduction: str) -> Tensor:
    """Return the cross entropy of maps [N, K, H, W], of each pixel or their sum.

    Of maps torch has no way on a GPU that gives equal bytes each time, of rows it has one, which
    needs a copy of the logits.
    """
    if not (logits.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return F.cross_entropy(logits, labels, ignore_index=ignored, reduction=reduction)
    rows = logits.movedim(1, -1).flatten(0, -2)
    found = F.cross_entropy(rows, labels.flatten(), ignore_index=ignored, reduction=reduction)
    return found if reduction == "sum" else found.view_as(labels)


def _weights(labels: Tensor, ignored: int, balanced: bool) -> Tensor:
    """Return what each pixel's cross entropy counts in the loss, [N, H, W] float32."""
    known = labels != ignored
    if not balanced:
        return known / distributed.mean_count(known)
    background, foreground = labels == 0, (labels != 0) & known
    shares = [part / distributed.mean_count(part) for part in (background, foreground)]
    return (shares[0] + shares[1]) / 2


class _ImageByImage(torch.autograd.Function):
    """Add up weighted cross entropies, of one image after the other, together with the gradient.

    The enlarged logits of very many classes are by far the largest tensor of a training; so they
    exist for one image at a time, and what is kept is the gradient of the small ones.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, align_corners: bool
    ) -> Tensor:
        """Return the sum, a scalar, of logits [N, K, h, w], labels and weights [N, H, W]."""
        ignored = ignored_value(logits.shape[1] - 1)
        total, gradients = torch.zeros((), device=logits.device), []
        images = zip(logits.split(1), labels.split(1), weights.split(1), strict=True)
        for small, label, weight in images:
            with torch.enable_grad():
                seen = small.detach().requires_grad_()
                large = enlarged(seen.float(), label.shape[-2:], align_corners)
                each = _cross_entropy(large, label, ignored, "none")
                loss = (each * weight).sum()
            gradients += torch.autograd.grad(loss, seen)
            total += loss.detach()
        ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None


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
