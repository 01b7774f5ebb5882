"""From the maps of one image to its pseudo-label."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.segmentation import CrfLabels
from brnf.data.augment import resize_maps
from brnf.segment.crf import dense_crf
from brnf.store.label_type import Labels, ignored_in
from brnf.store.maps import winning_channels

__all__ = ["label_image", "map_probability", "pseudo_label", "unrefined"]

LABEL_CERTAINTY = 0.7
"""Probability of the winning label when only labels are given to the CRF, as in the IRN code base.
"""


def map_probability(
    values: NDArray[np.float32], unary: Literal["scores", "labels"] = "scores"
) -> NDArray[np.float32]:
    """Turn maps, which are scores and no distribution, into one at every pixel.

    ``scores`` divides by the sum over the channels. The CRF compares labels by differences of
    log-probability only, so this gives it the ratios of the maps themselves, as CLIP-ES does: a
    narrow win stays easy to overturn, and a pixel whose foreground BSDNF set to 0 is as good as
    decided. ``labels`` keeps only the winner, at probability 0.7, and the others share the rest
    (IRN): every pixel is equally easy to overturn.

    Arguments:
        values: [1 + k, H, W] maps, not negative, channel 0 the background.
        unary: ``scores`` or ``labels``.

    Returns:
        [1 + k, H, W] float32; where all maps are 0, ``scores`` is uniform.
    """
    labels = len(values)
    if labels == 1:
        return np.ones(values.shape, np.float32)
    if unary == "labels":
        winner = values.argmax(0)[None] == np.arange(labels)[:, None, None]
        return np.where(winner, LABEL_CERTAINTY, (1 - LABEL_CERTAINTY) / (labels - 1)).astype(
            np.float32
        )
    positive = np.maximum(values, 0).astype(np.float32)
    total = positive.sum(0, keepdims=True)
    found: NDArray[np.float32] = np.divide(
        positive, total, out=np.full_like(positive, 1 / labels), where=total > 0
    )
    return found


def label_image(
    probability: NDArray[np.float32], classes: Labels, confidence: float = 0.0
) -> Labels:
    """Return the winning class of every pixel.

    Arguments:
        probability: [1 + k, H, W], channel 0 the background.
        classes: [k] class indices 1..C of the other channels.
        confidence: pixels whose winning probability is lower are ignored.

    Returns:
        [H, W] in the type of ``classes``: 0 background, 1..C, and ignored pixels. Ties go
        to the earlier channel.
    """
    names = np.concatenate([np.zeros(1, classes.dtype), classes])
    winner, largest = winning_channels(probability)
    label = names[winner]
    label[largest < confidence] = ignored_in(label.dtype)
    return label


def unrefined(
    image: NDArray[np.uint8], values: NDArray[np.float32], options: CrfLabels
) -> NDArray[np.float32]:
    """Return the distribution of an image's labels from which the dense CRF starts.

    Arguments: as :func:`pseudo_label`.

    Returns:
        [1 + k, H, W] float32 of :func:`map_probability`, at the size of the image.
    """
    values = resize_maps(values, (image.shape[0], image.shape[1]))
    return map_probability(values, options.unary if options.crf.iterations else "scores")


def pseudo_label(
    image: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: Labels,
    options: CrfLabels,
) -> tuple[Labels, NDArray[np.float32]]:
    """Make the pseudo-label of one image: arg max with background, behind a dense CRF over the
    image's own labels.

    Arguments:
        image: [H, W, 3] uint8 RGB.
        values: [1 + k, h, w] maps of the image's labels, channel 0 the background; enlarged to the
            image when smaller.
        classes: [k] class indices 1..C of the other channels.
        options: how (docs/method.md section 8). Without iterations there is no CRF to start, so
            the scores decide, whatever ``unary`` says.

    Returns:
        the label image [H, W] of :func:`label_image`, and its probabilities [1 + k, H, W] float32.
    """
    probability = dense_crf(image, unrefined(image, values, options), options.crf)
    return label_image(probability, classes, options.confidence), probability
