"""Outputs that appear whole or not at all."""

import errno
import fcntl
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from brnf.errors import UserError

__all__ = [
    "FULL",
    "MARK",
    "UNWRITABLE",
    "NoLocksError",
    "atomic_directory",
    "atomic_file",
    "is_held",
    "keep_foreign",
    "lock_file",
    "locked",
    "reported",
    "try_lock",
]

LOCK_GRACE = 10.0
"""Seconds that a lock is waited for: loading processes of a killed stage keep it until they notice,
some 5 s later.
"""
FULL = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EFBIG: "raise the limit on the size of files",
}
UNWRITABLE = FULL | {
    errno.EROFS: "choose another folder for the results",
    errno.EACCES: "mend the permissions of its folder",
    errno.EPERM: "mend the permissions of its folder",
    errno.ENOTDIR: "remove the file that stands where a folder must be",
    errno.EEXIST: "remove the file that stands where a folder must be",
    errno.EISDIR: "remove the folder that stands where a file must be",
}
"""Errors of writing that a user can mend, and how."""
MARK = ".brnf"
"""File in every folder that is written here: what lacks it is somebody else's."""
MARKED = "This folder is written, and replaced as a whole, by BRNF-in-a-workflow.\n"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems without locks say, such as some of NFS, Lustre and FUSE."""


_told: list[Path] = []


def _temporary(path: Path) -> Path:
    """Name a sibling of ``path`` that belongs to this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _remove_remains(path: Path) -> None:
    """Remove the temporary files and folders that killed writers of ``path`` left; the caller is
    its only writer.
    """
    own = re.compile(
        rf"\.{re.escape(path.name)}\.(\d+|old)\.part"
    )  # not those of another output, as of x.h5 beside x
    for remains in path.parent.iterdir():
        if not own.fullmatch(remains.name):
            continue
        if remains.is_dir():
            shutil.rmtree(remains, ignore_errors=True)
        else:
            remains.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Force ``path`` (a file or a folder) to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what a full disk or a folder that must not be written causes in the block into one line.

    HDF5 and torch tell it in words of their own, some of them when the file is closed after the
    first error.

    Arguments:
        path: the output that the line names.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = _errno(error)
        elsewhere = (
            isinstance(error, OSError)
            and error.filename is not None
            and str(path.parent) not in str(error.filename)
        )
        if number not in UNWRITABLE or (elsewhere and number not in FULL):
            raise
        raise UserError(
            f"{path}: cannot be written ({os.strerror(number)}); {UNWRITABLE[number]} and run again"
        ) from error


def _errno(error: BaseException) -> int:
    """Return the system's error number behind an exception of a writer, 0 when there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen.errno
        if found := re.search(r"errno = (\d+)", str(seen)):  # HDF5's way to tell it
            return int(found[1])
        seen = seen.__cause__ or seen.__context__
    return 0


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes ``path`` only when the block ends without an error.

    Arguments:
        path: the file to write; its folder is made when missing.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = _temporary(path)
    try:
        with reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_remains(path)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` only when the block ends without an error.

    Arguments:
        path: the folder to write; an older one at this place is replaced if it bears :data:`MARK`.
            A link to a folder is replaced, too, and what it leads to stays.

    Raises:
        UserError: the folder cannot be written, the disk is full, or what stands there was made by
            others.
    """
    temporary = _temporary(path)
    try:
        with reported(path):
            keep_foreign(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_remains(path)
            temporary.mkdir()
            (temporary / MARK).write_text(MARKED)
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            keep_foreign(path)
            if path.is_symlink():
                path.unlink()
            elif path.exists():  # moved away first, so that nobody finds it half removed
                os.replace(path, old := temporary.with_name(f".{path.name}.old.part"))
                shutil.rmtree(old)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def keep_foreign(path: Path) -> None:
    """Refuse to replace a folder that holds something and bears no :data:`MARK`.

    Raises:
        UserError: it does.
    """
    if not path.is_dir() or (path / MARK).is_file():
        return
    if held := sorted(entry.name for entry in path.iterdir()):
        raise UserError(
            f"{path}: holds {held[0]} and was not written by this program, and stays; move it away "
            "or name another folder"
        )


class NoLocksError(OSError):
    """The file system has no locks."""


def try_lock(handle: IO[str] | int) -> bool:
    """Lock an open file for as long as it stays open, unless another process holds it.

    Raises:
        NoLocksError: nobody can lock a file there.
    """
    return _flock(handle, fcntl.LOCK_EX)


def is_held(lock: Path, *, unknown: bool = False) -> bool:
    """Return whether a process that lives holds a lock file, on this machine or on another one that
    shares the folder; ``unknown`` where nobody can lock a file.
    """
    try:
        with lock.open() as handle:
            return not _flock(handle, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except NoLocksError:
        return unknown


def _flock(handle: IO[str] | int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise NoLocksError(error.errno, error.strerror) from error
        raise
    return True


def lock_file(path: Path) -> Path:
    """Return the lock of an output, which names its holder."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(path: Path, patience: float = LOCK_GRACE) -> Iterator[None]:
    """Hold the lock of an output while its stage lives, so that no second copy of the job can run.

    The kernel frees the lock when the process dies, however it dies.

    Arguments:
        path: the output; its lock lies beside it, see :func:`lock_file`.
        patience: seconds that another holder is waited for.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    lock = lock_file(path)
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        acquired = _acquire(lock, path, patience)
    with acquired as handle:
        with reported(path):
            handle.truncate(0)
            print(f"process {os.getpid()} on {socket.gethostname()}", file=handle, flush=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _acquire(lock: Path, output: Path, patience: float) -> IO[str]:
    """Open and lock the lock file of an output; see :func:`locked`."""
    end = time.monotonic() + patience
    while True:
        handle = lock.open("a+")
        if _try_or_tell(handle, output):
            if _is_file(handle, lock):
                return handle
            handle.close()  # its last holder has finished and removed it
            continue
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        if time.monotonic() > end:
            raise UserError(f"{output}: {holder} is writing this output; wait for it or stop it")
        time.sleep(LOCK_GRACE / 50)


def _try_or_tell(handle: IO[str], output: Path) -> bool:
    """Lock a file as :func:`try_lock` does; go on without, and say so once, where nobody can."""
    try:
        return try_lock(handle)
    except NoLocksError as error:
        if not _told:
            _told.append(output.parent)
            print(
                f"warning: {output.parent}: its file system has no locks ({error.strerror}); going "
                "on without, so let only one Snakemake work there",
                file=sys.stderr,
            )
        return True


def _is_file(handle: IO[str], path: Path) -> bool:
    """Return whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
