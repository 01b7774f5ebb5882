"""The dense CRF over a data set's labels, and beside pydensecrf2 where that is installed.

``PHOTOGRAPHS`` names a folder of JPEG files to compare on; rendered scenes stand in for them.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Goal, Repeats, Row, at_least, compare
from benchmarks.reference_pydensecrf import MISSING, by_pydensecrf, installed, peak_of
from brnf.config.sections.segmentation import Crf
from brnf.data.images import read_image
from brnf.data.pipeline import Workers
from brnf.data.scenes import draw_scene
from brnf.segment.crf import dense_crf, likely_labels, over_all_labels

__all__ = ["FULL", "TINY", "Size", "measure"]

Pair: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""An image and the probabilities of its labels."""
Refine: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.float32], Crf], NDArray[np.float32]]

OPTIONS = Crf()
CERTAINTY = 9.0
"""Logit of a label where it is seen."""
NEAR_LINEAR = 0.85
"""Of what the machine gives processes that share nothing: two of them may take more than half of
the time of one, too.
"""


@dataclass(frozen=True)
class Size:
    """What is measured."""

    height: int = 375
    width: int = 500
    labels: tuple[tuple[int, int], ...] = ((21, 2), (81, 3))
    """Labels of the data set with the background, and foreground labels of an image: about VOC's
    and COCO's.
    """
    processes: int = 2
    images: int = 12
    """Images that one and several processes refine."""
    beside: tuple[int, ...] = (2, 3, 4, 7, 21)
    """Labels of an image, for the comparison with pydensecrf2."""
    photographs: int = 24
    """Images of that comparison."""


FULL = Size()
TINY = Size(24, 32, ((9, 2),), 2, 3, (2, 5), 2)
SLOWEST, OVERALL = 1.1, 1.3
"""Goals beside pydensecrf2: of each row, and of all pairs together."""
SAME_MARGINAL, OTHER_LABELS = 0.02, 1 / 50_000
"""By how much a marginal may differ from pydensecrf2's, and how many labels."""


