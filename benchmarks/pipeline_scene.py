"""What the simulated inference works on, and how long the parts of that work take."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brnf.config.sections.segmentation import Crf, PredictionCrf, SegmentationTest
from brnf.data.images import read_sized, resize_image
from brnf.data.index import ImageRecord, Index
from brnf.data.masks import write_mask
from brnf.data.pipeline import Workers
from brnf.segment.crf import dense_crf, likely_labels
from brnf.segment.predict import seen_size
from brnf.segment.pseudo_labels import label_image
from brnf.stages.store_pixels import _rows, read_stored
from brnf.store.label_type import Labels
from brnf.store.maps import PackedMaps, as_stored, pack_maps, write_maps
from brnf.store.pixels import write_pixels

__all__ = [
    "CLASSES",
    "PROCESSOR",
    "Scene",
    "Size",
    "maps",
    "probability_of",
    "slept_pack",
    "slept_read",
    "slept_read_stored",
    "slept_refine",
    "work",
]

CLASSES = 20


@dataclass(frozen=True)
class Size:
    """What is simulated.

    Attributes:
        height, width: of the photographs; every second one stands upright.
        images: number of them.
        device: seconds that the device takes for an image.
        processor: seconds of each thing that processes do with an image, ten times those of the
            main thread and the writer; None: as measured.
    """

    height: int = 375
    width: int = 500
    images: int = 200
    device: float = 0.04
    processor: float | None = None


PROCESSOR: dict[str, float] = {}
"""Name of a function -> seconds of processor time for an image, which processes inherit."""


READERS: dict[str, Callable[..., Any]] = {"read_sized": read_sized, "read_stored": read_stored}
"""By name: the stage's own is another function as long as it is simulated."""


def _slept(function: Callable[..., Any], *arguments: Any) -> Any:
    """Sleep as long as a function takes, and return what it returned for the like before."""
    time.sleep(PROCESSOR[function.__name__])
    like = tuple(one.shape if hasattr(one, "shape") else one for one in arguments)
    return _first_results(function, _Arguments(like, arguments))


@dataclass(frozen=True)
class _Arguments:
    like: Any
    given: Any = field(compare=False)


@cache
def _first_results(function: Callable[..., Any], arguments: _Arguments) -> Any:
    return function(*arguments.given)


class Sent:
    """What arrives in another process after a sleep instead of going through a pipe.

    Arguments:
        read: name of what makes it of the arguments, there as here.
    """

    def __init__(self, read: str, *arguments: Any) -> None:
        self._call = read, *arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return _arrived, self._call


def _arrived(read: str, *arguments: Any) -> Any:
    time.sleep(PROCESSOR[f"{read}, received"])
    return _first_results(READERS[read], _Arguments(arguments, arguments))


def _sent(read: str, *arguments: Any) -> Any:
    found = _slept(READERS[read], *arguments)
    return found if multiprocessing.parent_process() is None else Sent(read, *arguments)


def slept_read(path: Path, long_side: int | None = None) -> Any:
    """Stand in for :func:`read_image` and :func:`read_sized`."""
    return _sent("read_sized", path, long_side)


def slept_read_stored(path: Path, long_side: int | None, *place: Any) -> Any:
    """Stand in for :func:`read_stored`; all images have the maps of one of their size."""
    return _sent("read_stored", path, long_side, *place[:2], "0" if "lying" in path.name else "1")


def slept_pack(image: str, classes: Any, products: Any) -> PackedMaps:
    """Stand in for :func:`pack_maps`."""
    names, values = tuple(products), tuple(products.values())
    found: PackedMaps = _slept(_pack, tuple(classes), names, *values)
    return replace(found, image=image)


def _pack(classes: tuple[int, ...], names: tuple[str, ...], *values: Any) -> PackedMaps:
    return pack_maps("0", classes, dict(zip(names, values, strict=True)))


def slept_refine(
    image: NDArray[np.uint8], classes: Labels, probability: NDArray[np.float32], options: Crf
) -> tuple[Labels, NDArray[np.float32]]:
    """Stand in for :func:`brnf.segment.predict.refine_labels`."""
    time.sleep(PROCESSOR["dense_crf"])
    return classes, probability


