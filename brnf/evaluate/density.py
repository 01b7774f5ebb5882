"""What a density knows about pixels, held against the truth: accuracy, decision margins,
log-density per class, IoU of images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brnf.evaluate.confusion import Confusion, mean_iou
from brnf.flow.bsdnf import RULES_IN_NATS
from brnf.store.label_type import Labels, ignored

__all__ = ["Accuracy", "ClassDensity", "ImageLosses", "MarginHistogram", "true_classes"]

MOST_NATS = 200.0
"""Largest margin of a histogram where margins are nats, 1 elsewhere; what lies outside counts in
the first or last bin.
"""
MARGIN_BINS = 100


def true_classes(objects: Labels, grid: tuple[int, int], position: NDArray[np.integer]) -> Labels:
    """Return the true class at the centre of grid cells.

    Arguments:
        objects: [H, W] mask.
        grid: (h, w).
        position: [N], row-major indices of cells.

    Returns:
        [N], in the type of the mask.
    """
    row, column = np.divmod(np.asarray(position, np.int64), grid[1])
    height, width = objects.shape
    found: Labels = objects[
        (2 * row + 1) * height // (2 * grid[0]), (2 * column + 1) * width // (2 * grid[1])
    ]
    return found


class Accuracy:
    """Count how often the seeds' three-way labels and the density agree with the truth, where the
    seeds label.
    """

    def __init__(self) -> None:
        self._labelled = self._by_seed = self._by_density = 0

    def add(
        self,
        truth: Labels,
        targets: NDArray[np.integer],
        predicted: NDArray[np.integer],
    ) -> None:
        """Add pixels.

        Arguments:
            truth: [N] true classes.
            targets: [N] three-way labels, negative where unlabelled.
            predicted: [N] classes of largest posterior.
        """
        counted = ~ignored(truth) & (targets >= 0)
        self._labelled += int(counted.sum())
        self._by_seed += int((counted & (targets == truth)).sum())
        self._by_density += int((counted & (predicted == truth)).sum())

    def shares(self) -> dict[str, Any]:
        """Return the number of labelled pixels and both accuracies, None when there is none."""
        total = self._labelled
        names = {"seed_accuracy": self._by_seed, "density_accuracy": self._by_density}
        return {
            "labelled": total,
            **{name: hits / total if total else None for name, hits in names.items()},
        }


class MarginHistogram:
    """Decision margins of predicted foreground pixels, true objects and false activations apart
    (supplement, section E).

    Arguments:
        rule: of BSDNF, which decides over the range.
    """

    def __init__(self, rule: str) -> None:
        most = MOST_NATS if rule in RULES_IN_NATS else 1.0
        self._edges = np.linspace(-most, most, MARGIN_BINS + 1)
        self._counts = np.zeros((2, MARGIN_BINS), np.int64)

    def add(self, margin: NDArray[np.floating], truth: Labels, label: NDArray[np.integer]) -> None:
        """Add predicted foreground pixels.

        Arguments:
            margin: [N]; negative is suppressed.
            truth: [N] true classes.
            label: [N] predicted classes.
        """
        for row, chosen in enumerate((truth == label, (truth != label) & ~ignored(truth))):
            inside = np.clip(margin[chosen], self._edges[0], self._edges[-1])
            self._counts[row] += np.histogram(inside, self._edges)[0]

    def state(self) -> dict[str, Any]:
        """Return borders and both counts."""
        return {
            "edges": self._edges.tolist(),
            "true": self._counts[0].tolist(),
            "false": self._counts[1].tolist(),
        }


class ClassDensity:
    """Count the true pixels of each class and average the log-density that their class gives them.

    Arguments:
        classes: K, background included.
    """

    def __init__(self, classes: int) -> None:
        self._pixels = np.zeros(classes, np.int64)
        self._sum = np.zeros(classes)

    def add(self, truth: Labels, log_prob: NDArray[np.floating]) -> None:
        """Add pixels with their true classes [N] and log-densities [N, K], nats."""
        kept = ~ignored(truth)
        true = truth[kept].astype(np.int64)
        self._pixels += np.bincount(true, minlength=len(self._pixels))
        self._sum += np.bincount(true, log_prob[kept, true], minlength=len(self._pixels))

    def state(self) -> dict[str, Any]:
        """Return pixels and mean log-densities [K], None for a class without pixels."""
        means = [
            None if not pixels else total / pixels
            for pixels, total in zip(self._pixels.tolist(), self._sum.tolist(), strict=True)
        ]
        return {"class_pixels": self._pixels.tolist(), "class_log_density": means}


class ImageLosses:
    """The mIoU of each image before and after denoising.

    Arguments:
        classes: K, background included.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._images: list[dict[str, Any]] = []

    def add(
        self,
        image: str,
        objects: Labels,
        before: Labels,
        after: Labels,
    ) -> None:
        """Add an image with its true classes and both predictions, [H, W]."""
        scores = []
        for labels in (before, after):
            confusion = Confusion(self._classes)
            confusion.add(objects, labels)
            scores.append(float(mean_iou(confusion.counts)))
        if not np.isnan(scores).any():
            self._images.append({"id": image, "before": scores[0], "after": scores[1]})

    def worst(self, count: int = 12) -> Sequence[dict[str, Any]]:
        """Return the images that lost most, the worst first."""
        return sorted(
            self._images, key=lambda image: (image["after"] - image["before"], image["id"])
        )[:count]
