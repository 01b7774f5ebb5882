"""Who works in a folder: the Snakemakes that live there, and jobs that have outlived theirs."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from brnf.engine.controller import CONTROLLER, controllers_folder
from brnf.store.files import is_held

__all__ = ["Job", "controllers", "jobs"]

STAGES = "brnf.stages."


@dataclass(frozen=True)
class Job:
    """A job that lives.

    Attributes:
        name: what it does or writes.
        process: its number, when it runs on this machine.
    """

    name: str
    process: int | None = None

    def __str__(self) -> str:
        return self.name if self.process is None else f"{self.name} (process {self.process})"


def controllers(folder: Path) -> list[str]:
    """Return a line for each Snakemake that lives in a folder, announced or seen on this machine,
    and forget the dead.
    """
    living = []
    for path in sorted(controllers_folder(folder).glob("[!.]*")):
        if is_held(path):
            living.append(path.read_text("utf-8", "replace").strip())
        else:
            path.unlink(missing_ok=True)
    return living or [
        f"process {process.pid}: {shlex.join(words)}"
        for process, words in _processes()
        if _is_snakemake(process, words, folder)
    ]


def jobs(folder: Path) -> list[Job]:
    """Return the jobs that live: on this machine, and wherever the lock of an output in ``results``
    is held.
    """
    place = str(controllers_folder(folder))
    children = [
        (process.pid, words)
        for process, words in _processes()
        if os.path.dirname(_controller(process)) == place
    ]
    stages = [Job(name, process) for process, words in children if (name := _stage(words))]
    locks = (
        Path(parent, name)
        for parent, _, names in os.walk(folder / "results")
        for name in names
        if name.endswith(".lock")
    )
    held = [
        Job(f"the writer of {lock.with_name(lock.name[1:-5]).relative_to(folder)}")
        for lock in sorted(locks)
        if is_held(lock)
    ]
    return stages or held or [Job(words[0], process) for process, words in children]


def _processes() -> Iterator[tuple[psutil.Process, list[str]]]:
    """Yield the other processes of this machine that may be asked, with their words."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and (words := process.cmdline()):
                yield process, words


def _is_snakemake(process: psutil.Process, words: Sequence[str], folder: Path) -> bool:
    """Return whether a process is a Snakemake of its own in a folder, not the job of one."""
    program = words[1:] if Path(words[0]).name.startswith("python") else words
    if (
        not (
            program[:2] == ["-m", "snakemake"] or (program and Path(program[0]).name == "snakemake")
        )
        or "--mode" in words
    ):
        return False
    try:
        return Path(process.cwd()) == folder.resolve()
    except psutil.Error:
        return False


def _controller(process: psutil.Process) -> str:
    """Return the file of the Snakemake whose child a process is, or nothing."""
    try:
        return str(process.environ().get(CONTROLLER, ""))
    except psutil.Error:
        return ""


def _stage(words: Sequence[str]) -> str | None:
    """Return the stage that a process runs."""
    return next((word.removeprefix(STAGES) for word in words if word.startswith(STAGES)), None)
