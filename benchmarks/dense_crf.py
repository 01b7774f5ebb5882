"""The dense CRF over a data set's labels."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Repeats, Row, compare
from brnf.data.scenes import draw_scene
from brnf.segment.crf import CrfOptions, dense_crf, likely_labels, over_all_labels
from brnf.segment.processes import map_in_order

__all__ = ["FULL", "TINY", "Size", "measure"]

OPTIONS = CrfOptions()
CERTAINTY = 9.0
"""Logit of a label where it is seen."""
NEAR_LINEAR = 0.85
"""Of what the machine gives processes that share nothing: two of them may take more than half of the time of one, too."""


@dataclass(frozen=True)
class Size:
    """What is measured."""

    height: int = 375
    width: int = 500
    labels: tuple[tuple[int, int], ...] = ((21, 2), (81, 3))
    """Labels of the data set with the background, and foreground labels of an image: about VOC's and COCO's."""
    processes: int = 2
    images: int = 12
    """Images that one and several processes refine."""


FULL = Size()
TINY = Size(24, 32, ((9, 2),), 2, 3)


def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare the labels that have a chance with all labels, and several processes with one."""
    return [*(_compare_labels(size, classes, present, repeats) for classes, present in size.labels), _compare_processes(size, repeats)]


def _compare_labels(size: Size, classes: int, present: int, repeats: Repeats) -> Row:
    image, probability = _image_and_probability(size, classes, present)
    few = np.ascontiguousarray(probability[: present + 1])
    _assert_agreement(dense_crf(image, probability, OPTIONS), over_all_labels(*_sparse(image, probability), classes - 1), present)
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
        return list(map_in_order(refine, likely, workers))

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


def _sparse(image: NDArray[np.uint8], probability: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Refine the labels that have a chance, as prediction does."""
    classes, likely = likely_labels(probability)
    return dense_crf(image, likely, OPTIONS), classes


def _refine_all(images: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> None:
    for image, probability in images:
        _sparse(image, probability)


def _apart(work: Callable[[], None], processes: int) -> None:
    """Do a share of the work in each of several processes that give nothing back: what the machine allows."""
    started = [multiprocessing.Process(target=work) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def _image_and_probability(size: Size, classes: int, present: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a scene, and what a network that is unsure at the borders would say about it: the first labels are those of the image."""
    scene = draw_scene(0, "train", 3, size=max(size.height, size.width), rho=1.0, nu=1.0)
    image, found = (np.ascontiguousarray(part[: size.height, : size.width]) for part in (scene.image, scene.objects))
    logits = np.random.default_rng(0).normal(0, 0.3, (classes, size.height, size.width)).astype(np.float32)
    names = [0, *scene.labels][: present + 1]
    # A scene with fewer objects than labels: columns of the image stand for the others.
    areas = [found == name for name in names] + [np.arange(size.width)[None] % 97 < 9] * (present + 1 - len(names))
    for channel, area in enumerate(areas):
        inside = np.broadcast_to(area, found.shape).astype(np.float32)
        logits[channel] += CERTAINTY * np.maximum(cv2.GaussianBlur(inside, (0, 0), size.width / 50), 0.6)
    exponential = np.exp(logits - logits.max(0))
    return image, exponential / exponential.sum(0)


def _assert_agreement(whole: NDArray[np.float32], sparse: NDArray[np.float32], present: int) -> None:
    """Assert that at least 999 of 1,000 pixels get the same label, and that more than one label is given."""
    assert np.mean(whole.argmax(0) == sparse.argmax(0)) >= 0.999
    assert len(np.unique(whole.argmax(0))) > 1
    assert not sparse[present + 1 :].any()
