"""The confusion matrix of masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Row, compare
from brnf.data.masks import IGNORE
from brnf.evaluate.confusion import Confusion

__all__ = ["FULL", "TINY", "Size", "measure"]

Masks = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@dataclass(frozen=True)
class Size:
    """What is measured."""

    images: int = 50
    height: int = 375
    width: int = 500
    classes: tuple[int, ...] = (21, 81)


FULL = Size()
TINY = Size(3, 20, 30, (5,))


def measure(size: Size, repeats: int) -> list[Row]:
    """Compare one joint histogram an image with a masked count, as chainercv has it."""
    return [_compare(size, classes, repeats) for classes in size.classes]


def _compare(size: Size, classes: int, repeats: int) -> Row:
    masks = _masks(size, classes)
    pixels = np.concatenate([mask.ravel() for pair in masks for mask in pair])
    np.testing.assert_array_equal(_joint_histogram(masks, classes), _masked_count(masks, classes))
    return compare(
        "confusion matrix",
        f"{size.images} masks of {size.height} × {size.width}, K {classes}",
        lambda: _joint_histogram(masks, classes),
        lambda: _masked_count(masks, classes),
        repeats,
        limit="reading the masks",
        bound=lambda: pixels.max(),
        ratio=3,
    )


def _masks(size: Size, classes: int) -> Masks:
    """Return pairs of truth and prediction: rectangles of a few classes, the truth with an ignored rim."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(size.images):
        truth = np.zeros((size.height, size.width), np.uint8)
        for label in random.integers(1, classes, 3):
            top, left = random.integers(size.height // 2), random.integers(size.width // 2)
            truth[top : top + size.height // 2, left : left + size.width // 2] = label
        prediction = np.roll(truth, random.integers(1, 9, 2), (0, 1))
        truth[:3] = IGNORE
        found.append((truth, prediction))
    return found


def _joint_histogram(masks: Masks, classes: int) -> NDArray[np.int64]:
    confusion = Confusion(classes)
    for truth, prediction in masks:
        confusion.add(truth, prediction)
    return confusion.counts


def _masked_count(masks: Masks, classes: int) -> NDArray[np.int64]:
    """Count as evaluation code of the field does: flat copies, a mask, 64-bit codes, one count an image."""
    counts = np.zeros((classes, classes), np.int64)
    for truth, prediction in masks:
        flat_truth, flat_prediction = truth.flatten(), prediction.flatten()
        known = flat_truth != IGNORE
        codes = classes * flat_truth[known].astype(int) + flat_prediction[known]
        counts += np.bincount(codes, minlength=classes**2).reshape(classes, classes)
    return counts
