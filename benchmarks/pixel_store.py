"""Random minibatches from a pixel store on disk."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Repeats, Row, compare
from brnf.store.pixels import PixelBatch, PixelRows, PixelStore, write_pixels

__all__ = ["FULL", "TINY", "Size", "measure"]

CLASSES = 21


@dataclass(frozen=True)
class Size:
    """What is measured: every row once by this project, one batch by the reference."""

    images: int = 400
    rows_of_image: int = 750
    dimension: int = 768
    batch_rows: int = 20_480


FULL = Size()
TINY = Size(5, 100, 8, 64)


def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare mixed blocks with rows picked one by one, all from the page cache.

    Rows come image by image, so that their number is not known when the file is begun: the
    reference lets h5py choose the chunks of a dataset that grows. A second line, without a goal,
    grants it one piece of known size.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.h5"
        plain = {
            "growing dataset": Path(folder) / "growing.h5",
            "one piece": Path(folder) / "piece.h5",
        }
        _write(size, store, *plain.values())
        pixels = PixelStore([store])
        _assert_equal(pixels, plain["one piece"], size.batch_rows)
        return [_compare(size, pixels, store, path, name, repeats) for name, path in plain.items()]


def _compare(
    size: Size, pixels: PixelStore, store: Path, plain: Path, name: str, repeats: Repeats
) -> Row:
    with h5py.File(plain, "r") as file:
        return compare(
            "pixel-store minibatches",
            f"{len(pixels):,} × {size.dimension} float16, batches of {size.batch_rows:,}; "
            f"reference: {name}",
            lambda: [len(batch) for batch in pixels.shuffled_batches(size.batch_rows, 0, epochs=1)],
            lambda: len(next(_picked_rows(file["feature"], size.batch_rows, 0))),
            repeats,
            reference_share=min(1.0, size.batch_rows / len(pixels)),
            limit="reading the file in order",
            bound=_read_in_order(store),
            ratio=30 if name == "growing dataset" else None,
        )


def _write(size: Size, store: Path, growing: Path, piece: Path) -> None:
    """Write features as a pixel store, a growing dataset, and one of known size."""
    random = np.random.default_rng(0)
    count, total = size.rows_of_image, size.images * size.rows_of_image
    present = np.ones(CLASSES, np.bool_)
    with (
        write_pixels(store, size.dimension, CLASSES) as writer,
        h5py.File(growing, "w") as first,
        h5py.File(piece, "w") as second,
    ):
        grown = first.create_dataset(
            "feature", (0, size.dimension), np.float16, maxshape=(None, size.dimension), chunks=True
        )
        known = second.create_dataset("feature", (total, size.dimension), np.float16)
        for image in range(size.images):
            feature = random.standard_normal((count, size.dimension), np.float32).astype(np.float16)
            score, label = random.random((2, count)), random.integers(1, CLASSES, count)
            writer.append(
                PixelRows(
                    f"{image:06d}",
                    (1, count),
                    present,
                    feature,
                    score[0],
                    score[1],
                    label,
                    np.arange(count),
                )
            )
            grown.resize((image + 1) * count, 0)
            grown[-count:] = known[image * count : (image + 1) * count] = feature


def _picked_rows(
    dataset: h5py.Dataset, batch_rows: int, seed: int
) -> Iterator[NDArray[np.float16]]:
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
    """Assert that an epoch holds every row once, to the bit, and hardly any next to its neighbour
    in the file.
    """
    found = PixelBatch.join(list(pixels.shuffled_batches(batch_rows, 0, epochs=1)))
    assert np.array_equal(np.sort(found.row), np.arange(len(pixels)))
    assert np.mean(np.diff(found.row) == 1) < 0.05
    with h5py.File(plain, "r") as file:
        assert np.array_equal(found.feature[np.argsort(found.row)], file["feature"][()])
