"""Segment photographs at several scales and mirrored."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from brnf.data.images import resize_image, scaled_size
from brnf.segment.deeplab import DeepLab

__all__ = ["PredictionOptions", "predict_logits", "predict_probability", "seen_size"]


@dataclass(frozen=True)
class PredictionOptions:
    """How to predict (``method.md`` section 9)."""

    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    """Sizes at which each image is seen, relative to its own."""
    flip: bool = True
    """Whether each scale is also seen mirrored."""
    merge: Literal["mean", "max"] = "mean"
    """How the logits of the scales become one: their mean, or their maximum as in DeepLabV2's own test at scales 0.5, 0.75, 1."""
    long_side: int | None = None
    """Pixels of the image's longer side at scale 1; None keeps its own size."""
    amp: bool = False
    """Compute convolutions in bfloat16."""


def seen_size(height: int, width: int, scale: float, long_side: int | None) -> tuple[int, int]:
    """Return height and width, in pixels, at which an image is seen.

    Arguments:
        height: of the image.
        width: of the image.
        scale: relative to the image, or to ``long_side`` when given.
        long_side: see :class:`PredictionOptions`.
    """
    if long_side is not None:
        scale = scale * long_side / max(height, width)
    return scaled_size((height, width), scale)


@torch.inference_mode()
def predict_logits(network: DeepLab, image: NDArray[np.uint8], options: PredictionOptions, device: torch.device) -> Tensor:
    """Return the logits over all scales, each averaged with its mirror image.

    Arguments:
        network: in evaluation mode, on ``device``.
        image: [H, W, 3] uint8 RGB.
        options: how.
        device: where to compute.

    Returns:
        [K, H, W] float32 on ``device``, at the size of ``image``.
    """
    height, width = image.shape[:2]
    total: Tensor | None = None
    for scale in options.scales:
        view = resize_image(image, seen_size(height, width, scale, options.long_side))
        batch = torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1)[None].to(device)
        if options.flip:
            batch = torch.cat([batch, batch.flip(-1)])
        with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
            logits = network(batch.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        if options.flip:
            # The mirrored half looks back before it is enlarged, so that only one map is.
            logits = (logits[:1] + logits[1:].flip(-1)) / 2
        enlarged = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[0]
        total = enlarged if total is None else torch.maximum(total, enlarged) if options.merge == "max" else total.add_(enlarged)
    if total is None:
        raise ValueError("no scale to predict at")
    return total if options.merge == "max" else total / len(options.scales)


def predict_probability(
    network: DeepLab, image: NDArray[np.uint8], options: PredictionOptions, device: torch.device
) -> NDArray[np.float32]:
    """Return the softmax of :func:`predict_logits`, [K, H, W] float32 with K including the background."""
    return predict_logits(network, image, options, device).softmax(0).cpu().numpy()
