"""The memory of a process: what is done with what tensors give back, and the most it has held."""

import ctypes
import re
import resource
import sys
from pathlib import Path

__all__ = ["keep_freed_memory", "peak_memory", "peak_told", "release_code", "tell_peak"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's ``mallopt``."""
MADV_DONTNEED = 4
"""Linux's ``madvise``: these pages are not needed for now."""
LARGEST_KEPT = 32 * 2**20
"""Bytes of a tensor; glibc takes no higher threshold. Larger ones come from the system each time.
"""


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of giving it back to the system.

    A network frees and asks for the same megabytes at every layer. glibc gives them back each time,
    and the system has to clear every
    page again: 8 % of the time of CAM inference on a CPU. The peak of memory grows by 6 to 10 %
        there; where there is no glibc,
    nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def peak_memory() -> int:
    """Return the most resident memory of this process so far, bytes.

    Where Linux tells it, not by ``ru_maxrss``, which a process inherits from the one that started
    it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def release_code(library: str) -> None:
    """Let go of the pages that a library's code has in memory; what is called again is read again.

    Pages of code are never changed, so that nothing is lost. Elsewhere than on Linux nothing
    happens.

    Arguments:
        library: part of its file's name, such as ``libllvmlite``.
    """
    maps = Path("/proc/self/maps")
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None or not maps.exists():
        return
    for line in maps.read_text().splitlines():
        place, access, *_, path = line.split(maxsplit=5)
        if access == "r-xp" and library in Path(path).name:
            start, end = (int(address, 16) for address in place.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def tell_peak() -> None:
    """Write this process's peak memory to the standard error, which is a stage's log."""
    print(f"peak memory: {peak_memory() / 2**20:.1f} MiB", file=sys.stderr, flush=True)


def peak_told(log: Path) -> float:
    """Return the most memory that a stage has told of in its log, MiB; not a number where it has
    told nothing.
    """
    text = log.read_text(errors="replace") if log.is_file() else ""
    return max(
        map(float, re.findall(r"^peak memory: ([0-9.]+) MiB$", text, re.MULTILINE)),
        default=float("nan"),
    )
