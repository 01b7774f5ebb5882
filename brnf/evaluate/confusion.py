"""Confusion matrix and intersection over union (docs/method.md section 10)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from brnf.data.masks import IGNORE

__all__ = ["Confusion", "intersection_over_union", "mean_iou"]


class Confusion:
    """Count pixels by true and predicted class, one image at a time.

    Arguments:
        classes: K, the number of classes with background.

    Attributes:
        counts: [K, K] int64, row = truth, column = prediction.
        unlabelled: pixels of known truth that the prediction leaves out (value 255), as
            pseudo-labels may.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)
        self.unlabelled = 0

    def add(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Add one image by a single joint histogram; 255 in either mask is ignored.

        Arguments:
            truth: [H, W] uint8, values 0..K-1 or 255.
            prediction: [H, W] uint8, likewise.

        Raises:
            ValueError: the shapes differ, or a prediction names a class above K-1.
        """
        classes = len(self.counts)
        if truth.shape != prediction.shape:
            raise ValueError(
                f"truth {truth.shape} and prediction {prediction.shape} differ in shape"
            )
        largest = int(prediction.max(initial=0))
        if largest == IGNORE:
            self.unlabelled += int(np.count_nonzero((prediction == IGNORE) & (truth != IGNORE)))
        elif largest >= classes:
            raise ValueError(f"the prediction holds class {largest} where there are {classes}")
        # Values outside the ranges, 255 among them, fall out of the histogram; its float32 counts
        # are exact up to 2**24 pixels in a cell.
        ranges = [0.0, float(classes), 0.0, float(classes)]
        joint = cv2.calcHist([truth, prediction], [0, 1], None, [classes, classes], ranges)
        self.counts += joint.astype(np.int64)


def intersection_over_union(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the IoU per class, nan for a class that occurs neither in truth nor in prediction.

    Arguments:
        counts: [..., K, K] confusion matrices, row = truth, column = prediction.

    Returns:
        [..., K] float64 in 0..1.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(-1) + counts.sum(-2) - hits
    iou: NDArray[np.float64] = np.full(hits.shape, np.nan)
    np.divide(hits, union, out=iou, where=union > 0)
    return iou


def mean_iou(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that occur in truth or prediction, background among
    them.

    Arguments:
        counts: [..., K, K] confusion matrices.

    Returns:
        [...] float64; nan when no pixel was counted.
    """
    iou = intersection_over_union(counts)
    occurs = ~np.isnan(iou)
    number = occurs.sum(-1)
    total = np.where(occurs, iou, 0.0).sum(-1)
    mean: NDArray[np.float64] = np.full(total.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean
