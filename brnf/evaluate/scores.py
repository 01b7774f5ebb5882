"""One histogram from which every threshold's confusion matrix, recall and context bias follow
(docs/method.md sections 10 and 12).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brnf.data.masks import IGNORE
from brnf.evaluate.confusion import mean_iou
from brnf.store.maps import winning_channels

__all__ = ["Reading", "ScoreHistogram", "Sweep"]


@dataclass(frozen=True)
class Sweep:
    """A sweep of one constant background threshold.

    Attributes:
        thresholds: [T] foreground values from which on a pixel is foreground.
        miou: [T] mean IoU at each, 0..1.
    """

    thresholds: tuple[float, ...]
    miou: tuple[float, ...]

    @property
    def best(self) -> tuple[float, float]:
        """Return the largest mean IoU and its threshold (the lowest one, if several reach it)."""
        at = int(np.argmax(self.miou))
        return self.miou[at], self.thresholds[at]


@dataclass(frozen=True)
class Reading:
    """The seed at the threshold where object recall reaches a target.

    Attributes:
        threshold: the highest threshold whose recall is at least the target. When no threshold
            above 0 reaches it (suppressed pixels have score 0), the highest one with the largest
            recall there is.
        recall: object recall at that threshold, to be looked at before ``fire`` is believed.
        miou: mean IoU at that threshold, 0..1.
        fire: share of context pixels inside the seed of their class, 0..1; None without context
            masks.
        fire_of_class: [C] the same for each class; None where a class has no context pixel.
    """

    threshold: float
    recall: float
    miou: float
    fire: float | None
    fire_of_class: tuple[float | None, ...] | None


class ScoreHistogram:
    """Count pixels by truth, winning foreground class and its score.

    The *seed* of class c at threshold t are the pixels where c has the largest of all foreground
    values and this value is >= t; all other pixels are background. Only foreground channels count:
    a background channel that is not ``1 - max`` (as after BSDNF) is not read. Scores are binned to
    [i / bins, (i + 1) / bins), the last bin holds 1: every threshold i / bins is exact, no
    approximation.

    One threshold serves all classes. Object recall is the share of all object pixels, of all
    classes together, that lie inside the seed of their own class; fire is the share of all context
    pixels of classes the image carries, of all classes together, that lie inside the seed of the
    class whose context they are. Our reading of docs/method.md section 12, which leaves the
    averaging open.

    Arguments:
        classes: C, the number of foreground classes.
        bins: B, steps of the threshold in 0..1.

    Attributes:
        truth: [C + 1, C, B + 1] int64, pixels by true class, winner and bin; 255 is ignored.
        context: [C, C, B + 1] int64, context pixels by the context's class, winner and bin, of
            images that carry this class; None as long as no image has a mask of contexts, which is
            as much memory again.
    """

    def __init__(self, classes: int, bins: int = 1000) -> None:
        self.bins = bins
        self.truth = np.zeros((classes + 1, classes, bins + 1), np.int64)
        self.context: NDArray[np.int64] | None = None

    def add(
        self,
        truth: NDArray[np.uint8],
        classes: NDArray[np.integer],
        foreground: NDArray[np.floating],
        context: NDArray[np.uint8] | None = None,
        labels: tuple[int, ...] = (),
    ) -> None:
        """Add one image.

        Arguments:
            truth: [H, W] uint8, values 0..C or 255.
            classes: [k] class index 1..C of each foreground channel.
            foreground: [k, H, W] values in 0..1 (clipped to it).
            context: [H, W] uint8, value c where the context of class c is seen, 0 elsewhere; None
                without such masks.
            labels: classes the image carries; the context of other classes is not counted.
        """
        columns = np.asarray(classes, np.intp) - 1
        if not len(columns):
            # Without a foreground channel all is background: any class wins, with score 0.
            columns, foreground = np.zeros(1, np.intp), np.zeros((1, *truth.shape), np.float32)
        winner, largest = winning_channels(foreground)
        # A product of float32 and bins is exact in float64, so a score equal to a threshold never
        # falls below it.
        score = np.clip(largest.astype(np.float64), 0.0, 1.0)
        column = winner.astype(np.intp) * (self.bins + 1) + (score * self.bins).astype(np.intp)
        self.truth[:, columns] += self._joint(
            truth, truth != IGNORE, column, len(self.truth), len(columns)
        )
        if context is not None:
            seen = (
                np.isin(context, np.asarray(labels, np.uint8)) & (context > 0) & (context != IGNORE)
            )
            if self.context is None:
                self.context = np.zeros_like(self.truth[1:])
            self.context[:, columns] += self._joint(
                context, seen, column, len(self.truth), len(columns)
            )[1:]

    def _joint(
        self,
        rows: NDArray[np.uint8],
        counted: NDArray[np.bool_],
        column: NDArray[np.intp],
        height: int,
        channels: int,
    ) -> NDArray[np.int64]:
        """Return the joint histogram of the counted pixels, [height, channels, B + 1]."""
        width = channels * (self.bins + 1)
        code = rows[counted].astype(np.intp) * width + column[counted]
        return np.bincount(code, minlength=height * width).reshape(height, channels, self.bins + 1)

    def _bin(self, threshold: float) -> int:
        """Return the first bin at or above a threshold.

        Raises:
            ValueError: the threshold lies on no bin's edge.
        """
        at = round(threshold * self.bins)
        if abs(at / self.bins - threshold) > 1e-9 or not 0 <= at <= self.bins:
            raise ValueError(f"threshold {threshold} is no multiple of {1 / self.bins:g} in 0..1")
        return at

    def confusion_at(self, threshold: float) -> NDArray[np.int64]:
        """Return the confusion matrix with one constant background threshold, [K, K] int64 (row =
        truth).
        """
        foreground = self.truth[:, :, self._bin(threshold) :].sum(-1)
        background = self.truth.sum((1, 2)) - foreground.sum(1)
        return np.concatenate([background[:, None], foreground], axis=1)

    def sweep(self, thresholds: tuple[float, ...]) -> Sweep:
        """Return the mean IoU at each threshold."""
        counts = np.stack([self.confusion_at(threshold) for threshold in thresholds])
        return Sweep(thresholds, tuple(mean_iou(counts).tolist()))

    def recall(self) -> NDArray[np.float64]:
        """Return object recall at the thresholds 0, 1/B, ..., 1: [B + 1] float64, falling; nan
        without objects.
        """
        objects = self.truth[1:]
        hits = np.einsum("ccb->b", objects)[::-1].cumsum()[::-1]
        total = objects.sum()
        return hits / total if total else np.full(self.bins + 1, np.nan)

    def fire_of_class(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return context pixels inside their class's seed, and all of them, each [C] int64."""
        if self.context is None:
            none = np.zeros(len(self.truth) - 1, np.int64)
            return none, none
        inside = np.einsum("ccb->cb", self.context)[:, self._bin(threshold) :].sum(-1)
        return inside, self.context.sum((1, 2))

    def at_recall(self, target: float) -> Reading | None:
        """Read the seed where object recall reaches ``target`` (0..1); None when there is no object
        pixel.
        """
        recall = self.recall()
        if np.isnan(recall[0]):
            return None
        # Threshold 0 would count every pixel, suppressed ones too: the search starts at the first
        # bin above.
        at = int(np.flatnonzero(recall[1:] >= min(target, recall[1]))[-1]) + 1
        threshold = at / self.bins
        inside, total = self.fire_of_class(threshold)
        known = bool(total.sum())
        shares = tuple(float(a / b) if b else None for a, b in zip(inside, total, strict=True))
        return Reading(
            threshold=threshold,
            recall=float(recall[at]),
            miou=float(mean_iou(self.confusion_at(threshold))),
            fire=float(inside.sum() / total.sum()) if known else None,
            fire_of_class=shares if known else None,
        )
