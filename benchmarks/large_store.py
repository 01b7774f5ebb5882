"""The pixel store at 10 million rows of 768 features (15 GB): ``make scale-store``.

Appending, one shuffled epoch and steps of the flow's training, each in a process of its own. Every
phase tells its rate over its first and
its last fifth: neither the length of a file nor what was read before may slow it down, and no
    memory may grow with the rows. The fifths of
appending are compared by the processor time outside of the kernel: the kernel's own, for pages that
keep what is written, moves by a factor of ten on a virtual machine, with a plain file as well.
"""

import argparse
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.harness import aligned, machine
from brnf.config.sections.flow import FlowArchitecture, FlowTraining
from brnf.engine.memory import peak_memory
from brnf.errors import UserError
from brnf.flow.density import FlowDensity, RunningMoments
from brnf.flow.labels import three_way_labels
from brnf.flow.training import FlowTrainer
from brnf.store.pixels import PixelRows, PixelStore, write_pixels

__all__ = ["FULL", "TINY", "Phase", "Size", "measure", "shown"]

CLASSES = 21
GIGABYTE, MEBIBYTE = 1e9, 2**20
RESERVE = 1.1
"""Disk that must be free, over what the features take."""
MEMORY_GOAL, RATE_GOAL = 2048, 0.85
"""Most resident MiB of a phase; rate of the last fifth over that of the first."""


@dataclass(frozen=True)
class Size:
    """What is measured."""

    images: int = 13_334
    rows_of_image: int = 750
    dimension: int = 768
    batch_rows: int = 20_480
    steps: int = 20
    """Of the flow's training; as many batches are read."""

    @property
    def rows(self) -> int:
        """Return the rows of the store."""
        return self.images * self.rows_of_image


FULL = Size()
EVEN_BATCHES = 16
"""Batches of the full size that take five whole pools: single ones read a pool or do not, so their
times are not one another's like.
"""
TINY = Size(20, 50, 8, 64, 10)


@dataclass(frozen=True)
class Phase:
    """What one phase took.

    Attributes:
        name: of the phase.
        rows: that it went through.
        seconds: wall time of all.
        pieces: time of each of its pieces of equal length, by which fifths are compared.
        peak: most resident memory of its process, MiB.
    """

    name: str
    rows: int
    seconds: float
    pieces: tuple[float, ...]
    peak: float

    def rate_kept(self) -> float:
        """Return the rate of the last fifth over that of the first, by their median pieces; NaN
        where these are too short for the clock.
        """
        fifth = max(1, len(self.pieces) // 5)
        first, last = median(self.pieces[:fifth]), median(self.pieces[-fifth:])
        return first / last if last else math.nan

    def cells(self) -> tuple[str, ...]:
        """Return the columns of the table as text."""
        kept = self.rate_kept()
        met = kept >= RATE_GOAL and self.peak < MEMORY_GOAL
        return (
            self.name,
            f"{self.rows:,}",
            f"{self.seconds:.1f}",
            f"{self.rows / self.seconds:,.0f}",
            f"{kept:.2f}",
            f"{self.peak:.0f}",
            "yes" if met else "NO",
        )


def shown(phases: list[Phase]) -> str:
    """Return the table of the phases in Markdown."""
    heading = (
        "phase",
        "rows",
        "seconds",
        "rows a second",
        f"last fifth / first (≥ {RATE_GOAL:g})",
        f"peak, MiB (< {MEMORY_GOAL})",
        "met",
    )
    return "\n".join(aligned([heading, *(phase.cells() for phase in phases)]))


def measure(size: Size, folder: Path) -> list[Phase]:
    """Write the store into a folder, read it and train on it.

    Raises:
        UserError: the disk is too small.
    """
    needed, free = RESERVE * 2 * size.rows * size.dimension, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the store takes {needed / GIGABYTE:.1f} GB, {free / GIGABYTE:.1f} are "
            "free; choose another --folder"
        )
    path = folder / "store.h5"
    return [_alone(phase, size, path) for phase in (_append, _read, _train)]


def _alone(phase: Callable[[Size, Path], Phase], size: Size, path: Path) -> Phase:
    """Run a phase in a new process, whose peak memory is nobody else's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(phase, size, path).result()


def _append(size: Size, path: Path) -> Phase:
    """Write the rows image by image."""
    random = np.random.default_rng(0)
    count = size.rows_of_image
    features = random.standard_normal((16, count, size.dimension), np.float32).astype(np.float16)
    present, position = np.ones(CLASSES, np.bool_), np.arange(count)
    clock = _Clock(
        max(1, size.images // 100), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_utime
    )
    with write_pixels(path, size.dimension, CLASSES) as writer:
        for image in range(size.images):
            score, label = random.random((2, count)), random.integers(1, CLASSES, count)
            feature = features[image % len(features)]
            writer.append(
                PixelRows(
                    f"{image:06d}",
                    (1, count),
                    present,
                    feature,
                    score[0],
                    score[1],
                    label,
                    position,
                )
            )
            clock.tick()
    return Phase("append", size.rows, *clock.times(), peak_memory() / MEBIBYTE)


def _read(size: Size, path: Path) -> Phase:
    """Read one shuffled epoch."""
    os.sync()  # what of the rows is still on its way to the disk would slow down the beginning
    clock, rows = _Clock(EVEN_BATCHES), 0
    for batch in PixelStore([path]).shuffled_batches(size.batch_rows, 0, epochs=1):
        rows += len(batch)
        clock.tick()
    assert rows == size.rows
    return Phase("shuffled epoch", rows, *clock.times(), peak_memory() / MEBIBYTE)


def _train(size: Size, path: Path) -> Phase:
    """Train a flow on batches of the store."""
    store = PixelStore([path])
    flow = FlowDensity(store.dimension, store.classes, FlowArchitecture())
    moments = RunningMoments(store.dimension)
    for block in islice(store.blocks(), 4):
        moments.update(torch.from_numpy(block.feature).float())
    flow.fit_standardisation(moments.mean, moments.std())
    trainer = FlowTrainer(flow, FlowTraining(steps=size.steps), None)
    clock = _Clock(1)
    for batch in islice(_labelled(store, size.batch_rows), size.steps):
        trainer.step(batch)
        clock.tick()
    return Phase(
        "flow training, with reading",
        size.steps * size.batch_rows,
        *clock.times(),
        peak_memory() / MEBIBYTE,
    )


def _labelled(store: PixelStore, batch_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in store.shuffled_batches(batch_rows, 0):
        targets = three_way_labels(
            torch.from_numpy(batch.score), torch.from_numpy(batch.label), 0.3, 0.7
        )
        yield torch.from_numpy(batch.feature), targets


class _Clock:
    """Take the wall time of all, and the time of every so many ticks by a clock of choice."""

    def __init__(self, every: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every, self._clock, self._ticks = every, clock, 0
        self._begin, self._times = time.perf_counter(), [clock()]

    def tick(self) -> None:
        self._ticks += 1
        if self._ticks % self._every == 0:
            self._times.append(self._clock())

    def times(self) -> tuple[float, tuple[float, ...]]:
        """Return the wall time of all until now, and the time of each whole piece."""
        return time.perf_counter() - self._begin, tuple(
            float(value) for value in np.diff(self._times)
        )


def main() -> None:
    """Measure in a temporary folder and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        try:
            phases = measure(FULL, Path(name))
        except UserError as error:
            sys.exit(f"error: {error}")
    print(f"{machine()}\nstore: {FULL.rows:,} rows of {FULL.dimension} features\n\n{shown(phases)}")


if __name__ == "__main__":
    main()
