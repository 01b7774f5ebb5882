"""Which GPU a job takes when several jobs run on one machine."""

import fcntl
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["claim_gpu"]

_HELD: dict[Path, int] = {}
"""Lock files of this process and their descriptors; the operating system releases them when it ends, however it ends."""


def claim_gpu(count: int, environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> int:
    """Choose a GPU that no other living job of this user has chosen, and keep it until this process ends.

    A single visible GPU is taken unasked: that is what SLURM shows to a job that was given one. When all are taken, jobs
    share them in turn, with a line on the standard error; profiles that count GPUs never come to that.

    Arguments:
        count: of the visible GPUs, at least 1.
        environment: whose ``CUDA_VISIBLE_DEVICES`` tells which GPUs of the machine these are.
        folder: of the lock files; the machine's temporary folder when None.

    Returns:
        Index among the visible GPUs.
    """
    if count == 1:
        return 0
    visible = [entry for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    names = visible if len(visible) == count else [str(index) for index in range(count)]
    locks = folder or Path(tempfile.gettempdir()) / f"brnf-gpus-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for index, name in enumerate(names):
        path = locks / f"{name.replace('/', '_')}.lock"
        if path in _HELD or _locked(path):
            return index
    index = os.getpid() % count
    print(f"all {count} GPUs are taken by other jobs; this one shares cuda:{index}", file=sys.stderr)
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
