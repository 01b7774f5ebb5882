"""What the files of a data set held when they were indexed: a change of content is found again, a
touched file is none.

The table stands beside the index and outlives it, so that a second run decodes and hashes only what
is new. Like git, it trusts a file whose size, times and inode are those it has seen. While an index
is made its table grows beside it, and is taken over by the next run where this one is cut.
"""

import csv
import errno
import hashlib
import os
import pickle
import stat
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain, islice
from pathlib import Path
from time import monotonic, perf_counter

from brnf.cache import file_state
from brnf.data.file_table import (
    MISSING,
    KnownFiles,
    Seen,
    TableWriter,
    parts,
    read_part,
    read_table,
)
from brnf.errors import UserError
from brnf.store.files import atomic_file, reported

__all__ = ["FIRST", "Contents", "data_state", "differing_part", "looked_at", "unchanged"]

FIRST = "first"
"""State of data that were never indexed."""
BYTES_A_PROCESS = 10_000_000
"""Of a table, from which on another process pays: about 60,000 files."""
SMALL = 2**20
"""Bytes of a file that is read at once."""
FLUSHED = 0.1
"""Seconds of work that a run may lose where it is killed."""
PROBED, CHUNK, READERS = 200, 1000, 8
AT_ONCE = 5e-5
"""Seconds a file; where looking takes no longer, one reader is faster than several, which would
only fight for Python's lock.
"""


def unchanged(path: str, known: Seen | None) -> Seen | None:
    """Return what is known of a file if its state is still the same, else None."""
    try:
        return known if known is not None and file_state(os.stat(path)) == known.state else None
    except (OSError, ValueError):
        return None


