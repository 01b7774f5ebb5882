"""The history of a training as CSV."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from brnf.store.files import whole_file

__all__ = ["Row", "write_history"]

Row = dict[str, float]
"""What is known of one step: name -> value, NaN where it was not measured."""


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write one row a step, numbered from 1; what was not measured is empty.

    Arguments:
        path: the CSV file.
        rows: of all steps; terms may come later in a training.
    """
    terms = list(dict.fromkeys(term for row in rows for term in row))
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *terms])
        writer.writerows(
            [step, *(_written(row.get(term, math.nan)) for term in terms)]
            for step, row in enumerate(rows, 1)
        )


def _written(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
