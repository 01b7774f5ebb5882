"""Which GPU a job takes when several jobs run on one machine."""

import os
import stat
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from brnf.engine.torchrun_numbers import torchrun_number
from brnf.errors import UserError
from brnf.store.files import try_lock

__all__ = ["claim_gpu"]

_HELD: dict[Path, int] = {}
"""Lock files of this process and their descriptors; the operating system releases them when it
ends, however it ends.
"""
SECONDS_BETWEEN_LOOKS = 1.0
PATIENCE_TOGETHER = 60.0
"""Seconds that processes which train together wait for a GPU each: enough for a killed training to
end. Two such trainings that hold half of the GPUs each would wait for one another for ever.
"""


def claim_gpu(
    gpus: Sequence[str],
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
    *,
    waits: bool = True,
) -> int:
    """Choose a GPU that no other living job of this user has chosen, and keep it until this process
    ends.

    When all are taken a job waits, with a line on the standard error; a profile that counts GPUs
    never comes to that. Processes that train together wait for a minute. What does not wait takes
    the only GPU unasked and shares one of several in turn. So does every job where it cannot be
    told which are taken, with a line.

    Arguments:
        gpus: what tells each visible GPU from all others of the machine, at least one.
        environment: that ``torchrun`` has filled.
        folder: of the lock files, of this user alone; in the machine's temporary folder when None.
        waits: whether this is a job, and no program that only uses a network.

    Returns:
        Index among the visible GPUs.

    Raises:
        UserError: there are fewer GPUs than processes that train together, or too few are free.
    """
    together = torchrun_number("LOCAL_WORLD_SIZE", 1, environment)
    rank = torchrun_number("LOCAL_RANK", 0, environment)
    count = len(gpus)
    if count < together:
        raise UserError(
            f"a training with {together} devices finds {count} visible GPU{'s' * (count > 1)}; "
            "lower devices, or set device: cpu"
        )
    if count == 1 and not waits:
        return 0
    place = folder or Path(tempfile.gettempdir()) / f"brnf-gpus-{os.getuid()}"
    paths = [place / f"{name.replace('/', '_')}.lock" for name in gpus]
    for index, path in enumerate(paths):
        if path in _HELD:
            return index
    own = rank % count
    order = [*range(own, count), *range(own)]  # of a training each its own, if that is free
    chosen: int | None = None
    try:
        _own(place)
        chosen = _first_free(paths, order)
        if chosen is None and waits:
            _say(f"{_taken(paths)}; waiting for one (set device to choose)")
            chosen = _awaited(paths, order, PATIENCE_TOGETHER if together > 1 else None)
        reason = _taken(paths)
    except OSError as error:
        reason = f"which of {count} GPUs are free cannot be told ({error})"
    if chosen is not None:
        return chosen
    if together > 1:
        raise UserError(
            f"{reason}, and a training has {together} devices; wait for other jobs, or lower "
            "devices"
        )
    index = os.getpid() % count
    _say(f"{reason}; this one takes cuda:{index}, set device to choose")
    return index


def _first_free(paths: Sequence[Path], order: Sequence[int]) -> int | None:
    """Lock the first file that nobody holds and return its index."""
    return next((index for index in order if _locked(paths[index])), None)


def _awaited(paths: Sequence[Path], order: Sequence[int], patience: float | None) -> int | None:
    """Return the index of the first file that becomes free, or None after so many seconds."""
    end = None if patience is None else time.monotonic() + patience
    while (index := _first_free(paths, order)) is None:
        if end is not None and time.monotonic() >= end:
            return None
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return index


def _taken(paths: Sequence[Path]) -> str:
    """Say that all GPUs are taken, and by which processes."""
    holders = [path.read_text().strip() for path in paths if path.is_file()]
    all_of = f"all {len(paths)} GPUs are" if len(paths) > 1 else "the GPU is"
    by = f" ({', '.join(holder for holder in holders if holder)})" if any(holders) else ""
    return f"{all_of} taken by other jobs{by}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _own(folder: Path) -> None:
    """Make a folder that nobody else can have made or write to.

    Raises:
        OSError: there is a link, or a folder of somebody else, or of a file system that is full.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NotADirectoryError(f"{folder} is not a folder of this user alone")


def _locked(path: Path) -> bool:
    """Lock a file unless another process holds it, and note in it who does.

    Raises:
        NoLocksError: nobody can lock a file there.
        OSError: it cannot be opened, as when it is a link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    taken = False
    try:
        taken = try_lock(descriptor)
    finally:
        if not taken:
            os.close(descriptor)
    if taken:
        _HELD[path] = descriptor
        with suppress(OSError):  # on a full disk others wait without knowing for whom
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()}\n".encode())
    return taken
