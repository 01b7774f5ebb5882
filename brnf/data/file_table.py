"""Tables of files as they were seen: a row a file, found by its path without holding the table in
memory.

A data set may have millions of files. A table is written from its first row to its last, so that
one whose writer was killed ends in the middle of a row and is valid up to there.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brnf.cache import FileState

__all__ = ["MISSING", "KnownFiles", "Seen", "TableWriter", "parts", "read_part", "read_table"]

COLUMNS = ("path", "size", "modified", "changed", "inode", "digest", "decoded", "header")
WITHOUT_HEADER = COLUMNS[:-1]
EARLIER = ("path", "size", "modified", "digest", "decoded")
"""Columns of before, from which no file is known but by its digest."""
ENCODING, ERRORS = "utf-8", "surrogateescape"
FOREIGN = (OSError, ValueError, csv.Error)
"""What reading a table that is missing or damaged raises."""


class Seen(NamedTuple):
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
        columns = _columns(file)
        yield from _parsed_rows(columns, _lines(file))


def read_part(path: Path, begin: int, end: int) -> Iterator[tuple[str, Seen]]:
    """Yield the files of a part of a table (:func:`parts`), as :func:`read_table`."""
    with path.open("rb") as file:
        columns = _columns(file)
        file.seek(begin)
        yield from _parsed_rows(columns, _lines(file, end - begin))


def parts(path: Path, count: int) -> list[tuple[int, int]]:
    """Return where so many parts of a table begin and end, bytes; fewer, if rows are several lines.

    Raises:
        OSError, ValueError: it is missing or damaged.
    """
    with path.open("rb") as file:
        _columns(file)
        first, last = file.tell(), file.seek(0, os.SEEK_END)
        places = [first]
        for number in range(1, count):
            file.seek(first + (last - first) * number // count)
            file.readline()
            place = file.tell()
            while place < last and not _begins_a_row(file):
                place = file.tell()
            if places[-1] < place < last:
                places.append(place)
        return list(pairwise([*places, last]))


def _begins_a_row(file: IO[bytes]) -> bool:
    """Return whether the next line is a row, and no part of a name that holds line breaks."""
    cells = file.readline().split(b",")
    return len(cells) == len(COLUMNS) and all(map(bytes.isdigit, cells[1:5]))


class KnownFiles:
    """What tables of earlier runs say of files, in 16 bytes of memory a row.

    Who asks in the order of a table is answered by reading on; else a row is looked for.

    Arguments:
        tables: the later one counts; one that is missing, and a row that is damaged, tells nothing.
    """

    def __init__(self, *tables: Path) -> None:
        self._sources: list[_Source] = []
        for table in reversed(tables):
            with suppress(OSError):
                self._sources.append(_Source(table.open("rb")))

    def close(self) -> None:
        """Close the tables."""
        for source in self._sources:
            source.close()

    def get(self, path: str) -> Seen | None:
        """Return what is known of a file."""
        for source in self._sources:
            if (found := source.get(path)) is not None:
                return found
        return None


class _Source:
    """One table of what is known.

    Arguments:
        file: its bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._columns: Sequence[str] = COLUMNS
        self._keys, self._places = np.empty(0, np.int64), np.empty(0, np.int64)
        self._rows: Iterator[tuple[str, Seen]] = iter(())
        self._next: tuple[str, Seen] | None = None
        with suppress(*FOREIGN):
            self._columns = _columns(file)
            first = file.tell()
            self._keys, self._places = _located(self._columns, file)
            # The last row of a path counts, which only a search finds where there are several.
            if bool((self._keys[1:] != self._keys[:-1]).all()):
                self._begin(first)

    def close(self) -> None:
        """Close the table."""
        self._file.close()

    def get(self, path: str) -> Seen | None:
        """Return what the table says of a file."""
        if (self._next is None or self._next[0] != path) and not self._find(path):
            return None
        assert self._next is not None
        seen = self._next[1]
        self._advance()
        return seen

    def _find(self, path: str) -> bool:
        """Look for a row and read on from there; stay where it was if there is none."""
        key = hash(path.encode(ENCODING, ERRORS))
        first, last = np.searchsorted(self._keys, key), np.searchsorted(self._keys, key, "right")
        before = self._file.tell(), self._next
        for place in self._places[first:last][::-1].tolist():
            self._begin(place)
            if self._next is not None and self._next[0] == path:
                return True
        if first != last:
            self._begin(before[0])
            self._next = before[1]
        return False

    def _begin(self, place: int) -> None:
        """Read on from a place."""
        self._file.seek(place)
        self._rows = _parsed_rows(self._columns, _lines(self._file))
        self._advance()

    def _advance(self) -> None:
        """Read the next row."""
        self._next = None
        with suppress(*FOREIGN):
            self._next = next(self._rows, None)


