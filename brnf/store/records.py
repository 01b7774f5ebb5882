"""Records of one layout on the disk, read by position.

A memory map would do the same, but what is read of it counts as memory of the process, up to the
size of the file.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Records", "write_records"]


def write_records(path: Path, records: int, blocks: Iterable[NDArray[Any]]) -> None:
    """Write records one block after the other, as a file that ``numpy.load`` reads, too.

    Arguments:
        path: the file.
        records: how many all blocks hold.
        blocks: arrays [n, ...] of the same dtype, plain or structured, and of the same shape behind
            the first axis.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    with path.open("wb") as file:
        for block in blocks:
            if not file.tell():
                layout = {
                    "descr": np.lib.format.dtype_to_descr(block.dtype),
                    "fortran_order": False,
                    "shape": (records, *block.shape[1:]),
                }
                np.lib.format.write_array_header_1_0(file, layout)
            file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


class Records:
    """Read records by their positions.

    Arguments:
        path: a file of :func:`write_records`.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        np.lib.format.read_magic(self._file)
        shape, _, self.dtype = np.lib.format.read_array_header_1_0(self._file)
        self._start, self._length, self._shape = self._file.tell(), shape[0], shape[1:]
        self._size = self.dtype.itemsize * math.prod(self._shape)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, positions: NDArray[np.integer]) -> NDArray[Any]:
        """Return the records at these positions, [n, ...], in memory of their own."""
        found = np.empty((len(positions), *self._shape), self.dtype)
        for row, position in zip(
            found.reshape(-1).view(np.uint8).reshape(-1, self._size), positions, strict=True
        ):
            self._file.seek(self._start + int(position) * self._size)
            if self._file.readinto(row.data) != self._size:
                raise EOFError(f"{self._file.name}: ends before record {position}")
        return found
