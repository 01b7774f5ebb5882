"""Experiments whose segmentation has been measured, whoever ran them."""

import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from brnf.store.stamps import Stamp, digest_of, read_stamp, unchanged

__all__ = ["measured_experiments"]


def measured_experiments(results: Path) -> dict[str, str]:
    """Return the folders of experiments that hold an evaluated segmentation, and a hash of what was
    measured.

    They are read as they are: a comparison starts no training. One whose record of settings is not
    that of its tables, as after a run that was cut, is left out with a line.

    Arguments:
        results: folder of all results.
    """
    found = {}
    reports = [
        stamp
        for path in results.glob("*/report.html")
        if (stamp := read_stamp(path)) and stamp.content and unchanged(path, stamp.content)
    ]
    for record in sorted(results.glob("*/config.yaml")):
        files = sorted(record.parent.glob("*/seed*/evaluation/segmentation-*.json"))
        if files and _belong_together(record, files, reports):
            digest = hashlib.sha256(b"".join(file.read_bytes() for file in [record, *files]))
            found[str(record.parent)] = digest.hexdigest()[:16]
        elif files:
            _tell(record.parent)
    return found


def _belong_together(record: Path, evaluations: Sequence[Path], reports: Sequence[Stamp]) -> bool:
    """Return whether a report was made of these settings with a table of these evaluations."""
    table = record.parent / "tables" / "results.csv"
    stamp = read_stamp(table)
    if stamp is None:
        return False
    return _holds(stamp, evaluations) and any(_holds(report, [record, table]) for report in reports)


def _holds(stamp: Stamp, files: Sequence[Path]) -> bool:
    """Return whether something was made from these files as they are now."""
    return all(file.is_file() and stamp.inputs.get(str(file)) == digest_of(file) for file in files)


@cache
def _tell(folder: Path) -> None:
    print(
        f"comparison: {folder} is left out: its tables are not known to be of its config.yaml; run "
        "this experiment to its end",
        file=sys.stderr,
    )
