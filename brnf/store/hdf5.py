"""HDF5 files that are checked before they are believed, and written so that a full disk is
survived: what both stores share.

The writers use the format of HDF5 1.10, whose structures carry checksums: a damaged file is told by
them, where the library would otherwise follow damaged addresses, until it crashes. What they
describe is still compared with the size of the file before any memory is taken, and nothing outside
of the file is ever followed.
"""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import h5py

from brnf.errors import DamagedProduct, UserError
from brnf.store.files import atomic_file

__all__ = ["FORMAT", "Disk", "apart", "bounded", "child", "open_shard", "write_shard"]

T = TypeVar("T")
FORMAT = ("v110", "v110")
"""Of ``h5py.File``'s ``libver``."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"
LEAST_SUPERBLOCK = 2
"""Version of the first one with a checksum."""
LARGEST_RATIO = 1050
"""No more than this does gzip compress: it writes 2 bits for at most 258 bytes."""


class Disk(io.RawIOBase):
    """A new file that HDF5 writes to without ever meeting an error.

    The library does not survive a write that fails: what it could not write it tries again with
    every object that is closed, each time with a complaint on the standard error, until it crashes.
    So the first error is kept for :meth:`check`, and what comes after it is thrown away.

    Arguments:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error of writing, if there was one."""
        if self._error is not None:
            raise self._error

    def write(self, content: Any) -> int:
        """Write all bytes of a buffer, or note why that failed."""
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while self._error is None and len(left):
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return size

    def readinto(self, content: Any) -> int:
        """Read bytes; what was thrown away is read as zeros."""
        size = self._file.readinto(content)
        memoryview(content).cast("B")[size:] = bytes(len(memoryview(content).cast("B")) - size)
        return len(memoryview(content).cast("B"))

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file."""
        return self._file.seek(place, whence)

    def truncate(self, size: int | None = None) -> int:
        """Give the file a size, or note why that failed."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return self._file.tell() if size is None else size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def write_shard(path: Path) -> Iterator[tuple[h5py.File, Disk]]:
    """Open an HDF5 file for writing; it appears when the block ends without an error.

    Yields:
        The file, and its disk to check after each step.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    with atomic_file(path) as temporary, Disk(temporary) as disk:
        with h5py.File(disk, "w", libver=FORMAT) as file:
            yield file, disk
        disk.check()


def apart(call: Callable[..., T], *arguments: Any) -> T:
    """Call what works with HDF5 in a thread, and return what it returns.

    The library keeps small pieces of every object until its file is closed. Between a network's
    tensors each keeps the place of one from being used again, 1 to 3 MiB an image; the C library
    gives a thread a part of the memory of its own.
    """
    return _thread(os.getpid()).submit(call, *arguments).result()


@cache
def _thread(process: int) -> Executor:
    """Return this process's thread: that of its parent does not live here."""
    return ThreadPoolExecutor(1, "HDF5")


def open_shard(path: Path, stage: str) -> h5py.File:
    """Open an HDF5 file for reading.

    Arguments:
        path: the file.
        stage: that writes it.

    Raises:
        UserError: it is missing.
        DamagedProduct: it is damaged or of a format without checksums.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE) + 1)
        if (
            not start.startswith(SIGNATURE)
            or start[-1] < LEAST_SUPERBLOCK
            or len(start) == len(SIGNATURE)
        ):
            raise OSError("no HDF5 file, or one of an older version")
        # Finished files do not change, and not every file system has locks.
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run {stage} first") from error
    except Exception as error:  # h5py reports damage with many kinds of exceptions
        raise DamagedProduct(path, f"damaged HDF5 file ({_shortened(error)})", stage) from error


def child(group: h5py.Group, name: str, kind: type[Any]) -> Any:
    """Return a member of a group that lies in the same file.

    Raises:
        KeyError: there is none, it is a link, or of another kind.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(
        found := group[name], kind
    ):
        raise KeyError(f"no {kind.__name__.lower()} '{name}'")
    return found


def bounded(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return a dataset whose values are all in its file, so that reading it takes memory in
    proportion to the file.

    Raises:
        ValueError: it is larger than what is stored of it, or lies in other files.
    """
    if dataset.is_virtual or dataset.external is not None:
        raise ValueError("values in another file")
    ratio = 1 if dataset.compression is None else LARGEST_RATIO
    stored = min(dataset.id.get_storage_size(), Path(dataset.file.filename).stat().st_size)
    if dataset.nbytes > ratio * stored:
        raise ValueError(f"shape {dataset.shape} of which only {stored} bytes are stored")
    return dataset


def _shortened(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
