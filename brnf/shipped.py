"""Where the workflow and its configurations are: within an installed package, or beside it in the
repository.
"""

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["CONFIG", "PROFILES", "SNAKEFILE", "SOURCE", "commit"]

PACKAGE = Path(__file__).parent
SHARE = PACKAGE / "share"
"""There in an installed package; `setup.py` fills it."""
HOME = SHARE if SHARE.is_dir() else PACKAGE.parent
CONFIG = HOME / "config"
SNAKEFILE = HOME / "workflow" / "Snakefile"
PROFILES = HOME / "workflow" / "profiles"
SOURCE = None if SHARE.is_dir() else PACKAGE.parent
"""Folder by which another process finds this very package; an installed one needs none."""


@cache
def commit() -> str:
    """Return the commit of the checkout that runs, with ``-dirty`` where files differ from it;
    empty for an installed package or where git is missing.
    """
    if SOURCE is None or not (SOURCE / ".git").exists():
        return ""
    words = ("git", "-C", str(SOURCE), "describe", "--always", "--dirty", "--exclude=*")
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
