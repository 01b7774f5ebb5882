"""What the files of a data set held when they were indexed: a change of content is found again, a
touched file is none.

The table stands beside the index and outlives it, so that a second run decodes and hashes only what
is new. Like git, it trusts a file whose size and time of change are those it has seen.
"""

import csv
import errno
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike, stat, stat_result
from pathlib import Path
from time import perf_counter

from brnf.errors import UserError
from brnf.store.files import atomic_file

__all__ = ["FIRST", "Contents", "Seen", "data_state"]

COLUMNS = ("path", "size", "modified", "digest", "decoded")
FIRST = "first"
"""State of data that were never indexed."""
PROBED, CHUNK, READERS = 200, 1000, 8
AT_ONCE = 5e-5
"""Seconds a file; where looking takes no longer, one reader is faster than several, which would
only fight for Python's lock.
"""


@dataclass(frozen=True)
class Seen:
    """A file, or a folder whose list of names counts, as it was seen.

    Attributes:
        size: bytes.
        modified: time of change, ns.
        digest: of the bytes or the names; empty when there is nothing at this path.
        decoded: whether it was read as an image without a complaint.
    """

    size: int
    modified: int
    digest: str
    decoded: bool = False

    def fits(self, found: stat_result) -> bool:
        """Return whether size and time of change are still the same."""
        return (self.size, self.modified) == (found.st_size, found.st_mtime_ns)


class Contents:
    """Digests of files, taken again only where size or time of change differ from what is known.

    Arguments:
        known: from an earlier run, by path.
    """

    def __init__(self, known: Mapping[str, Seen]) -> None:
        self._known = known
        self.seen: dict[str, Seen] = {}

    @classmethod
    def beside(cls, index: Path) -> "Contents":
        """Start from the table beside an index, or from nothing where it is missing or damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
            return cls(_read(_table(index)))
        return cls({})

    def look(self, path: Path) -> Seen:
        """Return what a file holds now, and remember it.

        Raises:
            UserError: it is missing or cannot be read.
        """
        key = str(path)
        if key not in self.seen:
            try:
                found = stat(path)
                known = self._known.get(key)
                self.seen[key] = (
                    known
                    if known and known.fits(found)
                    else Seen(found.st_size, found.st_mtime_ns, _digest(path))
                )
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be read ({error.strerror}); restore it or take it off the list"
                ) from error
        return self.seen[key]

    def note(self, *paths: Path) -> None:
        """Record the content of damaged or missing files, so that mending them is a change."""
        for path in paths:
            try:
                self.look(path)
            except UserError:
                self.seen[str(path)] = Seen(0, 0, "")

    def decoded(self, path: Path) -> None:
        """Remember that a file was read as an image without a complaint."""
        self.seen[str(path)] = replace(self.look(path), decoded=True)

    def write_beside(self, index: Path) -> None:
        """Write all that was looked at into the table beside an index."""
        _write(_table(index), self.seen)


def data_state(index: Path) -> str:
    """Name the state of the data that an index was made from: the same name as long as all files
    hold the same.

    The name is what the index was told when it was made, so that nothing follows from its being
    made; after a change of any file it is another one. Files that were touched and hold the same as
    before are entered into the table again.

    Arguments:
        index: folder of the index; may be missing.
    """
    try:
        state = (index / "state.txt").read_text().strip()
    except OSError:
        return FIRST
    try:
        table = _read(_table(index))
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return _name(state, ["no table"])
    differing = dict(_all_differing(list(table.items())))
    changed = [
        f"{path} {now.digest}"
        for path, now in differing.items()
        if now.digest != table[path].digest
    ]
    if changed:
        return _name(state, changed)
    if differing:
        with suppress(
            UserError, OSError
        ):  # results that cannot be written are as valid as others, only slower to compare
            _write(_table(index), table | differing)
    return state


def _all_differing(known: Sequence[tuple[str, Seen]]) -> list[tuple[str, Seen]]:
    """Return what differs of any number of files, looked at by several readers where each look
    takes its time, as over a network.
    """
    began = perf_counter()
    found = _differing(known[:PROBED])
    if perf_counter() - began < AT_ONCE * PROBED:
        return found + _differing(known[PROBED:])
    with ThreadPoolExecutor(READERS) as pool:
        chunks = pool.map(
            _differing, (known[start : start + CHUNK] for start in range(PROBED, len(known), CHUNK))
        )
        return found + [entry for chunk in chunks for entry in chunk]


def _differing(known: Iterable[tuple[str, Seen]]) -> list[tuple[str, Seen]]:
    """Return what has another size or time of change, as it is now."""
    found = []
    for path, seen in known:
        try:
            now = stat(path)
            if not seen.fits(now):
                found.append(
                    (
                        path,
                        replace(
                            seen, size=now.st_size, modified=now.st_mtime_ns, digest=_digest(path)
                        ),
                    )
                )
        except OSError:
            found.append((path, Seen(0, 0, "")))
    return found


def _digest(path: str | PathLike[str]) -> str:
    """Return 32 hexadecimal digits of a hash of a file's bytes, or of the names in a folder."""
    if Path(path).is_dir():
        names = sorted(entry.name for entry in Path(path).iterdir())
        return hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]
    if not Path(path).is_file():
        raise OSError(
            errno.EINVAL, "no ordinary file", str(path)
        )  # reading a pipe would wait for ever
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _name(state: str, changed: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([state, *sorted(changed)]).encode()).hexdigest()[:16]


def _table(index: Path) -> Path:
    return index.with_name(f"{index.name}.files.csv")


def _read(table: Path) -> dict[str, Seen]:
    with table.open(newline="") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != COLUMNS:
            raise ValueError("other columns")
        return {
            path: Seen(int(size), int(modified), digest, decoded == "True")
            for path, size, modified, digest, decoded in rows
        }


def _write(table: Path, seen: Mapping[str, Seen]) -> None:
    with atomic_file(table) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows(
            (path, one.size, one.modified, one.digest, one.decoded)
            for path, one in sorted(seen.items())
        )