def _located(
    columns: Sequence[str], file: IO[bytes]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the keys of a table's paths in order, and where their rows are.

    Paths may share a key; who looks one up compares them.
    """
    keys, places = np.empty(1024, np.int64), np.empty(1024, np.int64)
    count, place = 0, file.tell()
    with suppress(*FOREIGN):
        for path, length in _paths(columns, file):
            if count == len(keys):
                keys, places = np.resize(keys, 2 * count), np.resize(places, 2 * count)
            keys[count], places[count] = hash(path), place
            count, place = count + 1, place + length
    order = np.argsort(keys[:count], kind="stable")
    return keys[:count][order], places[:count][order]


def _paths(columns: Sequence[str], file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the path of every row and the bytes that the row takes."""
    commas, lines = len(columns) - 1, _lines(file)
    for line in lines:
        if b'"' not in line and line.count(b",") == commas:
            yield line[: line.index(b",")], len(line)
            continue
        read = [line]
        row = next(csv.reader(_told(chain([line], lines), read)), [])
        if len(row) == len(columns):
            yield row[0].encode(ENCODING, ERRORS), sum(map(len, read[1:]))
        elif row:
            raise ValueError("cells are missing")


def _told(lines: Iterable[bytes], read: list[bytes]) -> Iterator[str]:
    """Yield lines as text, and put them into ``read``."""
    for line in lines:
        read.append(line)
        yield line.decode(ENCODING, ERRORS)


def _columns(file: IO[bytes]) -> Sequence[str]:
    """Read the columns of a table, which its first line holds."""
    columns = tuple(next(csv.reader([file.readline().decode(ENCODING, ERRORS)]), ()))
    if columns not in (COLUMNS, WITHOUT_HEADER, EARLIER):
        raise ValueError("other columns")
    return columns


def _lines(file: IO[bytes], most: int | None = None) -> Iterator[bytes]:
    """Yield the lines that were written to their end, of at most so many bytes."""
    while (line := file.readline()).endswith(b"\n"):
        yield line
        if most is not None and (most := most - len(line)) <= 0:
            return


def _parsed_rows(columns: Sequence[str], lines: Iterable[bytes]) -> Iterator[tuple[str, Seen]]:
    """Yield the files of whole rows.

    A name may hold line breaks, so a row may be several lines.
    """
    text = (line.decode(ENCODING, ERRORS) for line in lines)
    if columns == COLUMNS:
        for row in csv.reader(text):
            if len(row) == len(COLUMNS):
                path, size, modified, changed, inode, digest, decoded, header = row
                state = (int(size), int(modified), int(changed), int(inode))
                yield path, Seen(state, digest, decoded == "True", header)
            elif row:
                raise ValueError("cells are missing")
        return
    for row in csv.reader(text):
        if len(row) == len(columns):
            yield _parsed(columns, row)
        elif row:
            raise ValueError("cells are missing")


def _parsed(columns: Sequence[str], row: Sequence[str]) -> tuple[str, Seen]:
    """Return a file of a table that an earlier version wrote."""
    if columns == EARLIER:
        path, _, _, digest, decoded = row
        return path, Seen(MISSING.state, digest, decoded == "True")
    path, size, modified, changed, inode, digest, decoded = row
    state = (int(size), int(modified), int(changed), int(inode))
    return path, Seen(state, digest, decoded == "True")
