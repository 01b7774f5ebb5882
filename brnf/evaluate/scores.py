"""One histogram from which every threshold's confusion matrix, recall and context bias follow
(docs/method.md sections 10 and 12).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brnf.evaluate.confusion import iou_of, mean_of
from brnf.store.label_type import Labels, ignored
from brnf.store.maps import winning_channels

__all__ = ["Reading", "ScoreHistogram", "Sweep"]


LEVELS = np.arange(1, 20) / 20
"""Shares of the pixels with a score above 0 at whose quantiles a sweep is written down."""


@dataclass(frozen=True)
class Sweep:
    """A sweep of one constant background threshold.

    Attributes:
        thresholds: [T] quantiles of the map's own scores: foreground values from which on a pixel
            is foreground.
        miou: [T] mean IoU at each, 0..1.
        best_threshold: the threshold of the largest mean IoU of all images, to a thousandth (the
            lowest one, if several reach it).
        same_images_miou: the mean IoU there, which is chosen on the images it is reported on.
        best_miou: the mean IoU where each half of the images is read with the threshold that is
            best on the other half; as ``same_images_miou`` where one half holds no pixel.
    """

    thresholds: tuple[float, ...]
    miou: tuple[float, ...]
    best_threshold: float
    same_images_miou: float
    best_miou: float


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

    What is kept grows with the number of classes and not with its square, since no score depends on
    which wrong class a pixel is given.
    """

    def __init__(self, classes: int, bins: int = 1000) -> None:
        self.bins = bins
        # Of both halves of the images: pixels by true class; and by bin, those whose winner is
        # each class, those of them that are of this class, and those of the background.
        self._of_class = np.zeros((2, classes + 1), np.int64)
        self._won = np.zeros((2, classes, bins + 1), np.int64)
        self._right = np.zeros((2, classes, bins + 1), np.int64)
        self._background = np.zeros((2, bins + 1), np.int64)
        # Context pixels by their class, of images that carry it: all, and by bin those where this
        # class wins.
        self._context = np.zeros(classes, np.int64)
        self._inside = np.zeros((classes, bins + 1), np.int64)

    def add(
        self,
        truth: Labels,
        classes: NDArray[np.integer],
        foreground: NDArray[np.floating],
        context: Labels | None = None,
        labels: tuple[int, ...] = (),
        half: int = 0,
    ) -> None:
        """Add one image.

        Arguments:
            truth: [H, W], values 0..C or ignored.
            classes: [k] class index 1..C of each foreground channel.
            foreground: [k, H, W] values in 0..1 (clipped to it).
            context: [H, W], value c where the context of class c is seen, 0 elsewhere; None without
                such masks.
            labels: classes the image carries; the context of other classes is not counted.
            half: of the images, 0 or 1, that it belongs to.
        """
        columns = np.asarray(classes, np.intp) - 1
        if not len(columns):
            # Without a foreground channel all is background: any class wins, with score 0.
            columns, foreground = np.zeros(1, np.intp), np.zeros((1, *truth.shape), np.float32)
        winner, largest = winning_channels(foreground)
        # A product of float32 and bins is exact in float64, so a score equal to a threshold never
        # falls below it.
        score = np.clip(largest.astype(np.float64), 0.0, 1.0)
        level = (score * self.bins).astype(np.intp)
        column = winner.astype(np.intp) * (self.bins + 1) + level
        won = (columns + 1).astype(truth.dtype)[winner]
        known = ~ignored(truth)
        self._of_class[half] += np.bincount(truth[known], minlength=self._of_class.shape[1])
        self._won[half][columns] += self._by_bin(column[known], len(columns))
        self._right[half][columns] += self._by_bin(column[won == truth], len(columns))
        self._background[half] += self._by_bin(level[truth == 0], 1)[0]
        if context is not None:
            seen = np.isin(context, np.asarray(labels, context.dtype)) & (context > 0)
            self._context += np.bincount(context[seen], minlength=len(self._context) + 1)[1:]
            self._inside[columns] += self._by_bin(column[seen & (won == context)], len(columns))

    def _by_bin(self, column: NDArray[np.intp], channels: int) -> NDArray[np.int64]:
        """Return how many pixels have each channel and bin, [channels, B + 1]."""
        width = self.bins + 1
        return np.bincount(column, minlength=channels * width).reshape(channels, width)

    def _bin(self, threshold: float) -> int:
        """Return the first bin at or above a threshold.

        Raises:
            ValueError: the threshold lies on no bin's edge.
        """
        at = round(threshold * self.bins)
        if abs(at / self.bins - threshold) > 1e-9 or not 0 <= at <= self.bins:
            raise ValueError(f"threshold {threshold} is no multiple of {1 / self.bins:g} in 0..1")
        return at

    def hits_and_union(self, threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return hits and union of each class, [K], with one constant background threshold."""
        at = self._bin(threshold)
        hits, union = (sum(part) for part in zip(*map(self._tables, (0, 1)), strict=True))
        return hits[at], union[at]

    def _tables(self, half: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return hits and union of each class at every threshold, both [B + 1, K]."""

        def from_on(counts: NDArray[np.int64]) -> NDArray[np.int64]:
            return counts[..., ::-1].cumsum(-1)[..., ::-1]

        of_class = self._of_class[half]
        predicted = from_on(self._won[half])
        background = of_class[0] - from_on(self._background[half])
        hits = np.concatenate([background[None], from_on(self._right[half])])
        predicted = np.concatenate([(of_class.sum() - predicted.sum(0))[None], predicted])
        union = of_class[:, None] + predicted - hits
        return hits.T.astype(np.float64), union.T.astype(np.float64)

    def sweep(self) -> Sweep:
        """Return the mean IoU at the map's own quantiles, and the best of all thresholds above 0:
        at 0 suppressed pixels would be foreground, too.
        """
        tables = [self._tables(half) for half in (0, 1)]
        hits, union = (sum(part) for part in zip(*tables, strict=True))
        miou = mean_of(iou_of(hits, union))
        best = _best(miou)
        chosen = [_best(mean_of(iou_of(*table))) for table in tables]
        if any(not table[1].any() for table in tables):
            chosen = [best, best]
        crossed = [
            (table[0][at], table[1][at]) for table, at in zip(tables, chosen[::-1], strict=True)
        ]
        held_out = mean_of(iou_of(*(sum(part) for part in zip(*crossed, strict=True))))
        scores = self._won.sum((0, 1))[1:].cumsum()
        at = np.unique(np.searchsorted(scores, LEVELS * scores[-1])) + 1 if scores[-1] else [best]
        return Sweep(
            thresholds=tuple((np.asarray(at) / self.bins).tolist()),
            miou=tuple(miou[at].tolist()),
            best_threshold=best / self.bins,
            same_images_miou=float(miou[best]),
            best_miou=float(held_out),
        )

    def recall(self) -> NDArray[np.float64]:
        """Return object recall at the thresholds 0, 1/B, ..., 1: [B + 1] float64, falling; nan
        without objects.
        """
        hits = self._right.sum((0, 1))[::-1].cumsum()[::-1]
        total = self._of_class[:, 1:].sum()
        return hits / total if total else np.full(self.bins + 1, np.nan)

    def fire_of_class(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return context pixels inside their class's seed, and all of them, each [C] int64."""
        return self._inside[:, self._bin(threshold) :].sum(-1), self._context

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
            miou=float(mean_of(iou_of(*self.hits_and_union(threshold)))),
            fire=float(inside.sum() / total.sum()) if known else None,
            fire_of_class=shares if known else None,
        )


def _best(miou: NDArray[np.float64]) -> int:
    """Return the first bin above 0 with the largest mean IoU, 1 where none is defined."""
    above = np.nan_to_num(miou[1:], nan=-1.0)
    return int(np.argmax(above)) + 1
