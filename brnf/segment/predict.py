"""Segment photographs at several scales and mirrored, behind a dense CRF."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.config.sections.bounds import Precision
from brnf.config.sections.segmentation import Crf, PredictionViews, SegmentationTest
from brnf.data.images import resize_image, scaled_size
from brnf.engine.precision import computing
from brnf.segment.crf import dense_crf, likely_labels
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import enlarged
from brnf.store.label_type import Labels, label_type

__all__ = ["predict_labels", "predict_logits", "predict_probability", "refine_labels", "seen_size"]


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
    precision: Precision = "fp32",
) -> Tensor:
    """Return the logits over all scales, each averaged with its mirror image.

    Arguments:
        network: in evaluation mode, on ``device``.
        image: [H, W, 3] uint8 RGB.
        options: scales, mirroring and how logits are merged (docs/method.md section 9).
        device: where to compute.
        precision: in which the network computes.

    Returns:
        [K, H, W] float32 on ``device``, at the size of ``image``.
    """
    if not options.scales:
        raise ValueError("no scale to predict at")
    size, align = image.shape[:2], network.options.align_corners
    if options.merge == "max":
        seen = [
            _seen(network, image, scale, options, device, precision) for scale in options.scales
        ]
        grid = max((logits.shape[2:] for logits in seen), key=math.prod)
        largest = torch.stack([enlarged(logits, grid, align) for logits in seen]).amax(0)
        return enlarged(largest, size, align)[0]
    total = torch.zeros((), device=device)
    for scale in options.scales:
        found = enlarged(_seen(network, image, scale, options, device, precision), size, align)
        # In place: of a thousand classes each copy at the size of a photograph is 750 MB.
        total = total.add_(found) if total.dim() else found
    return total[0].div_(len(options.scales))


def _seen(
    network: DeepLab,
    image: NDArray[np.uint8],
    scale: float,
    options: PredictionViews,
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Return the logits [1, K, h, w] of an image at one scale, averaged with its mirror image."""
    height, width = image.shape[:2]
    size = seen_size(height, width, scale, options.long_side)
    view = resize_image(image.astype(np.float32), size, options.interpolation)
    batch = torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1)[None].to(device)
    if options.flip:
        batch = torch.cat([batch, batch.flip(-1)])
    with computing(precision, device):
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
    precision: Precision = "fp32",
) -> NDArray[np.float32]:
    """Return softmax of :func:`predict_logits`, [K, H, W] float32, background included."""
    return predict_logits(network, image, options, device, precision).softmax(0).cpu().numpy()


def predict_labels(
    network: DeepLab,
    image: NDArray[np.uint8],
    options: SegmentationTest,
    device: torch.device,
    precision: Precision = "fp32",
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the labels that :func:`refine_labels` shall choose from: where a CRF follows, those
    that have a chance.

    Arguments: as :func:`predict_logits`.

    Returns:
        Their classes [k] in 1..C, and their probabilities with the background [1 + k, H, W].
    """
    probability = predict_probability(network, image, options, device, precision)
    if options.crf.iterations:
        return likely_labels(probability, options.crf.minimum)
    return np.arange(1, len(probability), dtype=label_type(len(probability) - 1)), probability


def refine_labels(
    image: NDArray[np.uint8],
    classes: Labels,
    probability: NDArray[np.float32],
    options: Crf,
) -> tuple[Labels, NDArray[np.float32]]:
    """Let a dense CRF refine what :func:`predict_labels` returns, in the same form.

    Classes come back, too: processes hand over only the labels that take part, not all of the data
    set.
    """
    return classes, dense_crf(image, probability, options)
