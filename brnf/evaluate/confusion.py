"""Confusion matrix and intersection over union (docs/method.md section 10)."""

import hashlib
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from brnf.store.label_type import MOST_IN_A_BYTE, Labels, ignored

__all__ = [
    "Confusion",
    "cross_validated_iou",
    "halves",
    "intersection_over_union",
    "iou_of",
    "mean_iou",
    "mean_of",
]


class Confusion:
    """Count pixels by true and predicted class, one image at a time.

    Arguments:
        classes: K, the number of classes with background.

    Attributes:
        counts: [K, K + 1] int64, row = truth, column = prediction; the last column holds pixels
            whose predicted value is no class: they are errors of their true class.
        unlabelled: pixels of known truth that the prediction leaves out (the ignored value), as
            pseudo-labels may; a part of the last column.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes + 1), np.int64)
        self.unlabelled = 0

    def add(self, truth: Labels, prediction: Labels) -> None:
        """Add one image by a single joint histogram; only ignored pixels of the truth are left out.

        Arguments:
            truth: [H, W], values 0..K-1 or ignored.
            prediction: [H, W], any value; what is not in 0..K-1 is no class.

        Raises:
            ValueError: the shapes differ.
        """
        classes = len(self.counts)
        if truth.shape != prediction.shape:
            raise ValueError(
                f"truth {truth.shape} and prediction {prediction.shape} differ in shape"
            )
        if int(prediction.max(initial=0)) >= classes:
            self.unlabelled += int(np.count_nonzero(ignored(prediction) & ~ignored(truth)))
            prediction = np.minimum(prediction, prediction.dtype.type(classes))
        if classes > MOST_IN_A_BYTE + 1:
            self._add_present(truth, prediction)
            return
        # True values outside the ranges, which is 255, fall out of the histogram; its float32
        # counts are exact up to 2**24 pixels in a cell.
        ranges = [0.0, float(classes), 0.0, float(classes + 1)]
        joint = cv2.calcHist([truth, prediction], [0, 1], None, [classes, classes + 1], ranges)
        self.counts += joint.astype(np.int64)

    def _add_present(self, truth: Labels, prediction: Labels) -> None:
        """Add the joint histogram of the classes that one image holds: of a thousand it shows few,
        and one of all would take as long as the image.
        """
        known = truth < len(self.counts)
        true, rows = _numbered(truth[known])
        seen, columns = _numbered(prediction[known])
        joint = np.bincount(rows * len(seen) + columns, minlength=len(true) * len(seen))
        self.counts[np.ix_(true, seen)] += joint.reshape(len(true), len(seen))


def _numbered(labels: Labels) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the values that occur, ascending, and which of them each label is."""
    values = np.flatnonzero(np.bincount(labels))
    place = np.zeros(1 + int(values.max(initial=0)), np.intp)
    place[values] = np.arange(len(values))
    return values, place[labels]


def halves(ids: Iterable[str]) -> dict[str, int]:
    """Deal images to two halves, 0 and 1, in the order of a hash of their ids."""
    ordered = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    return {name: place % 2 for place, name in enumerate(ordered)}


def cross_validated_iou(counts: NDArray[np.integer]) -> float:
    """Return the mean IoU where each half of the images has the setting that is best on the other.

    Arguments:
        counts: [S, 2, K, K + 1] confusion matrices of each setting, for both halves of the images
            (:func:`halves`).

    Returns:
        The mean IoU over all images, in 0..1; where one half has no pixel, that of the setting
        which is best on the other half.
    """
    if not counts.any((0, 2, 3)).all():
        return float(np.nanmax(mean_iou(counts.sum(1))))
    best_on_first, best_on_second = np.nanargmax(mean_iou(counts), axis=0)
    return float(mean_iou(counts[best_on_second, 0] + counts[best_on_first, 1]))


def intersection_over_union(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the IoU per class, nan for a class that occurs neither in truth nor in prediction.

    Arguments:
        counts: [..., K, K] confusion matrices, row = truth, column = prediction, or [..., K, K + 1]
            with a last column of pixels that were given no class.

    Returns:
        [..., K] float64 in 0..1.
    """
    classes = counts.shape[-2]
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    return iou_of(hits, counts.sum(-1) + counts[..., :classes].sum(-2) - hits)


def iou_of(hits: NDArray[np.floating], union: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return hits / union, nan where a class occurs nowhere, arrays of one shape."""
    iou: NDArray[np.float64] = np.full(hits.shape, np.nan)
    np.divide(hits, union, out=iou, where=union > 0)
    return iou


def mean_iou(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that occur in truth or prediction, background among
    them.

    Arguments:
        counts: as :func:`intersection_over_union` takes them.

    Returns:
        [...] float64; nan when no pixel was counted.
    """
    return mean_of(intersection_over_union(counts))


def mean_of(iou: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean over the last axis of IoU [..., K] without those that are nan; nan where all
    are.
    """
    occurs = ~np.isnan(iou)
    number = occurs.sum(-1)
    total = np.where(occurs, iou, 0.0).sum(-1)
    mean: NDArray[np.float64] = np.full(total.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean
