"""Small JSON files of what was computed at the last call, in the folder that Snakemake runs in.

Losing one costs time and nothing else, so none is ever an error.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["FileState", "file_state", "read_cache", "write_cache"]

FileState = tuple[int, int, int, int]


def file_state(found: os.stat_result) -> FileState:
    """Return what tells as long as it stays the same that a file does: size, times of change of
    content and of inode, inode.

    Who writes a file, or puts another in its place, and restores its time cannot restore the time
    of its inode. Git trusts the same.
    """
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def read_cache(path: Path) -> dict[str, Any]:
    """Return what a cache holds; nothing where it is missing or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        if isinstance(known, dict):
            return known
    return {}


def write_cache(path: Path, content: dict[str, Any]) -> None:
    """Replace a cache at once where its folder exists and can be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.parent.is_dir():
            temporary.write_text(json.dumps(content))
            temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
