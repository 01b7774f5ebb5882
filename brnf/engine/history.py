"""Loss curves of trainings as CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from brnf.store.files import whole_file

__all__ = ["write_history"]


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one row a step; terms that come later in a training are empty before.

    Arguments:
        path: the CSV file.
        rows: term -> value, for step 0, 1, ...
    """
    terms = list(dict.fromkeys(term for row in rows for term in row))
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *terms])
        writer.writerows(
            [step, *(f"{row[term]:.6g}" if term in row else "" for term in terms)]
            for step, row in enumerate(rows)
        )
