"""Random minibatches from a pixel store on disk."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Row, compare
from brnf.store.pixels import PixelBatch, PixelRows, PixelStore, write_pixels

__all__ = ["FULL", "TINY", "Size", "measure"]

CLASSES = 21


@dataclass(frozen=True)
class Size:
    """What is measured: every row once by this project, ``reference_batches`` batches by the reference."""

    images: int = 400
    rows_of_image: int = 750
    dimension: int = 768
    batch_rows: int = 2_048
    reference_batches: int = 2


FULL = Size()
TINY = Size(5, 100, 8, 64, 1)


def measure(size: Size, repeats: int) -> list[Row]:
    """Compare mixed blocks with rows picked one by one, both from the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        store, plain = Path(folder) / "store.h5", Path(folder) / "plain.h5"
        _write(size, store, plain)
        pixels = PixelStore([store])
        _assert_equal(pixels, plain, size.batch_rows)
        with h5py.File(plain, "r") as file:
            total = len(pixels)
            share = min(1.0, size.reference_batches * size.batch_rows / total)
            row = compare(
                "pixel-store minibatches",
                f"{total:,} × {size.dimension} float16, batches of {size.batch_rows:,}",
                lambda: [len(batch) for batch in pixels.shuffled_batches(size.batch_rows, 0, epochs=1)],
                lambda: [len(rows) for rows in islice(_picked_rows(file["feature"], size.batch_rows, 0), size.reference_batches)],
                repeats,
                reference_share=share,
                limit="reading the file in order",
                bound=_read_in_order(store),
                ratio=30,
            )
    return [row]


def _write(size: Size, store: Path, plain: Path) -> None:
    """Write the same features as a pixel store and as one plain dataset."""
    random = np.random.default_rng(0)
    count = size.rows_of_image
    present = np.ones(CLASSES, np.bool_)
    with write_pixels(store, size.dimension, CLASSES) as writer, h5py.File(plain, "w") as file:
        everything = file.create_dataset("feature", (size.images * count, size.dimension), np.float16)
        for image in range(size.images):
            feature = random.standard_normal((count, size.dimension), np.float32).astype(np.float16)
            score, label = random.random((2, count)), random.integers(1, CLASSES, count)
            position = np.arange(count)
            writer.append(PixelRows(f"{image:06d}", (1, count), present, feature, score[0], score[1], label, position))
            everything[image * count : (image + 1) * count] = feature


def _picked_rows(dataset: h5py.Dataset, batch_rows: int, seed: int) -> Iterator[NDArray[np.float16]]:
    """Yield batches of a random permutation, each by one read of its sorted rows."""
    permutation = np.random.default_rng(seed).permutation(len(dataset))
    for start in range(0, len(permutation), batch_rows):
        yield dataset[np.sort(permutation[start : start + batch_rows])]


def _read_in_order(path: Path) -> Callable[[], int]:
    """Return a reader of the file's bytes."""
    buffer = memoryview(bytearray(8 * 2**20))

    def run() -> int:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return sum(iter(lambda: file.readinto(buffer), 0))

    return run


def _assert_equal(pixels: PixelStore, plain: Path, batch_rows: int) -> None:
    """Assert that an epoch holds every row once, to the bit, and hardly any next to its neighbour in the file."""
    found = PixelBatch.join(list(pixels.shuffled_batches(batch_rows, 0, epochs=1)))
    assert np.array_equal(np.sort(found.row), np.arange(len(pixels)))
    assert np.mean(np.diff(found.row) == 1) < 0.05
    with h5py.File(plain, "r") as file:
        assert np.array_equal(found.feature[np.argsort(found.row)], file["feature"][()])
