"""Digests of files, kept from call to call as long as size, times and inode stay."""

import atexit
import os
from functools import cache
from pathlib import Path
from typing import Any

from brnf.cache import file_state, read_cache, write_cache
from brnf.store.stamps import digest_of

__all__ = ["kept_digest"]

KEPT = Path(".snakemake", "brnf_digests.json")
"""In the folder that Snakemake runs in."""


def kept_digest(path: Path) -> str:
    """Return the digest of a file or a folder as it is now.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        return digest_of(path)
    known = _known()
    seen = list(file_state(path.stat()))
    found = known.get(os.path.abspath(path))
    if isinstance(found, list) and found[:-1] == seen:
        return str(found[-1])
    digest = digest_of(path)
    known[os.path.abspath(path)] = [*seen, digest]
    return digest


@cache
def _known() -> dict[str, Any]:
    """Return what was kept, and keep what is added to it when the process ends."""
    known = read_cache(KEPT)
    atexit.register(_keep, KEPT.absolute(), known, dict(known))
    return known


def _keep(path: Path, known: dict[str, Any], before: dict[str, Any]) -> None:
    if known != before:
        write_cache(path, known)
