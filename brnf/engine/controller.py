"""The Snakemake that rules a folder: it tells the world and its jobs that it lives."""

import atexit
import os
import shlex
import socket
import sys
from pathlib import Path
from typing import IO

from brnf.store.files import is_held, try_lock

__all__ = [
    "CONTROLLER",
    "MINIATURE",
    "announce",
    "controllers_folder",
    "has_died",
    "is_alone",
]

CONTROLLER = "BRNF_CONTROLLER"
"""Environment variable of all jobs: the file that their Snakemake holds locked while it lives."""

MINIATURE = "BRNF_MINIATURE"
"""Environment variable of jobs that only show what they cost: that a network has learned too little
is no mistake there.
"""

_held: list[IO[str]] = []


def announce(folder: Path) -> None:
    """Hold a file locked for as long as this process lives, however it ends, and tell its children
    which.

    Each Snakemake has a file of its own: several may share a folder as long as their outputs
        differ, which is not for this lock to
    judge. Children do not inherit it.

    Arguments:
        folder: in which Snakemake runs.
    """
    place = controllers_folder(folder)
    path = place / f"{socket.gethostname()}-{os.getpid()}"
    hidden = place / f".{path.name}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = hidden.open("w", encoding="utf-8", errors="backslashreplace")
        print(
            f"process {os.getpid()} on {socket.gethostname()}: {shlex.join(sys.argv)}",
            file=handle,
            flush=True,
        )
        if not try_lock(handle):
            return
        os.replace(hidden, path)  # so that nobody finds it unlocked
    except OSError:
        return  # a folder that cannot be written: Snakemake will say so if it needs to write
    _held.append(handle)
    os.environ[CONTROLLER] = str(path)
    atexit.register(path.unlink, missing_ok=True)


def controllers_folder(folder: Path) -> Path:
    """Return where the files of a folder's Snakemakes lie."""
    return folder.resolve() / ".snakemake" / "controllers"


def is_alone(folder: Path) -> bool:
    """Return whether no other Snakemake lives in the folder of this one."""
    own = os.environ.get(CONTROLLER)
    return not any(
        str(path) != own and is_held(path) for path in controllers_folder(folder).glob("[!.]*")
    )


def has_died() -> bool:
    """Return whether this process is a job whose Snakemake is gone; false for one that nobody's
    Snakemake has started.
    """
    controller = os.environ.get(CONTROLLER)
    return controller is not None and not is_held(Path(controller), unknown=True)
