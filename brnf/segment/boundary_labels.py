"""Labels for the boundary network: foreground of one refinement, background of both."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brnf.data.augment import resize_maps
from brnf.data.masks import IGNORE
from brnf.segment.crf import CrfOptions, dense_crf
from brnf.segment.pseudo_labels import label_image, map_probability

__all__ = ["BoundaryLabelOptions", "boundary_labels"]


@dataclass(frozen=True)
class BoundaryLabelOptions(CrfOptions):
    """How maps become the boundary network's labels; the dense CRF's settings are IRN's."""

    gaussian_sigma: float = 3.0
    """Width of the smoothness term, pixels."""
    gaussian_weight: float = 3.0
    """Weight of the smoothness term."""
    bilateral_sigma_xy: float = 50.0
    """Width of the appearance term in the plane, pixels."""
    bilateral_sigma_rgb: float = 5.0
    """Width of the appearance term in colour, grey values 0..255."""
    bilateral_weight: float = 10.0
    """Weight of the appearance term."""
    ignore_unsure: bool = True
    """Ignore pixels that are background at the maps' own background map but not at a lower one."""
    background_factor: float = 0.5
    """The lower background is the maps' own times this (SIPE: 0.5)."""


def boundary_labels(
    image: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: NDArray[np.uint8],
    options: BoundaryLabelOptions,
) -> NDArray[np.uint8]:
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
        [H, W] uint8: 0 background, 1..C, 255 ignored.

    References:
        docs/method.md section 8; IRN, ``cam_to_ir_label``, with SIPE's backgrounds.
    """
    values = resize_maps(values, (image.shape[0], image.shape[1]))
    labels = _refined(image, values, classes, options)
    if options.ignore_unsure:
        lower = np.concatenate([values[:1] * np.float32(options.background_factor), values[1:]])
        maybe = _refined(image, lower, classes, options)
        labels[(labels == 0) & (maybe != 0)] = IGNORE
    return labels


def _refined(
    image: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: NDArray[np.uint8],
    options: CrfOptions,
) -> NDArray[np.uint8]:
    """Return the classes that a CRF gives to the winners of the maps."""
    probability = dense_crf(image, map_probability(values, "labels"), options)
    return label_image(probability, classes)
