"""Rows of the pixel store: what they hold, and how they are written (docs/method.md section 4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from brnf.errors import UserError
from brnf.store.hdf5 import Disk, write_shard
from brnf.store.label_type import Labels, label_type

__all__ = [
    "BLOCK",
    "COLUMNS",
    "PixelBatch",
    "PixelRows",
    "PixelWriter",
    "columns_of",
    "write_pixels",
]

BLOCK = 4096
"""Rows of a chunk, and of a block that is read at once."""
HALF_MAXIMUM = float(np.finfo(np.float16).max)
COLUMNS: dict[str, Any] = {
    "feature": np.float16,
    "score": np.float16,
    "background": np.float16,
    "label": np.uint8,  # columns_of may say otherwise
    "image": np.int32,
    "position": np.int32,
}


def columns_of(classes: int) -> dict[str, Any]:
    """Return the columns of a store and their types.

    Arguments:
        classes: K = C + 1, with the background.
    """
    return {**COLUMNS, "label": label_type(classes - 1)}


@dataclass(frozen=True)
class PixelRows:
    """All rows of one image.

    Attributes:
        image: its id.
        grid: rows and columns of the feature grid.
        present: [K] bool, the image's labels; the background (index 0) is always true.
        feature: [n, D] features (float16 when read; any float when written).
        score: [n] largest foreground value of the map.
        background: [n] the map's own background value.
        label: [n] class 1..C of the score.
        position: [n] row * columns + column on the grid.
    """

    image: str
    grid: tuple[int, int]
    present: NDArray[np.bool_]
    feature: NDArray[np.floating]
    score: NDArray[np.floating]
    background: NDArray[np.floating]
    label: NDArray[np.integer]
    position: NDArray[np.integer]


@dataclass(frozen=True)
class PixelBatch:
    """Rows of several images.

    Attributes:
        row: [B] int64, index into the rows of all images in the order of their ids.
        image: [B] int32, index into :attr:`PixelStore.images`.
        feature: [B, D] float16.
        score: [B] float16.
        background: [B] float16.
        label: [B], in the type of so many classes.
    """

    row: NDArray[np.int64]
    image: NDArray[np.int32]
    feature: NDArray[np.float16]
    score: NDArray[np.float16]
    background: NDArray[np.float16]
    label: Labels

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: NDArray[np.integer]) -> "PixelBatch":
        """Return the rows at ``index``, in that order."""
        return PixelBatch(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence["PixelBatch"]) -> "PixelBatch":
        """Return the rows of all parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        return PixelBatch(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(PixelBatch)
            )
        )


class PixelWriter:
    """Append images to an open HDF5 file; made by :func:`write_pixels`."""

    def __init__(self, file: h5py.File, disk: Disk, dimension: int, classes: int) -> None:
        self._file, self._disk, self._dimension, self._classes = file, disk, dimension, classes
        self._columns = columns_of(classes)
        self._images: list[str] = []
        self._grid: list[tuple[int, int]] = []
        self._present: list[NDArray[np.bool_]] = []
        self._offset = [0]
        self._waiting: list[dict[str, NDArray[Any]]] = []
        self._waiting_rows = 0

    def append(self, rows: PixelRows) -> None:
        """Append one image.

        Arguments:
            rows: its rows; the floats are stored as float16.

        Raises:
            UserError: a value is not finite or does not fit float16.
        """
        count = len(rows.position)
        shapes = {
            "feature": (count, self._dimension),
            "score": (count,),
            "background": (count,),
            "label": (count,),
        }
        for name, shape in shapes.items():
            if getattr(rows, name).shape != shape:
                raise ValueError(
                    f"{rows.image}: {name} has shape {getattr(rows, name).shape}, not {shape}"
                )
        if rows.present.shape != (self._classes,) or not rows.present[0]:
            raise ValueError(
                f"{rows.image}: present must be [{self._classes}] with the background true"
            )
        for name in ("feature", "score", "background"):
            values = getattr(rows, name)
            # NaN fails the comparison too.
            if count and not np.abs(values).max() <= HALF_MAXIMUM:
                raise UserError(
                    f"{rows.image}: its {name} values are not finite or exceed float16; the "
                    "network has diverged, lower its learning rate"
                )
        columns = {
            name: np.asarray(getattr(rows, name), dtype=kind)
            for name, kind in self._columns.items()
            if name != "image"
        }
        columns["image"] = np.full(count, len(self._images), np.int32)
        self._images.append(rows.image)
        self._grid.append(rows.grid)
        self._present.append(rows.present)
        self._offset.append(self._offset[-1] + count)
        self._waiting.append(columns)
        self._waiting_rows += count
        if self._waiting_rows >= BLOCK:
            self._flush(whole_chunks=True)

    def _flush(self, whole_chunks: bool) -> None:
        """Write waiting rows; only whole chunks while images still come, so that each chunk is
        written once.
        """
        joined = (
            {name: np.concatenate([columns[name] for columns in self._waiting]) for name in COLUMNS}
            if self._waiting
            else self._no_rows()
        )
        rows = (
            self._waiting_rows - self._waiting_rows % BLOCK if whole_chunks else self._waiting_rows
        )
        for name, values in joined.items():
            if name not in self._file:
                chunk = (max(1, min(len(values), BLOCK)), *values.shape[1:])
                self._file.create_dataset(
                    name,
                    shape=(0, *values.shape[1:]),
                    maxshape=(None, *values.shape[1:]),
                    dtype=values.dtype,
                    chunks=chunk,
                )
            dataset = self._file[name]
            begin = dataset.shape[0]
            dataset.resize(begin + rows, axis=0)
            dataset[begin:] = values[:rows]
        self._waiting = [{name: values[rows:] for name, values in joined.items()}]
        self._waiting_rows -= rows
        self._disk.check()

    def _no_rows(self) -> dict[str, NDArray[Any]]:
        return {
            name: np.zeros((0, self._dimension) if name == "feature" else 0, kind)
            for name, kind in self._columns.items()
        }

    def finish(self) -> None:
        """Write the last rows and what is known of the images."""
        self._flush(whole_chunks=False)
        names = [image.encode() for image in self._images]
        self._file["images"] = np.array(names, dtype=f"S{max(map(len, names), default=1)}")
        self._file["grid"] = np.array(self._grid, np.int32).reshape(-1, 2)
        self._file["offset"] = np.array(self._offset, np.int64)
        self._file["present"] = np.array(self._present, np.bool_).reshape(-1, self._classes)
        self._file.attrs["dimension"] = self._dimension
        self._file.attrs["classes"] = self._classes


@contextmanager
def write_pixels(path: Path, dimension: int, classes: int) -> Iterator[PixelWriter]:
    """Open a shard for writing; the file appears when the block ends without an error.

    Arguments:
        path: the shard.
        dimension: D, width of a feature.
        classes: K = C + 1, with the background.
    """
    with write_shard(path) as (file, disk):
        writer = PixelWriter(file, disk, dimension, classes)
        yield writer
        writer.finish()
