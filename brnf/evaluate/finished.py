"""Experiments whose segmentation has been measured, whoever ran them."""

import hashlib
from pathlib import Path

__all__ = ["measured_experiments"]


def measured_experiments(results: Path) -> dict[str, str]:
    """Return the folders of experiments that hold an evaluated segmentation, and a hash of what was
    measured.

    They are read as they are: a comparison starts no training.

    Arguments:
        results: folder of all results.
    """
    found = {}
    for record in sorted(results.glob("*/config.yaml")):
        files = sorted(record.parent.glob("*/seed*/evaluation/segmentation-*.json"))
        if files:
            digest = hashlib.sha256(b"".join(file.read_bytes() for file in [record, *files]))
            found[str(record.parent)] = digest.hexdigest()[:16]
    return found
