"""The dense conditional random field that pulls labels to the edges of the photograph."""

from dataclasses import dataclass

import numpy as np
import pydensecrf.densecrf
from numpy.typing import NDArray

__all__ = ["CrfOptions", "dense_crf", "likely_labels", "over_all_labels"]

SMALLEST_PROBABILITY = 1e-5
"""Bound on the unary term (11.5 nats): a label of probability 0 stays possible, though unlikely."""


@dataclass(frozen=True)
class CrfOptions:
    """Weights and widths of the two pairwise terms (``method.md`` sections 8 and 9)."""

    crf_iterations: int = 10
    """Mean-field iterations; 0 returns the given probabilities."""
    gaussian_sigma: float = 1.0
    """Width of the smoothness term, pixels."""
    gaussian_weight: float = 3.0
    """Weight of the smoothness term."""
    bilateral_sigma_xy: float = 67.0
    """Width of the appearance term in the plane, pixels."""
    bilateral_sigma_rgb: float = 3.0
    """Width of the appearance term in colour, grey values 0..255."""
    bilateral_weight: float = 4.0
    """Weight of the appearance term."""


def dense_crf(image: NDArray[np.uint8], probability: NDArray[np.float32], options: CrfOptions) -> NDArray[np.float32]:
    """Refine label probabilities by mean-field inference in a fully connected CRF.

    The time grows with the number of labels, so give only those that may occur.

    Arguments:
        image: [H, W, 3] uint8 RGB.
        probability: [L, H, W], at every pixel a distribution over the L labels.
        options: the pairwise terms.

    Returns:
        [L, H, W] float32 marginals. A single label, or no iteration, returns the input's values.

    References:
        Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NeurIPS 2011.
    """
    labels, height, width = probability.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.shape} {image.dtype} does not fit probabilities {probability.shape}")
    if labels == 1 or options.crf_iterations == 0:
        return probability.astype(np.float32)
    # The library reads raw buffers: a transposed or flipped view would be taken for other pixels.
    energy = np.ascontiguousarray(-np.log(np.clip(probability, SMALLEST_PROBABILITY, 1.0)), dtype=np.float32)
    field = pydensecrf.densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(energy.reshape(labels, height * width))
    field.addPairwiseGaussian(sxy=options.gaussian_sigma, compat=options.gaussian_weight)
    field.addPairwiseBilateral(
        sxy=options.bilateral_sigma_xy,
        srgb=options.bilateral_sigma_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=options.bilateral_weight,
    )
    return np.array(field.inference(options.crf_iterations), dtype=np.float32).reshape(labels, height, width)


def likely_labels(probability: NDArray[np.float32], minimum: float = 0.01) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pick the labels that have a chance in this image: a CRF over the others costs time and changes next to nothing.

    Arguments:
        probability: [1 + C, H, W] distribution over all labels of the data set; channel 0, the background, is always picked.
        minimum: a label whose probability is below this at every pixel is left out.

    Returns:
        their classes [k] in 1..C, and their distribution with the background [1 + k, H, W]; uniform where it had no share.
    """
    kept = probability.reshape(len(probability), -1).max(1) >= minimum
    kept[0] = True
    chosen = probability[kept]
    total = chosen.sum(0, keepdims=True)
    uniform = np.float32(1 / len(chosen))
    chosen = np.divide(chosen, total, out=np.full_like(chosen, uniform), where=total > 0)
    return np.flatnonzero(kept)[1:].astype(np.uint8), chosen


def over_all_labels(probability: NDArray[np.float32], classes: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Undo :func:`likely_labels`: [1 + C, H, W] with 0 for the labels left out.

    Arguments:
        probability: [1 + k, H, W].
        classes: [k] of its channels but the first.
        count: C.
    """
    whole = np.zeros((1 + count, *probability.shape[1:]), np.float32)
    whole[0], whole[classes] = probability[0], probability[1:]
    return whole
