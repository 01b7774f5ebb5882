"""Hold the pace of indexing against that of the cores: ``python -m benchmarks.index_rate``.

The stage lists, decodes and hashes links to a few drawn pictures of VOC's size with as many
processes as it is given; beside it as many plain processes decode the same files and do nothing
else. Both sides take turns; imports are not counted.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median

import cv2
import numpy as np
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.engine.runtime import Runtime
from brnf.stages.index_images import Inputs, Options, Outputs, run

__all__ = ["Spent", "decoded", "indexed", "main", "write_table"]

SIZE = (375, 500)
DRAWN = 40
GOAL = 0.85


@dataclass(frozen=True)
class Spent:
    """What one side took.

    Attributes:
        wall: seconds.
        processor: seconds of all processes together.
    """

    wall: float
    processor: float


def write_table(folder: Path, count: int, size: tuple[int, int] = SIZE) -> Path:
    """Write a table of links to a few pictures, and return it.

    Arguments:
        folder: gets it.
        count: of rows.
        size: height and width of the pictures.
    """
    random = np.random.default_rng(0)
    (folder / "drawn").mkdir()
    (folder / "photographs").mkdir()
    height, width = size
    for number in range(min(DRAWN, count)):
        coarse = random.integers(0, 256, (height // 12 + 1, width // 12 + 1, 3), np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = random.integers(-12, 13, (height, width, 3))
        pixels = (smooth + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "drawn" / f"{number}.jpg", quality=90)
    rows = ["image,labels"]
    for number in range(count):
        name = f"photographs/{number:07d}.jpg"
        (folder / name).hardlink_to(folder / "drawn" / f"{number % DRAWN}.jpg")
        rows.append(f"{name},class {number % 20:02d}")
    table = folder / "images.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def indexed(table: Path, workers: int) -> Spent:
    """Index the pictures for the first time."""
    options = Options(IndexedImages(kind="table"), splits=("train",))
    runtime = Runtime(workers=workers, progress="none")
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(Path(folder, "index"))
        return spent(lambda: run(Inputs(table=table), outputs, options, runtime))


def decoded(table: Path, workers: int) -> Spent:
    """Decode the pictures, and nothing else."""
    lines = table.read_text().splitlines()[1:]
    paths = [str(table.parent / line.partition(",")[0]) for line in lines]
    context = multiprocessing.get_context("fork")
    shares = [paths[number::workers] for number in range(workers)]
    processes = [context.Process(target=_decode, args=(share,)) for share in shares]

    def work() -> None:
        for process in processes:
            process.start()
        for process in processes:
            process.join()

    return spent(work)


def _decode(paths: Sequence[str]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def spent(work: Callable[[], object]) -> Spent:
    """Do work, and return what it took."""
    before, began = _processor_seconds(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - began, _processor_seconds() - before)


def _processor_seconds() -> float:
    used = (getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Measure both sides in turn and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6000, help="rows of the table")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        table = write_table(Path(name), words.images)
        decoded(table, words.workers)
        pairs = [
            (indexed(table, words.workers), decoded(table, words.workers))
            for _ in range(words.repeats)
        ]
    for title in ("wall", "processor"):
        seconds = [(getattr(one, title), getattr(plain, title)) for one, plain in pairs]
        shares = [plain / one for one, plain in seconds]
        rates = [words.images / median(side) for side in zip(*seconds, strict=True)]
        print(
            f"{title} time: indexing {rates[0]:.0f} images/s, only decoding {rates[1]:.0f}; "
            f"share {median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}), goal {GOAL}"
        )


if __name__ == "__main__":
    main()
