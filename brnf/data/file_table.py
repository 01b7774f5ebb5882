"""Tables of files as they were seen: a row a file, found by its path without holding the table in
memory.

A data set may have millions of files. A table is written from its first row to its last, so that
one whose writer was killed ends in the middle of a row and is valid up to there.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from brnf.cache import FileState

__all__ = ["MISSING", "KnownFiles", "Seen", "TableWriter", "read_table"]

COLUMNS = ("path", "size", "modified", "changed", "inode", "digest", "decoded", "header")
WITHOUT_HEADER = COLUMNS[:-1]
EARLIER = ("path", "size", "modified", "digest", "decoded")
"""Columns of before, from which no file is known but by its digest."""
ENCODING, ERRORS = "utf-8", "surrogateescape"
FOREIGN = (OSError, ValueError, csv.Error)
"""What reading a table that is missing or damaged raises."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file, or a folder whose list of names counts, as it was seen.

    Attributes:
        state: see :func:`brnf.cache.file_state`.
        digest: of the bytes or the names; empty when there is nothing at this path.
        decoded: whether it was read as an image without a complaint.
        header: what its header told (:mod:`brnf.data.probing`), or nothing.
    """

    state: FileState
    digest: str
    decoded: bool = False
    header: str = ""


MISSING = Seen((0, 0, 0, 0), "")


class TableWriter:
    """Write a table; every row is handed to the system when :meth:`add` returns with ``flush``.

    Arguments:
        path: written from its start.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding=ENCODING, errors=ERRORS)
        # Python 3.11 and 3.12 quote a line break in a name only where it is one of the table's own.
        self._rows = csv.writer(self._file, lineterminator="\r\n")
        self._rows.writerow(COLUMNS)

    def add(self, rows: Iterable[tuple[str, Seen]], flush: bool = False) -> None:
        """Append files."""
        self._rows.writerows(
            (path, *one.state, one.digest, str(one.decoded), one.header) for path, one in rows
        )
        if flush:
            self._file.flush()

    def close(self, sync: bool = False) -> None:
        """End the table, and force it to the disk."""
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        self._file.close()


def read_table(path: Path) -> Iterator[tuple[str, Seen]]:
    """Yield the files of a table in their order.

    Raises:
        OSError, ValueError, csv.Error: it is missing or damaged.
    """
    with path.open("rb") as file:
        for _, columns, row in _rows(file):
            yield _parsed(columns, row)


class KnownFiles:
    """What tables of earlier runs say of files, in 16 bytes of memory a row.

    Arguments:
        tables: the later one counts; one that is missing, and a row that is damaged, tells nothing.
    """

    def __init__(self, *tables: Path) -> None:
        self._sources: list[tuple[IO[bytes], Sequence[str], NDArray[np.int64], NDArray[np.int64]]]
        self._sources = []
        for table in reversed(tables):
            with suppress(OSError):
                self._sources.append(_located(table.open("rb")))

    def close(self) -> None:
        """Close the tables."""
        for file, *_ in self._sources:
            file.close()

    def get(self, path: str) -> Seen | None:
        """Return what is known of a file."""
        key = hash(path)
        for file, columns, keys, places in self._sources:
            first, last = np.searchsorted(keys, key), np.searchsorted(keys, key, "right")
            for place in places[first:last][::-1].tolist():
                file.seek(place)
                with suppress(*FOREIGN):
                    found, seen = _parsed(columns, next(csv.reader(_lines(file))))
                    if found == path:
                        return seen
        return None


def _located(
    file: IO[bytes],
) -> tuple[IO[bytes], Sequence[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return a table with its columns, the hashes of its paths in order, and where their rows are.

    Paths may share a hash; who looks one up compares them.
    """
    keys, places = np.empty(1024, np.int64), np.empty(1024, np.int64)
    count = 0
    columns: Sequence[str] = COLUMNS
    with suppress(*FOREIGN):
        for place, columns, row in _rows(file):  # noqa: B007, the last ones are those of all
            if count == len(keys):
                keys, places = np.resize(keys, 2 * count), np.resize(places, 2 * count)
            keys[count], places[count] = hash(row[0]), place
            count += 1
    order = np.argsort(keys[:count], kind="stable")
    return file, columns, keys[:count][order], places[:count][order]


def _rows(file: IO[bytes]) -> Iterator[tuple[int, tuple[str, ...], list[str]]]:
    """Yield the place of each whole row, the columns, and the row's cells.

    A name may hold line breaks, so a row may be several lines.
    """
    read = [0]
    lines = _lines(file, read)
    reader = csv.reader(lines)
    columns = tuple(next(reader, ()))
    if columns not in (COLUMNS, WITHOUT_HEADER, EARLIER):
        raise ValueError("other columns")
    place = read[0]
    for row in reader:
        if len(row) == len(columns):
            yield place, columns, row
        elif row:
            raise ValueError("cells are missing")
        place = read[0]


def _lines(file: IO[bytes], read: list[int] | None = None) -> Iterator[str]:
    """Yield the lines that were written to their end, and count their bytes in ``read``."""
    while (line := file.readline()).endswith(b"\n"):
        if read is not None:
            read[0] += len(line)
        yield line.decode(ENCODING, ERRORS)


def _parsed(columns: Sequence[str], row: Sequence[str]) -> tuple[str, Seen]:
    if columns == EARLIER:
        path, _, _, digest, decoded = row
        return path, Seen(MISSING.state, digest, decoded == "True")
    path, size, modified, changed, inode, digest, decoded, *header = row
    state = (int(size), int(modified), int(changed), int(inode))
    return path, Seen(state, digest, decoded == "True", *header)
