"""The dense conditional random field that pulls labels to the edges of the photograph."""

import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.segmentation import Crf
from brnf.segment.compiled import kernels
from brnf.segment.lattice import Lattice, appearance_lattice, smoothness_lattice
from brnf.store.label_type import Labels, as_labels

__all__ = ["dense_crf", "likely_labels", "over_all_labels"]

SMALLEST_PROBABILITY = 1e-5
"""Bound on the unary term (11.5 nats): a label of probability 0 stays possible, though unlikely."""
LANES = 4
"""Channels that the kernels work on at once."""
NO_LABEL = np.float32(-1e30)
"""Logit of a channel that only fills up the last lanes."""


def dense_crf(
    image: NDArray[np.uint8],
    probability: NDArray[np.float32],
    options: Crf,
) -> NDArray[np.float32]:
    """Refine label probabilities by mean-field inference in a fully connected CRF.

    The time grows with the number of labels, so give only those that may occur. The results are
    those of ``pydensecrf`` with its defaults (Potts model, symmetric normalisation).

    Arguments:
        image: [H, W, 3] uint8 RGB.
        probability: [L, H, W], at every pixel a distribution over the L labels.
        options: the pairwise terms (docs/method.md sections 8 and 9).

    Returns:
        [L, H, W] float32 marginals. A single label, or no iteration, returns the input's values.

    Raises:
        UserError: the widths of the pairwise terms are too small for the size of the image.

    References:
        Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials, NeurIPS 2011, algorithm 1.
    """
    labels, height, width = probability.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        given = f"image {image.shape} {image.dtype}"
        raise ValueError(f"{given} does not fit probabilities {probability.shape}")
    if labels == 1 or options.iterations == 0:
        return probability.astype(np.float32)
    smoothness = smoothness_lattice(height, width, options.gaussian_sigma)
    appearance = appearance_lattice(image, options.bilateral_sigma_xy, options.bilateral_sigma_rgb)
    return _mean_field(_logits(probability), probability.shape, appearance, smoothness, options)


def _logits(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [H W, channels] log-odds against label 0, for the labels from 1 on."""
    labels = len(probability)
    channels = 1 if labels == 2 else -(-(labels - 1) // LANES) * LANES

    def unary(label: int) -> NDArray[np.float32]:
        kept = np.clip(probability[label], SMALLEST_PROBABILITY, 1.0, dtype=np.float32)
        found: NDArray[np.float32] = np.log(kept, out=kept).ravel()
        return found

    logits = np.full((probability[0].size, channels), NO_LABEL)
    zeroth = unary(0)
    for label in range(1, labels):
        np.subtract(unary(label), zeroth, out=logits[:, label - 1])
    return logits


def _mean_field(
    logits: NDArray[np.float32],
    shape: tuple[int, ...],
    appearance: Lattice,
    smoothness: Lattice,
    options: Crf,
) -> NDArray[np.float32]:
    """Iterate from the unary distribution; a kernel call ends one iteration and begins the next."""
    pixels, channels = logits.shape
    terms = [(appearance, options.bilateral_weight), (smoothness, options.gaussian_weight)]
    constant = sum(np.float32(weight) * lattice.constant for lattice, weight in terms)
    sizes = [(lattice.points, channels) for lattice, _ in terms]
    blurred = [np.empty(size, np.float32) for size in sizes]
    splatted = [np.empty(size, np.float32) for size in sizes]
    marginals = np.empty(shape, np.float32)
    several = channels > 1
    for iteration in range(options.iterations + 1):
        last = iteration == options.iterations
        arguments: list[object] = [pixels, *([shape[0], channels] if several else [])]
        arguments += [logits, constant]
        for (lattice, weight), values, sums in zip(terms, blurred, splatted, strict=True):
            if not last:
                sums.fill(0)
            arguments += [weight, lattice.offsets, lattice.weights, values, sums]
        arguments += [iteration == 0, last, marginals]
        if several:
            kernels()["step"](*arguments, np.empty(channels, np.float32))
        else:
            kernels()["step_two"](*arguments)
        blurred, splatted = splatted, blurred
        if not last:
            for (lattice, _), values in zip(terms, blurred, strict=True):
                _blur(lattice, values)
    return marginals


def _blur(lattice: Lattice, values: NDArray[np.float32]) -> None:
    """Blur values [M, channels] in place."""
    channels = values.shape[1]
    if channels == 1:
        kernels()["blur_one"](len(lattice.chains), lattice.chains, values)
    else:
        kernels()["blur"](len(lattice.chains), lattice.chains, channels, values)


def likely_labels(
    probability: NDArray[np.float32], minimum: float = 0.01
) -> tuple[Labels, NDArray[np.float32]]:
    """Pick the labels that have a chance in this image: a CRF over the others costs time and
    changes next to nothing.

    Arguments:
        probability: [1 + C, H, W] distribution over all labels of the data set; channel 0, the
            background, is always picked.
        minimum: a label whose probability is below this at every pixel is left out.

    Returns:
        their classes [k] in 1..C, and their distribution with the background [1 + k, H, W]; uniform
        where it had no share.
    """
    kept = probability.reshape(len(probability), -1).max(1) >= minimum
    kept[0] = True
    chosen = probability[kept]
    total = chosen.sum(0, keepdims=True)
    uniform = np.float32(1 / len(chosen))
    chosen = np.divide(chosen, total, out=np.full_like(chosen, uniform), where=total > 0)
    return as_labels(np.flatnonzero(kept)[1:], len(probability) - 1), chosen


def over_all_labels(
    probability: NDArray[np.float32], classes: Labels, count: int
) -> NDArray[np.float32]:
    """Undo :func:`likely_labels`: [1 + C, H, W] with 0 for the labels left out.

    Arguments:
        probability: [1 + k, H, W].
        classes: [k] of its channels but the first.
        count: C.
    """
    whole = np.zeros((1 + count, *probability.shape[1:]), np.float32)
    whole[0], whole[classes] = probability[0], probability[1:]
    return whole
