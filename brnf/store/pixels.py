"""The pixel store: one row of HDF5 for every grid position of every image (docs/method.md section
4).

Rows lie as the images were appended; a reader of several shards puts the images into the order of
their ids, so that nothing downstream depends on how many shards there are.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from brnf.errors import DamagedProduct, UserError
from brnf.store.hdf5 import open_shard
from brnf.store.pixel_header import STAGE, read_header
from brnf.store.pixel_rows import (
    BLOCK,
    PixelBatch,
    PixelRows,
    PixelWriter,
    columns_of,
    write_pixels,
)

__all__ = [
    "BLOCK",
    "PixelBatch",
    "PixelRows",
    "PixelStore",
    "PixelWriter",
    "hold_out",
    "write_pixels",
]

POOL = 16
"""Blocks that are mixed in memory."""


def hold_out(images: Sequence[str], share: float) -> frozenset[str]:
    """Choose images to hold out: those with the smallest hash of their id.

    Arguments:
        images: ids.
        share: of the images, 0..1; when positive at least one image is held out and one is left.
    """
    if share <= 0 or len(images) < 2:
        return frozenset()
    count = min(max(1, round(share * len(images))), len(images) - 1)
    return frozenset(
        sorted(
            images, key=lambda image: (hashlib.sha256(f"held out {image}".encode()).digest(), image)
        )[:count]
    )


@dataclass(frozen=True)
class _Order:
    """Chosen images one after another: ``start[i]`` is the first row of ``images[i]`` among the
    chosen rows.
    """

    images: NDArray[np.int64]
    start: NDArray[np.int64]

    @property
    def rows(self) -> int:
        return int(self.start[-1])


class PixelStore:
    """Read the rows of all shards of a split.

    Files are opened on first use, once per process.

    Arguments:
        paths: shards written by :func:`write_pixels`, in any order.

    Raises:
        UserError: a shard is missing, damaged, does not fit the others or repeats an image.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._files: dict[Path, h5py.File] = {}
        self._columns: dict[tuple[Path, str], h5py.Dataset] = {}
        shards = [read_header(path) for path in self.paths]
        if not shards:
            raise ValueError("no shard is given")
        for path, shard in zip(self.paths, shards, strict=True):
            if (shard.dimension, shard.classes) != (shards[0].dimension, shards[0].classes):
                raise UserError(
                    f"{path}: its features or classes do not fit those of {self.paths[0]}; remove "
                    "both and run store_pixels again"
                )
        self.dimension, self.classes = shards[0].dimension, shards[0].classes
        self._kinds = columns_of(self.classes)
        entries = sorted(
            (image, number, i)
            for number, shard in enumerate(shards)
            for i, image in enumerate(shard.images)
        )
        self.images: tuple[str, ...] = tuple(image for image, _, _ in entries)
        for (image, number, _), (following, _, _) in pairwise(entries):
            if image == following:
                raise UserError(
                    f"{self.paths[number]}: image {image} is stored twice; remove the shards and "
                    "run store_pixels again"
                )
        counts = [np.diff(shard.offset) for shard in shards]
        places = [(number, i) for _, number, i in entries]
        self._shard = np.array([number for number, _ in places], np.int64)
        self._begin = np.array([shards[number].offset[i] for number, i in places], np.int64)
        self._count = np.array([counts[number][i] for number, i in places], np.int64)
        self._start = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._count)])
        self.grid: NDArray[np.int32] = np.array(
            [shards[number].grid[i] for number, i in places], np.int32
        ).reshape(-1, 2)
        present = np.array([shards[number].present[i] for number, i in places], np.bool_)
        self.present: NDArray[np.bool_] = present.reshape(-1, self.classes)
        self._index = {image: i for i, image in enumerate(self.images)}

    def __len__(self) -> int:
        return int(self._start[-1])

    def __contains__(self, image: str) -> bool:
        return image in self._index

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}, "_columns": {}}

    def image_rows(self, image: str) -> PixelRows:
        """Return all rows of one image.

        Raises:
            UserError: the image is not in the store or its rows are damaged.
        """
        if image not in self._index:
            raise UserError(
                f"{image}: no pixels of this image in {', '.join(map(str, self.paths))}; run "
                "store_pixels again"
            )
        index = self._index[image]
        path, begin, count = self.paths[self._shard[index]], self._begin[index], self._count[index]
        names = [name for name in self._kinds if name != "image"]
        columns = {
            name: self._read(
                path, name, begin, np.empty((count, *self._width(name)), self._kinds[name])
            )
            for name in names
        }
        height, width = (int(side) for side in self.grid[index])
        if (
            count
            and not 0 <= columns["position"].min() <= columns["position"].max() < height * width
        ):
            raise DamagedProduct(path, f"positions of {image} lie outside of its grid", STAGE)
        if not np.isfinite(columns["feature"]).all():
            raise _not_finite(path, "feature")
        return PixelRows(image, (height, width), self.present[index], **columns)

    def blocks(
        self, keep: Callable[[str], bool] | None = None, rows: int = BLOCK
    ) -> Iterator[PixelBatch]:
        """Go once through the rows in the order of the images' ids, a block at a time.

        Arguments:
            keep: which images to read, all by default.
            rows: of a block; the last one may be shorter.

        Raises:
            UserError: a value is not finite or damaged.
        """
        order = self._order(keep)
        for begin in range(0, order.rows, rows):
            batch = self._gather(order, [(begin, min(begin + rows, order.rows))])
            if not np.isfinite(batch.feature).all():
                image = batch.image[~np.isfinite(batch.feature).all(1)][0]
                raise _not_finite(self.paths[self._shard[image]], "feature")
            yield batch

    def shuffled_batches(
        self,
        batch_rows: int,
        seed: int,
        keep: Callable[[str], bool] | None = None,
        epochs: int | None = None,
        done: int = 0,
    ) -> Iterator[PixelBatch]:
        """Draw random rows, each once an epoch, whatever the number of shards.

        Pools of 16 random blocks of 4,096 neighbouring rows are read and permuted in memory.

        Arguments:
            batch_rows: rows of a batch; fewer when the store has fewer, and in the last batch of
                the last epoch.
            seed: of the order.
            keep: which images to draw from, all by default.
            epochs: how often each row comes; None never ends, and its batches run on from one epoch
                into the next.
            done: batches to leave out at the start; pools that held only these are not read.

        Raises:
            ValueError: no row is left to draw.
        """
        order = self._order(keep)
        if order.rows == 0:
            raise ValueError("no row to draw from")
        batch_rows = min(batch_rows, order.rows)
        pending: list[PixelBatch] = []
        waiting = 0
        for pool, permutation in self._pools(order, seed, epochs, done * batch_rows):
            position = 0
            while position < len(permutation):
                taken = permutation[position : position + batch_rows - waiting]
                pending.append(pool.take(taken))
                waiting += len(taken)
                position += len(taken)
                if waiting == batch_rows:
                    yield PixelBatch.join(pending)
                    pending, waiting = [], 0
            del (
                pool
            )  # before the next one is read: one pool at a time is all the memory that this takes
        if pending:
            yield PixelBatch.join(pending)

    def _pools(
        self, order: _Order, seed: int, epochs: int | None, done: int
    ) -> Iterator[tuple[PixelBatch, NDArray[np.int64]]]:
        """Yield pools of random blocks, each with a permutation of its rows, from row ``done`` of
        the stream on.
        """
        epoch, done = divmod(done, order.rows)
        while epochs is None or epoch < epochs:
            random = np.random.default_rng([seed, epoch])
            starts = random.permutation(np.arange(0, order.rows, BLOCK))
            for first in range(0, len(starts), POOL):
                spans = [
                    (int(start), min(int(start) + BLOCK, order.rows))
                    for start in starts[first : first + POOL]
                ]
                permutation = random.permutation(sum(end - begin for begin, end in spans))
                if done < len(permutation):
                    yield self._gather(order, spans), permutation[done:]
                done = max(0, done - len(permutation))
            epoch += 1

    def _order(self, keep: Callable[[str], bool] | None) -> _Order:
        chosen = np.array(
            [i for i, image in enumerate(self.images) if keep is None or keep(image)], np.int64
        )
        return _Order(
            chosen, np.concatenate([np.zeros(1, np.int64), np.cumsum(self._count[chosen])])
        )

    def _gather(self, order: _Order, spans: Sequence[tuple[int, int]]) -> PixelBatch:
        """Read spans of rows of ``order`` into one batch, neighbours in a file with one read."""
        total = sum(end - begin for begin, end in spans)
        batch = PixelBatch(
            np.empty(total, np.int64),
            np.empty(total, np.int32),
            *(
                np.empty((total, *self._width(name)), self._kinds[name])
                for name in ("feature", "score", "background", "label")
            ),
        )
        filled = 0
        for begin, end in spans:
            for shard, source, count in self._runs(order, begin, end, batch, filled):
                for name in ("feature", "score", "background", "label"):
                    self._read(
                        self.paths[shard],
                        name,
                        source,
                        getattr(batch, name)[filled : filled + count],
                    )
                filled += count
        return batch

    def _runs(
        self, order: _Order, begin: int, end: int, batch: PixelBatch, filled: int
    ) -> list[tuple[int, int, int]]:
        """Cut rows ``begin..end`` of ``order`` into runs (shard, first row in the file, rows) and
        note whose rows they are.
        """
        runs: list[tuple[int, int, int]] = []
        first = int(np.searchsorted(order.start, begin, side="right")) - 1
        last = int(np.searchsorted(order.start, end, side="left"))
        for place in range(first, last):
            image = order.images[place]
            low, high = max(begin, int(order.start[place])), min(end, int(order.start[place + 1]))
            if high <= low:
                continue
            inside = low - int(order.start[place])
            batch.row[filled : filled + high - low] = (
                self._start[image] + inside + np.arange(high - low)
            )
            batch.image[filled : filled + high - low] = image
            filled += high - low
            shard, source = int(self._shard[image]), int(self._begin[image]) + inside
            if runs and runs[-1][0] == shard and runs[-1][1] + runs[-1][2] == source:
                runs[-1] = (shard, runs[-1][1], runs[-1][2] + high - low)
            else:
                runs.append((shard, source, high - low))
        return runs

    def _width(self, name: str) -> tuple[int, ...]:
        return (self.dimension,) if name == "feature" else ()

    def _read(self, path: Path, name: str, begin: int, into: NDArray[Any]) -> NDArray[Any]:
        """Fill ``into`` with the rows of one column from ``begin`` on."""
        if path not in self._files:
            self._files[path] = open_shard(path, STAGE)
        try:
            if (
                (path, name) not in self._columns
            ):  # looking a column up takes as long as reading an image's rows of it
                self._columns[path, name] = self._files[path][name]
            if len(into):
                self._columns[path, name].read_direct(
                    into, np.s_[int(begin) : int(begin) + len(into)]
                )
        except Exception as error:  # h5py reports damage with many kinds of exceptions
            raise DamagedProduct(path, f"its column {name} is damaged ({error})", STAGE) from error
        if name == "label" and len(into) and into.max() >= self.classes:
            raise DamagedProduct(
                path, f"holds class {into.max()}, but knows {self.classes} classes only", STAGE
            )
        # Features are looked at where rows come in order: too slow for random draws, and each of
        # these follows a pass in order.
        if name in ("score", "background") and not np.isfinite(into).all():
            raise _not_finite(path, name)
        return into


def _not_finite(path: Path, column: str) -> DamagedProduct:
    return DamagedProduct(path, f"its column {column} holds values that are not finite", STAGE)