def looked_at(path: str, known: Seen | None) -> Seen:
    """Return what a file holds now; its digest is taken again where its state is another one.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        found = os.stat(path)
        state = file_state(found)
        if known is not None and known.state == state:
            return known
        digest = _digest(path, found)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); restore it or take it off the list"
        ) from error
    if known is not None and known.digest == digest:
        return known._replace(state=state)
    return Seen(state, digest)


class Contents:
    """What the files of a data set held before and hold now, in a table that grows on the disk.

    Arguments:
        index: folder of the index, beside which the tables stand.
    """

    def __init__(self, index: Path) -> None:
        self._index, self._table = index, _table(index)
        self._growing = index.with_name(f"{index.name}.files.checkpoint.csv")
        self._cut = index.with_name(f"{index.name}.files.cut.csv")
        self._others: dict[str, Seen] = {}
        with reported(index):
            if self._growing.exists():  # of a run that was cut, maybe not the first one
                with self._cut.open("ab") as kept, self._growing.open("rb") as content:
                    kept.writelines(line for line in content if line.endswith(b"\n"))
            self._known = KnownFiles(self._table, self._cut)
            self._writer = TableWriter(self._growing)
        self._waiting: list[tuple[str, Seen]] = []
        self._flushed = monotonic()

    def known(self, path: str) -> Seen | None:
        """Return what is known of a file from earlier runs, also from one that was cut."""
        return self._known.get(path)

    def add(self, files: Iterable[tuple[str, Seen]]) -> None:
        """Append what images and masks hold to the growing table; it reaches the system soon."""
        self._waiting += files
        if monotonic() - self._flushed > FLUSHED:
            self.flush()

    def flush(self) -> None:
        """Hand what was appended to the system."""
        self._writer.add(self._waiting, flush=True)
        self._waiting, self._flushed = [], monotonic()

    def added(self) -> Iterator[Seen]:
        """Yield again what was appended, in its order."""
        self.flush()
        return (seen for _, seen in read_table(self._growing))

    def look(self, path: str | Path) -> Seen:
        """Return what another file or a folder holds now, and remember it.

        Raises:
            UserError: it is missing or cannot be read.
        """
        key = str(path)
        if key not in self._others:
            self._others[key] = looked_at(key, self.known(key))
        return self._others[key]

    def note(self, *paths: str | Path) -> None:
        """Record the content of damaged or missing files, so that mending them is a change."""
        for path in paths:
            try:
                self.look(path)
            except UserError:
                self._others[str(path)] = MISSING

    def finish(self) -> None:
        """Let the table that has grown take the place of the one beside the index."""
        self.flush()
        self._writer.add(sorted(self._others.items()))
        self._writer.close(sync=True)
        self._growing.replace(self._table)
        self._known.close()
        self._cut.unlink(missing_ok=True)


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
        differing = {path: (seen, now) for path, seen, now in _all_differing(_table(index))}
    except (OSError, ValueError, csv.Error):
        return _name(state, ["no table"])
    changed = [
        f"{path} {now.digest}"
        for path, (seen, now) in differing.items()
        if now.digest != seen.digest
    ]
    if changed:
        return _name(state, changed)
    if differing:
        with suppress(
            UserError, OSError
        ):  # results that cannot be written are as valid as others, only slower to compare
            _renew(_table(index), {path: now for path, (_, now) in differing.items()})
    return state


def _renew(table: Path, now: dict[str, Seen]) -> None:
    """Write a table again with the new states of some of its files."""
    with atomic_file(table) as temporary:
        writer = TableWriter(temporary)
        writer.add((path, now.get(path, seen)) for path, seen in read_table(table))
        writer.close()


Difference = tuple[str, Seen, Seen]


def _all_differing(table: Path) -> Iterator[Difference]:
    """Yield what differs of any number of files, looked at by several readers where each look
    takes its time, as over a network.
    """
    rows = read_table(table)
    began = perf_counter()
    yield from _differing(islice(rows, PROBED))
    if perf_counter() - began < AT_ONCE * PROBED:
        yield from _differing_by_processes(table, rows)
        return
    waiting: deque[Future[list[Difference]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        while chunk := list(islice(rows, CHUNK)):
            waiting.append(pool.submit(lambda part: list(_differing(part)), chunk))
            if len(waiting) > 2 * READERS:
                yield from waiting.popleft().result()
        yield from chain.from_iterable(future.result() for future in waiting)


def _differing_by_processes(table: Path, rows: Iterable[tuple[str, Seen]]) -> Iterator[Difference]:
    """Yield what differs of the other rows of a table, by a process for each core if it is large.

    They are interpreters of their own: this one may have threads, beside which none can be forked.
    """
    count = min(len(os.sched_getaffinity(0)), READERS, table.stat().st_size // BYTES_A_PROCESS)
    if count < 2:
        yield from _differing(rows)
        return
    command = (sys.executable, "-c", OF_PART, str(Path(__file__).parents[2]), str(table))
    places = parts(table, count)
    with ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen([*command, *map(str, place)], stdout=subprocess.PIPE)
            )
            for place in places
        ]
        for process, place in zip(processes, places, strict=True):
            found, _ = process.communicate()
            if process.returncode:
                yield from _differing(read_part(table, *place))
            else:
                yield from pickle.loads(found)


def differing_part(table: str, begin: str, end: str) -> bytes:
    """Return pickled what differs of the files of a part of a table."""
    return pickle.dumps(list(_differing(read_part(Path(table), int(begin), int(end)))))


OF_PART = """
import sys
sys.path.insert(0, sys.argv[1])
from brnf.data.contents import differing_part
sys.stdout.buffer.write(differing_part(*sys.argv[2:]))
"""


def _differing(known: Iterable[tuple[str, Seen]]) -> Iterator[Difference]:
    """Yield what has another state, as it was and as it is now."""
    for path, seen in known:
        try:
            found = os.stat(path)
            state = file_state(found)
            if seen.state != state:
                digest = _digest(path, found)
                same = digest == seen.digest
                now = seen._replace(state=state) if same else Seen(state, digest)
                yield path, seen, now
        except OSError:
            yield path, seen, MISSING


def _digest(path: str, found: os.stat_result) -> str:
    """Return 32 hexadecimal digits of a hash of a file's bytes, or of the names in a folder."""
    if stat.S_ISDIR(found.st_mode):
        return hashlib.sha256(os.fsencode("\0".join(sorted(os.listdir(path))))).hexdigest()[:32]
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no ordinary file", path)  # reading a pipe would wait for ever
    with open(path, "rb") as file:
        if found.st_size < SMALL:  # most photographs: without a buffer of its own
            return hashlib.sha256(file.read()).hexdigest()[:32]
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _name(state: str, changed: Sequence[str]) -> str:
    return hashlib.sha256(os.fsencode("\n".join([state, *sorted(changed)]))).hexdigest()[:16]


def _table(index: Path) -> Path:
    return index.with_name(f"{index.name}.files.csv")
