"""Outputs that appear whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brnf.errors import UserError

__all__ = ["locked", "whole_directory", "whole_file"]


def _temporary(path: Path) -> Path:
    """Name a sibling of ``path`` that belongs to this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _sync(path: Path) -> None:
    """Force ``path`` (a file or a folder) to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes ``path`` only when the block ends without an error.

    Arguments:
        path: the file to write; its folder is made when missing.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.filename is None or str(path.parent) in str(error.filename):
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); free space or mend the permissions") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` only when the block ends without an error.

    Arguments:
        path: the folder to write; an older one at this place is replaced.
    """
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of an output while its stage lives, so that no second copy of the job can run.

    The kernel frees the lock when the process dies, however it dies.

    Arguments:
        path: the output; the lock is the file ``.<name>.lock`` beside it.

    Raises:
        UserError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path}: another process is writing this output; wait for it or stop it") from error
        yield
        lock.unlink(missing_ok=True)
