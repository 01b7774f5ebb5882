"""Run many spoilt files through their readers in processes that may die or hang without taking the
run along.
"""

import json
import os
import re
import resource
import selectors
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brnf.errors import UserError

__all__ = ["Kind", "Tally", "case", "run"]

SECONDS = 10
"""A file that takes more of the processor is a hang, and so is one that waits for ten times as
long; the slowest that ends takes one.
"""
RESUMED = re.compile(r".*\.lock|index\.masks\.csv|index\.files(\.\w+)?\.csv")
"""What may stay after an error: locks, and what an index knows of the files it has read by then."""
MEMORY = 3 * 2**30
"""Bytes of address space that reading may take."""
CHUNK = 250


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: shown in the tally.
        files: how many of them a full run makes.
        spoil: from a random generator to the content of a file; number 0 of a run must be read
            cleanly.
        valid: a content that is fine.
        read: given the file's path in a folder of its own and the case's number, reads it as the
            package does. What it writes goes into ``out`` in that folder. True: it warned.
        name_of_file: of the file.
    """

    name: str
    files: int
    valid: bytes
    spoil: Callable[[np.random.Generator], bytes]
    read: Callable[[Path, int], bool | None]
    name_of_file: str


@dataclass
class Tally:
    """Outcomes of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def case(kind: Kind, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """Run one case and return its outcome (clean, warned, error or failure) and what there is to
    tell.
    """
    folder.mkdir(parents=True)
    path = folder / kind.name_of_file
    random = np.random.default_rng([seed, number, *kind.name.encode()])
    path.write_bytes(kind.valid if number == 0 else kind.spoil(random))
    try:
        outcome, told = "warned" if kind.read(path, number) else "clean", ""
        if number == 0 and outcome == "warned":
            outcome, told = "failure", "a valid file is warned of"
    except UserError as error:
        outcome, told = "error", str(error)
        if not told or "\n" in told or not told.isprintable():
            outcome = "failure"
        if number == 0:
            outcome = "failure"
        if left := [
            entry for entry in (folder / "out").rglob("*") if not RESUMED.fullmatch(entry.name)
        ]:
            outcome, told = "failure", f"partial output {left[0]}: {told}"
    except Exception:
        outcome, told = "failure", traceback.format_exc(limit=-6)
    if left := list(folder.rglob("*.part")):
        outcome, told = "failure", f"left behind: {left[0].name} {told}"
    return outcome, told


def _work(kind: Kind, seed: int, numbers: range, folder: Path, pipe: int) -> None:
    """Run cases in a process of their own; each tells its outcome before the next begins."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(limit, signal.SIG_DFL)  # kills: a C library that hangs lets no handler run
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
        outcome, told = case(kind, seed, number, folder / f"{number}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(folder / f"{number}", ignore_errors=True)
        os.write(
            pipe,
            json.dumps([number, outcome, told[-3000:] if outcome == "failure" else ""]).encode()
            + b"\n",
        )


@dataclass
class _Worker:
    kind: Kind
    numbers: range
    process: int
    begun: bytes = b""
    done: int = 0


def run(
    kinds: Sequence[Kind], share: float, seed: int, jobs: int, folder: Path
) -> dict[str, Tally]:
    """Run a share of every kind's files and return the tally of each kind.

    Arguments:
        kinds: to run.
        share: of their files.
        seed: decides every spoilt byte.
        jobs: processes at once.
        folder: for the files.
    """
    tallies = {kind.name: Tally() for kind in kinds}
    queue = [
        (kind, range(start, min(start + CHUNK, count)))
        for kind in kinds
        for count in [max(round(kind.files * share), 10)]
        for start in range(0, count, CHUNK)
    ]
    queue.reverse()
    workers = selectors.DefaultSelector()
    while queue or workers.get_map():
        while queue and len(workers.get_map()) < jobs:
            _start(workers, *queue.pop(), seed, folder)
        for key, _ in workers.select():
            worker = key.data
            content = os.read(key.fd, 1 << 20)
            *lines, worker.begun = (worker.begun + content).split(b"\n")
            for line in lines:
                _, outcome, told = json.loads(line)
                _count(tallies, worker, outcome, told)
            if not content:
                workers.unregister(key.fd)
                os.close(key.fd)
                if died := _death(worker.process):
                    _count(tallies, worker, "failure", died)
                if worker.done < len(worker.numbers):
                    queue.append((worker.kind, worker.numbers[worker.done :]))
    return tallies


def _start(
    workers: selectors.BaseSelector, kind: Kind, numbers: range, seed: int, folder: Path
) -> None:
    reading, writing = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reading)
            _work(kind, seed, numbers, folder / kind.name / f"{os.getpid()}", writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    workers.register(reading, selectors.EVENT_READ, _Worker(kind, numbers, process))


def _count(tallies: dict[str, Tally], worker: _Worker, outcome: str, told: str) -> None:
    tally = tallies[worker.kind.name]
    tally.outcomes[outcome] += 1
    if outcome == "failure":
        tally.failures.append(f"{worker.kind.name}:{worker.numbers[worker.done]}: {told}")
    worker.done += 1


def _death(process: int) -> str:
    """Return how a process ended, nothing when it ended well."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code in (-signal.SIGALRM, -signal.SIGPROF):
        return f"no end within {SECONDS} s of computing or {10 * SECONDS} s"
    return (
        f"killed by {signal.Signals(-code).name}"
        if code < 0
        else f"exit status {code}"
        if code
        else ""
    )
