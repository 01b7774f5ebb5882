"""What grows with the number of classes: time and memory of each stage's core, on random numbers.

Each line is measured in a process of its own, so that its peak is its own. Numbers and sizes are
those of the bench where no picture is needed: 256 dimensions, grids of 20 x 15, crops of 256.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np
import torch

from brnf.cam.contrast import ContrastBank, info_nce
from brnf.config.sections.segmentation import DeepLabNetwork, SegmentationTest
from brnf.engine.memory import keep_freed_memory
from brnf.evaluate.confusion import Confusion, intersection_over_union
from brnf.evaluate.scores import ScoreHistogram
from brnf.flow.bsdnf import CalibrationFit, decision_margin
from brnf.flow.mixture import LatentMixture
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import segmentation_loss
from brnf.segment.predict import predict_labels, refine_labels
from brnf.store.label_type import ignored_value, label_type
from brnf.store.pixels import PixelRows, PixelStore, write_pixels

__all__ = ["FULL", "LOOPS", "TINY", "Size", "main", "measured"]

CLASSES = (21, 81, 254, 1000)
LABELLED = 3
"""Classes that one image shows."""


@dataclass(frozen=True)
class Size:
    """What is measured."""

    images: int = 200
    grid: tuple[int, int] = (15, 20)
    picture: tuple[int, int] = (375, 500)
    pictures: int = 20
    dimension: int = 256
    rows: int = 16_384
    regions: int = 500
    samples: int = 100
    crop: int = 256
    batch: int = 8


FULL = Size()
TINY = Size(4, (3, 4), (20, 30), 2, 8, 64, 5, 2, 32, 2)


def store_pixels(size: Size, classes: int) -> None:
    """Write the rows of all images, and read them mixed."""
    random = np.random.default_rng(0)
    count = size.grid[0] * size.grid[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        with write_pixels(path, size.dimension, classes) as writer:
            for number in range(size.images):
                shown = random.integers(1, classes, LABELLED)
                present = np.zeros(classes, np.bool_)
                present[[0, *shown]] = True
                feature = random.standard_normal((count, size.dimension), np.float32)
                score = random.random(count, np.float32)
                label = random.choice(shown, count)
                rows = PixelRows(
                    f"{number}",
                    size.grid,
                    present,
                    feature,
                    score,
                    1 - score,
                    label,
                    np.arange(count),
                )
                writer.append(rows)
        for batch in PixelStore([path]).shuffled_batches(2048, 0, epochs=1):
            len(batch)


def mixture(size: Size, classes: int) -> None:
    """Compute log-densities of latent points under each class, and the gradient of the means."""
    density = LatentMixture(classes, size.dimension, True, 0)
    points = torch.randn(size.rows, size.dimension)
    for rows in points.split(2048):
        density.log_prob(rows).logsumexp(1).sum().backward()


def thresholds(size: Size, classes: int) -> None:
    """Gather BSDNF's quantiles of every class, and judge rows by them."""
    generator = torch.Generator().manual_seed(0)
    fit = CalibrationFit(classes, 0.3, 0.7)
    for _ in range(4):
        count = size.rows // 4
        log_prob = torch.randn(count, classes, generator=generator)
        label = torch.randint(1, classes, (count,), generator=generator)
        score = torch.rand(count, generator=generator)
        fit.update(log_prob, label, score, 1 - score)
    calibration = fit.finish(1.0)
    allowed = torch.ones(count, classes, dtype=torch.bool)
    decision_margin("quantile", 0.9, log_prob, label, allowed, calibration)


def banks(size: Size, classes: int) -> None:
    """Fill FSCL's banks and take one contrastive loss of a batch against all they hold."""
    bank = ContrastBank(classes, size.dimension, size.regions, size.samples)
    generator = torch.Generator().manual_seed(0)
    for number in range(classes):
        vectors = torch.randn(size.regions, size.dimension, generator=generator)
        owner = torch.full((size.regions,), number)
        bank.add_regions(torch.nn.functional.normalize(vectors), owner)
    vectors = torch.randn(classes, size.samples, size.dimension, generator=generator)
    bank.add_samples(vectors, torch.ones(classes, dtype=torch.bool))
    anchors = torch.randn(LABELLED * size.batch, size.dimension, generator=generator)
    anchors.requires_grad_()
    own = torch.randint(0, classes, (len(anchors),), generator=generator)
    info_nce(anchors, own, *bank.contents()).backward()


