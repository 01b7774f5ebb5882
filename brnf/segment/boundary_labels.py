"""Labels for the boundary network: foreground of one refinement, background of both."""

import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.segmentation import BoundaryLabels, Crf
from brnf.data.augment import resize_maps
from brnf.segment.crf import dense_crf
from brnf.segment.pseudo_labels import label_image, map_probability
from brnf.store.label_type import Labels, ignored_in

__all__ = ["boundary_labels"]


def boundary_labels(
    image: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: Labels,
    options: BoundaryLabels,
) -> Labels:
    """Return a label for each pixel whose class is sure.

    Two label images are made: by the arg max of the maps, and with a lower background. Both are
    refined by a dense CRF that starts from labels. Where the first names a class, the pixel has it;
    where both say background, it is background; elsewhere it is ignored.

    Arguments:
        image: [H, W, 3] uint8 RGB.
        values: [1 + k, h, w] maps of the image's labels, channel 0 the background; enlarged to the
            image when smaller.
        classes: [k] class indices 1..C of the other channels.
        options: how.

    Returns:
        [H, W] in the type of ``classes``: 0 background, 1..C, and ignored pixels.

    References:
        docs/method.md section 8; IRN, ``cam_to_ir_label``, with SIPE's backgrounds.
    """
    values = resize_maps(values, (image.shape[0], image.shape[1]))
    labels = _refined(image, values, classes, options.crf)
    if options.ignore_unsure:
        lower = np.concatenate([values[:1] * np.float32(options.background_factor), values[1:]])
        maybe = _refined(image, lower, classes, options.crf)
        labels[(labels == 0) & (maybe != 0)] = ignored_in(labels.dtype)
    return labels


def _refined(
    image: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: Labels,
    options: Crf,
) -> Labels:
    """Return the classes that a CRF gives to the winners of the maps."""
    probability = dense_crf(image, map_probability(values, "labels"), options)
    return label_image(probability, classes)