def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare the labels that have a chance with all, several processes with one, and both CRFs."""
    rows = [_compare_labels(size, classes, present, repeats) for classes, present in size.labels]
    rows.append(_compare_processes(size, repeats))
    if not installed():
        print(f"dense CRF beside pydensecrf2: {MISSING}", file=sys.stderr, flush=True)
        return rows
    return [*rows, *_beside_pydensecrf(size, repeats)]


def _beside_pydensecrf(size: Size, repeats: Repeats) -> list[Row]:
    """Compare with pydensecrf2 image by image; a pair of neighbouring runs refines the same one."""
    folder = os.environ.get("PHOTOGRAPHS")
    images = _photographs(size, Path(folder)) if folder else _scenes(size)
    kind = "photographs" if folder else "scenes"
    rows = []
    for labels in size.beside:
        pairs = [(image, _areas(image, labels, seed)) for seed, image in enumerate(images)]
        _assert_same(pairs)
        peaks = [peak_of(side, *pairs[0]) / 2**20 for side in ("brnf", "pydensecrf")]
        memory = Goal("peak {:.0f} ≤ {:.0f} MiB".format(*peaks), peaks[0] <= peaks[1])
        rows.append(
            compare(
                "dense CRF beside pydensecrf2",
                f"{len(images)} {kind}, {labels} labels",
                partial(_refine_next, dense_crf, cycle(pairs)),
                partial(_refine_next, by_pydensecrf, cycle(pairs)),
                repeats,
                ratio=SLOWEST,
                goals=[memory],
            )
        )
    overall = at_least(
        OVERALL, median(ratio for row in rows for ratio in _ratios(row)), "× overall"
    )
    return [*rows[:-1], replace(rows[-1], goals=(*rows[-1].goals, overall))]


def _refine_next(refine: Refine, pairs: Iterator[Pair]) -> None:
    refine(*next(pairs), OPTIONS)


def _ratios(row: Row) -> Iterator[float]:
    """Yield how many times as fast this project was in each pair."""
    for ours, theirs in zip(row.ours.seconds, row.reference.seconds, strict=True):
        yield theirs / ours


def _photographs(size: Size, folder: Path) -> list[NDArray[np.uint8]]:
    """Read photographs from all over a folder, in the order of their names."""
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise SystemExit(f"PHOTOGRAPHS={folder}: no *.jpg in it")
    return [read_image(file) for file in files[:: max(1, len(files) // size.photographs)]]


def _scenes(size: Size) -> list[NDArray[np.uint8]]:
    side = max(size.height, size.width)
    scenes = (
        draw_scene(0, "train", i, size=side, rho=1.0, nu=1.0) for i in range(size.photographs)
    )
    return [np.ascontiguousarray(scene.image[: size.height, : size.width]) for scene in scenes]


def _areas(image: NDArray[np.uint8], labels: int, seed: int) -> NDArray[np.float32]:
    """Return [L, H, W] probabilities of smooth areas, about as sure as a network is."""
    height, width = image.shape[:2]
    noise = np.random.default_rng(seed).normal(size=(labels, height // 16 + 2, width // 16 + 2))
    logits = np.stack([cv2.resize(one.astype(np.float32), (width, height)) for one in 3 * noise])
    exponential = np.exp(logits - logits.max(0))
    shares: NDArray[np.float32] = (exponential / exponential.sum(0)).astype(np.float32)
    return shares


def _assert_same(pairs: Sequence[Pair]) -> None:
    other = pixels = 0
    for image, probability in pairs:
        ours, theirs = (
            refine(image, probability, OPTIONS) for refine in (dense_crf, by_pydensecrf)
        )
        assert np.abs(ours - theirs).max() <= SAME_MARGINAL
        other += int(np.count_nonzero(ours.argmax(0) != theirs.argmax(0)))
        pixels += ours[0].size
    assert other <= OTHER_LABELS * pixels


def _compare_labels(size: Size, classes: int, present: int, repeats: Repeats) -> Row:
    image, probability = _image_and_probability(size, classes, present)
    few = np.ascontiguousarray(probability[: present + 1])
    _assert_agreement(
        dense_crf(image, probability, OPTIONS),
        over_all_labels(*_sparse(image, probability), classes - 1),
        present,
    )
    return compare(
        "dense CRF",
        f"{size.height} × {size.width}, {present} + 1 of {classes} labels",
        lambda: _sparse(image, probability),
        lambda: dense_crf(image, probability, OPTIONS),
        repeats,
        limit=f"CRF of {present + 1} labels alone",
        bound=lambda: dense_crf(image, few, OPTIONS),
        ratio=2,
    )


def _compare_processes(size: Size, repeats: Repeats) -> Row:
    refine = partial(dense_crf, options=OPTIONS)
    images = [_image_and_probability(size, *size.labels[0])] * size.images

    def run(workers: int) -> list[NDArray[np.float32]]:
        likely = ((image, likely_labels(probability)[1]) for image, probability in images)
        with Workers(workers) as processes:
            return list(processes.map(refine, likely))

    np.testing.assert_array_equal(run(size.processes), run(0))
    return compare(
        f"dense CRF in {size.processes} processes",
        f"{size.images} images beside one process, start included",
        lambda: run(size.processes),
        lambda: run(0),
        repeats,
        limit=f"{size.processes} processes that share nothing",
        bound=lambda: _apart(partial(_refine_all, images[:: size.processes]), size.processes),
        processes=True,
        share=NEAR_LINEAR,
    )


def _sparse(
    image: NDArray[np.uint8], probability: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Refine the labels that have a chance, as prediction does."""
    classes, likely = likely_labels(probability)
    return dense_crf(image, likely, OPTIONS), classes


def _refine_all(images: Sequence[Pair]) -> None:
    for image, probability in images:
        _sparse(image, probability)


def _apart(work: Callable[[], None], processes: int) -> None:
    """Do a share of the work in each of several processes that give nothing back: what the machine
    allows.
    """
    started = [multiprocessing.Process(target=work) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def _image_and_probability(
    size: Size, classes: int, present: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a scene, and what a network that is unsure at the borders would say about it: the first
    labels are those of the image.
    """
    scene = draw_scene(0, "train", 3, size=max(size.height, size.width), rho=1.0, nu=1.0)
    image, found = (
        np.ascontiguousarray(part[: size.height, : size.width])
        for part in (scene.image, scene.objects)
    )
    logits = (
        np.random.default_rng(0)
        .normal(0, 0.3, (classes, size.height, size.width))
        .astype(np.float32)
    )
    names = [0, *scene.labels][: present + 1]
    # A scene with fewer objects than labels: columns of the image stand for the others.
    areas = [found == name for name in names] + [np.arange(size.width)[None] % 97 < 9] * (
        present + 1 - len(names)
    )
    for channel, area in enumerate(areas):
        inside = np.broadcast_to(area, found.shape).astype(np.float32)
        logits[channel] += CERTAINTY * np.maximum(
            cv2.GaussianBlur(inside, (0, 0), size.width / 50), 0.6
        )
    exponential = np.exp(logits - logits.max(0))
    return image, exponential / exponential.sum(0)


def _assert_agreement(
    whole: NDArray[np.float32], sparse: NDArray[np.float32], present: int
) -> None:
    """Assert that at least 999 of 1,000 pixels get the same label, and that more than one label is
    given.
    """
    assert np.mean(whole.argmax(0) == sparse.argmax(0)) >= 0.999
    assert len(np.unique(whole.argmax(0))) > 1
    assert not sparse[present + 1 :].any()