def confusion(size: Size, classes: int) -> None:
    """Count the pixels of masks that show few classes each, and compute all IoU."""
    counted = Confusion(classes)
    for truth, prediction in _masks(size, classes):
        counted.add(truth, prediction)
    intersection_over_union(counted.counts)


def scores(size: Size, classes: int) -> None:
    """Count the scores of maps, and sweep all thresholds."""
    histogram = ScoreHistogram(classes - 1)
    random = np.random.default_rng(0)
    for truth, _ in _masks(size, classes):
        shown = np.unique(truth[(truth > 0) & (truth < classes)])
        histogram.add(truth, shown, random.random((len(shown), *truth.shape), np.float32))
    histogram.sweep()
    histogram.at_recall(0.7)


def segmentation_step(size: Size, classes: int) -> None:
    """Take a step of a layer that gives DeepLabV2's logits: head, loss and gradient."""
    torch.manual_seed(0)
    head = torch.nn.Conv2d(320, classes, 3, padding=2, dilation=2)
    features = torch.randn(size.batch, 320, size.crop // 16, size.crop // 16)
    labels = torch.randint(0, min(classes, LABELLED), (size.batch, size.crop, size.crop))
    labels[:, 0] = ignored_value(classes - 1)
    segmentation_loss(head(features), labels, align_corners=False).backward()


class _Pooled(torch.nn.Module):
    """A network whose logits, on a grid of stride 16, are those of few classes at each place."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.options = DeepLabNetwork(align_corners=False)
        self.head = torch.nn.Conv2d(3, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, K, h, w] of images [N, 3, H, W]."""
        logits: torch.Tensor = self.head(torch.nn.functional.avg_pool2d(images, 16))
        return logits


@torch.inference_mode()
def prediction(size: Size, classes: int) -> None:
    """Segment a photograph from its logits at two scales on, mirrored too, behind the CRF."""
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (*size.picture, 3), np.uint8)
    image[: size.picture[0] // 2] //= 4
    network = cast(DeepLab, _Pooled(classes).eval())
    options = SegmentationTest(scales=(1.0, 1.5))
    shown, probability = predict_labels(network, image, options, torch.device("cpu"))
    refine_labels(image, shown, probability, options.crf)


LOOPS: dict[str, Callable[[Size, int], None]] = {
    "pixel store, write and read": store_pixels,
    "mixture, log-density and gradient": mixture,
    "BSDNF, thresholds": thresholds,
    "FSCL, banks and loss": banks,
    "confusion matrix": confusion,
    "score histogram and sweep": scores,
    "DeepLabV2, head and loss": segmentation_step,
    "DeepLabV2, prediction": prediction,
}


def _masks(size: Size, classes: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of masks that show few classes each."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(size.pictures):
        shown = np.array([0, *random.integers(1, classes, LABELLED)], label_type(classes - 1))
        truth = shown[random.integers(0, len(shown), size.picture)]
        prediction = np.roll(truth, 1, 1)
        truth[0] = ignored_value(classes - 1)
        found.append((truth, prediction))
    return found


def measured(loop: str, size: Size, classes: int) -> tuple[float, float]:
    """Return the seconds and the MiB that a loop takes in a process of its own, on one thread."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(loop, size, classes, sender))
    process.start()
    sender.close()
    seconds, memory = receiver.recv()
    process.join()
    return float(seconds), float(memory)


def _measure(loop: str, size: Size, classes: int, sender: Connection) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the stages do
    before, start = _memory("VmRSS"), time.process_time()
    LOOPS[loop](size, classes)
    sender.send((time.process_time() - start, _memory("VmHWM") - before))


def _memory(kind: str) -> float:
    """Return what Linux counts as this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(kind))
    return int(found.split()[1]) / 1024


def main() -> None:
    """Print a table of loops and numbers of classes: seconds of the processor, and MiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--classes", type=int, nargs="+", default=CLASSES, help="K, with background"
    )
    parser.add_argument("--loops", nargs="+", default=list(LOOPS), choices=list(LOOPS))
    options = parser.parse_args()
    print(f"| seconds, MiB | {' | '.join(f'K {count}' for count in options.classes)} |")
    print("|---" * (1 + len(options.classes)) + "|")
    for loop in options.loops:
        cells = []
        for count in options.classes:
            seconds, memory = measured(loop, FULL, count)
            cells.append(f"{seconds:.2f}, {memory:,.0f}")
        print(f"| {loop} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
