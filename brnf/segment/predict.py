"""Segment photographs at several scales and mirrored."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.config.sections.segmentation import PredictionViews
from brnf.data.images import resize_image, scaled_size
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import enlarged

__all__ = ["predict_logits", "predict_probability", "seen_size"]


def seen_size(height: int, width: int, scale: float, long_side: int | None) -> tuple[int, int]:
    """Return height and width, in pixels, at which an image is seen.

    Arguments:
        height: of the image.
        width: of the image.
        scale: relative to the image, or to ``long_side`` when given.
        long_side: see :class:`PredictionViews`.
    """
    if long_side is not None:
        scale = scale * long_side / max(height, width)
    return scaled_size((height, width), scale)


@torch.inference_mode()
def predict_logits(
    network: DeepLab,
    image: NDArray[np.uint8],
    options: PredictionViews,
    device: torch.device,
    amp: bool = False,
) -> Tensor:
    """Return the logits over all scales, each averaged with its mirror image.

    Arguments:
        network: in evaluation mode, on ``device``.
        image: [H, W, 3] uint8 RGB.
        options: scales, mirroring and how logits are merged (docs/method.md section 9).
        device: where to compute.
        amp: compute convolutions in bfloat16.

    Returns:
        [K, H, W] float32 on ``device``, at the size of ``image``.
    """
    if not options.scales:
        raise ValueError("no scale to predict at")
    size, align = image.shape[:2], network.options.align_corners
    if options.merge == "max":
        seen = [_seen(network, image, scale, options, device, amp) for scale in options.scales]
        grid = max((logits.shape[2:] for logits in seen), key=math.prod)
        largest = torch.stack([enlarged(logits, grid, align) for logits in seen]).amax(0)
        return enlarged(largest, size, align)[0]
    total = torch.zeros((), device=device)
    for scale in options.scales:
        total = total + enlarged(_seen(network, image, scale, options, device, amp), size, align)
    return total[0] / len(options.scales)


def _seen(
    network: DeepLab,
    image: NDArray[np.uint8],
    scale: float,
    options: PredictionViews,
    device: torch.device,
    amp: bool,
) -> Tensor:
    """Return the logits [1, K, h, w] of an image at one scale, averaged with its mirror image."""
    height, width = image.shape[:2]
    size = seen_size(height, width, scale, options.long_side)
    view = resize_image(image.astype(np.float32), size, options.interpolation)
    batch = torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1)[None].to(device)
    if options.flip:
        batch = torch.cat([batch, batch.flip(-1)])
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        logits = network(batch.contiguous(memory_format=torch.channels_last))
    logits = logits.float()
    # The mirrored half looks back before it is enlarged, so that only one map is.
    found: Tensor = (logits[:1] + logits[1:].flip(-1)) / 2 if options.flip else logits
    return found


def predict_probability(
    network: DeepLab,
    image: NDArray[np.uint8],
    options: PredictionViews,
    device: torch.device,
    amp: bool = False,
) -> NDArray[np.float32]:
    """Return softmax of :func:`predict_logits`, [K, H, W] float32, background included."""
    return predict_logits(network, image, options, device, amp).softmax(0).cpu().numpy()
