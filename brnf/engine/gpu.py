"""Which GPU a job takes when several jobs run on one machine."""

import fcntl
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from brnf.errors import UserError

__all__ = ["claim_gpu"]

_HELD: dict[Path, int] = {}
"""Lock files of this process and their descriptors; the operating system releases them when it
ends, however it ends.
"""


def claim_gpu(
    count: int, environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> int:
    """Choose a GPU that no other living job of this user has chosen, and keep it until this process
    ends.

    As many visible GPUs as this job has processes are taken unasked: that is what SLURM shows to a
    job that was given so many. When all are taken, jobs share them in turn, with a line on the
    standard error; profiles that count GPUs never come to that. Processes that train together never
    share one.

    Arguments:
        count: of the visible GPUs, at least 1.
        environment: whose ``CUDA_VISIBLE_DEVICES`` tells which GPUs of the machine these are.
        folder: of the lock files; the machine's temporary folder when None.

    Returns:
        Index among the visible GPUs.

    Raises:
        UserError: there are fewer GPUs than processes that train together.
    """
    together = int(environment.get("LOCAL_WORLD_SIZE", 1))
    if count < together:
        raise UserError(
            f"a training with {together} devices finds {count} visible GPU{'s' * (count > 1)}; "
            "lower devices, or set device: cpu"
        )
    if count == together:
        return int(environment.get("LOCAL_RANK", 0))
    visible = [entry for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    names = visible if len(visible) == count else [str(index) for index in range(count)]
    locks = folder or Path(tempfile.gettempdir()) / f"brnf-gpus-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for index, name in enumerate(names):
        path = locks / f"{name.replace('/', '_')}.lock"
        if path in _HELD or _locked(path):
            return index
    if together > 1:
        raise UserError(
            f"a training with {together} devices finds too few of the {count} GPUs free; wait for "
            "other jobs, or lower devices"
        )
    index = os.getpid() % count
    print(
        f"all {count} GPUs are taken by other jobs; this one shares cuda:{index}", file=sys.stderr
    )
    return index


def _locked(path: Path) -> bool:
    """Lock a file unless another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _HELD[path] = descriptor
    return True
