"""The history of a training as CSV: a row each step, numbered from 1."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from brnf.errors import UserError
from brnf.store.files import atomic_file

__all__ = ["Row", "partial_history", "read_history", "write_history"]

Row = dict[str, float]
"""What is known of one step: name -> value, NaN where it was not measured."""


def partial_history(path: Path) -> Path:
    """Return where the history so far stands while the training runs, beside the whole one's place.

    >>> partial_history(Path("network/history.csv"))
    PosixPath('network/history.partial.csv')
    """
    return path.with_suffix(f".partial{path.suffix}")


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows of all steps and remove the history so far; what was not measured is empty.

    Arguments:
        path: the CSV file; its first column is ``step``.
        rows: of step 1, 2, ...; terms may come later in a training.
    """
    terms = list(dict.fromkeys(term for row in rows for term in row))
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *terms])
        writer.writerows(
            [step, *(_written(row.get(term, math.nan)) for term in terms)]
            for step, row in enumerate(rows, 1)
        )
    partial_history(path).unlink(missing_ok=True)


def _written(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def read_history(path: Path, *columns: str) -> pd.DataFrame:
    """Read what :func:`write_history` wrote: column ``step`` and one a term, all float64.

    A damaged file is left where it is, as only the whole training makes it anew.

    Arguments:
        path: the CSV file.
        columns: that must be there.

    Raises:
        UserError: the file is missing, damaged, lacks a column, or holds what is no number.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run its training first")
    try:
        table = pd.read_csv(path, dtype=np.float64)
        if missing := [name for name in ("step", *columns) if name not in table]:
            raise ValueError(f"column '{missing[0]}' is missing")
        if not np.array_equal(table["step"], np.arange(1, len(table) + 1)):
            raise ValueError("the steps do not count from 1")
        if np.isinf(table).any(axis=None):
            raise ValueError("it holds numbers that are not finite")
    except Exception as error:  # pandas reports damage with many kinds of exceptions
        fault = f"damaged history ({error}); remove it and run its training again"
        raise UserError(f"{path}: {fault}") from error
    return table
