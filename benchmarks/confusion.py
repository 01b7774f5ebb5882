"""The confusion matrix of masks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Repeats, Row, compare
from brnf.evaluate.confusion import Confusion
from brnf.store.label_type import ignored_value

__all__ = ["FULL", "TINY", "Size", "as_labels", "masked_count", "measure"]

Masks = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]

IGNORED = ignored_value(20)


@dataclass(frozen=True)
class Size:
    """What is measured."""

    images: int = 50
    height: int = 375
    width: int = 500
    classes: tuple[int, ...] = (21, 81)


FULL = Size()
TINY = Size(3, 20, 30, (5,))


def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare one joint histogram an image with a masked count, as chainercv has it."""
    return [_compare(size, classes, repeats) for classes in size.classes]


def _compare(size: Size, classes: int, repeats: Repeats) -> Row:
    masks = _masks(size, classes)
    pixels = np.concatenate([mask.ravel() for pair in masks for mask in pair])
    labels = [(as_labels(truth), as_labels(prediction)) for truth, prediction in masks]
    np.testing.assert_array_equal(_joint_histogram(masks, classes), masked_count(labels))
    return compare(
        "confusion matrix",
        f"{size.images} masks of {size.height} × {size.width}, K {classes}",
        lambda: _joint_histogram(masks, classes),
        lambda: masked_count(labels),
        repeats,
        limit="reading the masks",
        bound=lambda: pixels.max(),
        ratio=3,
    )


def _masks(size: Size, classes: int) -> Masks:
    """Return truth and prediction pairs: rectangles of classes, the truth's rim ignored."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(size.images):
        truth = np.zeros((size.height, size.width), np.uint8)
        for label in (*random.integers(1, classes, 2), classes - 1):
            top, left = random.integers(size.height // 2), random.integers(size.width // 2)
            truth[top : top + size.height // 2, left : left + size.width // 2] = label
        prediction = np.roll(truth, random.integers(1, 9, 2), (0, 1))
        truth[:3] = IGNORED
        found.append((truth, prediction))
    return found


def _joint_histogram(masks: Masks, classes: int) -> NDArray[np.int64]:
    confusion = Confusion(classes)
    for truth, prediction in masks:
        confusion.add(truth, prediction)
    return confusion.counts[:, :classes]


def as_labels(mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return a mask as chainercv reads it, with -1 for ignored pixels."""
    labels = mask.astype(np.int32)
    labels[mask == IGNORED] = -1
    return labels


def masked_count(
    labels: Iterable[tuple[NDArray[np.int32], NDArray[np.int32]]],
) -> NDArray[np.int64]:
    """Count as chainercv does: flat copies, a matrix that grows with the largest label, a mask, one
    count of targets an image.
    """
    counts = np.zeros((0, 0), np.int64)
    for truth, prediction in labels:
        flat_truth, flat_prediction = truth.flatten(), prediction.flatten()
        classes = max(len(counts), int(np.max((flat_truth, flat_prediction))) + 1)
        counts = np.pad(counts, (0, classes - len(counts)))
        known = flat_truth >= 0
        targets = classes * flat_truth[known].astype(int) + flat_prediction[known]
        counts += np.bincount(targets, minlength=classes**2).reshape(classes, classes)
    return counts