class Scene:
    """Photographs of two sizes, their index, and maps of both."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        sides = {"lying": (size.height, size.width), "upright": (size.width, size.height)}
        for name, side in sides.items():
            Image.fromarray(_photograph(side)).save(folder / f"{name}.jpg", quality=90)
        records = []
        for number in range(size.images):
            name = ("lying", "upright")[number % 2]
            height, width = sides[name]
            labels = ((1,), (1, 2))[number // 2 % 2]
            path = folder / f"{name}.jpg"
            records.append(ImageRecord(str(number), path, width, height, labels))
        index = Index(tuple(map(str, range(CLASSES))), tuple(range(1, 21)), tuple(records))
        index.write(folder / "index", "train")
        self.index, self.list = folder / "index", folder / "index" / "shards" / "train" / "0.csv"
        with write_maps(folder / "maps.h5", CLASSES) as writer:
            for number, side in enumerate(sides.values()):
                writer.write(str(number), (1, 2), {"prototype": maps(2, side)})
        self.measure(sides["lying"])

    def measure(self, side: tuple[int, int]) -> None:
        """Measure what processes do with an image."""
        path, values = self.folder / "lying.jpg", maps(2, side)
        store, image, whole = self.folder / "maps.h5", _photograph(side), probability_of(side)
        present, likely = likely_labels(whole)
        packed = _pack((1, 2), ("classifier", "prototype"), values, values)
        features, stored = np.zeros((768, 24, 32), np.float32), as_stored(values)
        record = ImageRecord("0", path, side[1], side[0], (1, 2))
        here = np.ones(CLASSES + 1, np.bool_)
        files = ExitStack()
        maps_file = files.enter_context(write_maps(self.folder / "m.h5", CLASSES))
        pixels = files.enter_context(write_pixels(self.folder / "p.h5", 768, CLASSES + 1))
        names = map(str, range(10**6))
        works: dict[str, Callable[[], Any]] = {
            "read_sized": lambda: read_sized(path, None),
            "read_stored": lambda: read_stored(path, None, store, "prototype", "0"),
            "_pack": lambda: _pack((1, 2), ("classifier", "prototype"), values, values),
            "dense_crf": lambda: dense_crf(image, likely, PredictionCrf()),
            "write_packed": lambda: maps_file.write_packed(replace(packed, image=next(names))),
            "append": lambda: pixels.append(_rows(record, features, present[:2], stored, here)),
            "write_mask": lambda: write_mask(self.folder / "m.png", label_image(likely, present)),
            "views": lambda: _views(image, whole),
        }
        for name, work in works.items():
            fixed = self.size.processor
            PROCESSOR[name] = _processor_time(work) if fixed is None else fixed
        with Workers(1) as workers:
            for read, words in (
                (read_sized, (path, None)),
                (read_stored, (path, None, store, "prototype", "0")),
            ):
                name, received = f"{read.__name__}, received", workers.map(read, [words] * 30)
                next(received)
                start = time.process_time()
                count = sum(1 for _ in received)
                PROCESSOR[name] = (time.process_time() - start) / count if fixed is None else 0.0
        if fixed is not None:
            beside = ("views", "write_packed", "append", "write_mask")
            PROCESSOR.update(dict.fromkeys(beside, fixed / 10))
        files.close()


def _views(image: NDArray[np.uint8], whole: NDArray[np.float32]) -> None:
    """Resize an image, and choose labels, as a prediction does around the network."""
    test = SegmentationTest()
    for scale in test.scales:
        size = seen_size(image.shape[0], image.shape[1], scale, None)
        resize_image(image.astype(np.float32), size, test.interpolation)
    likely_labels(whole, test.crf.minimum)


def work(name: str) -> Callable[..., None]:
    """Return what sleeps instead of working in this process."""
    return lambda *_: time.sleep(PROCESSOR[name])


def _processor_time(work: Callable[[], Any]) -> float:
    """Return the median processor time of 12 calls; the store writes at every sixth."""
    work()
    times = []
    for _ in range(12):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.mean(times))


def _photograph(side: tuple[int, int]) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, side[::-1], interpolation=cv2.INTER_CUBIC)
    noisy: NDArray[np.uint8] = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255)
    return noisy.astype(np.uint8)


@cache
def maps(classes: int, side: tuple[int, int]) -> NDArray[np.float32]:
    """Return maps [1 + classes, *side], smooth as a network's are."""
    random = np.random.default_rng(1)
    coarse = random.random((classes + 1, 24, 32)).astype(np.float32)
    return np.stack([cv2.resize(one, side[::-1]) for one in coarse])


@cache
def probability_of(side: tuple[int, int]) -> NDArray[np.float32]:
    """Return probabilities of all classes, four of which have a chance."""
    found = np.full((CLASSES + 1, *side), 1e-4, np.float32)
    found[:4] = maps(3, side) + 0.1
    total: NDArray[np.float32] = found / found.sum(0)
    return total
