"""Print the tables of finished experiments and say where their files are: ``python -m
brnf.evaluate.show results/demo``.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from brnf.errors import UserError
from brnf.evaluate.records import read_table
from brnf.evaluate.tables import KEY, for_reading, format_cell

__all__ = ["aligned", "main", "show"]

WIDTH_ELSEWHERE = 180
"""Characters a line where the output is no terminal."""


def main(words: Sequence[str]) -> int:
    """Print every experiment named on the command line; return the exit status."""
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: python -m brnf.evaluate.show results/<name> ...\n\n{__doc__}")
        return 0 if words else 2
    try:
        print("\n".join(show(Path(word)) for word in words), end="")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def show(folder: Path) -> str:
    """Return the results of one experiment: its table, aligned, and the paths of its files.

    Arguments:
        folder: ``results/<name>``.

    Raises:
        UserError: the experiment has no table.
    """
    path = folder / "tables" / "results.csv"
    table = read_table(path, "the workflow on this experiment", words=tuple(KEY))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH_ELSEWHERE
    shown, said = for_reading(table)
    lines = [
        f"{folder.name}: mIoU, bias (at that object recall) and IoU per class in percent",
        *aligned(shown, width),
        *([f"({said})"] if said else []),
    ]
    files = [
        *(("table", file) for file in (path, path.with_suffix(".md"))),
        *(("figure", file) for file in sorted((folder / "figures").glob("*.png"))),
        ("report", folder / "report.html"),
    ]
    lines += [f"{kind:>8}  {file}" for kind, file in files if file.exists()]
    return "\n".join(lines) + "\n"


def aligned(table: pd.DataFrame, width: int) -> list[str]:
    """Return the table's lines in aligned columns, words left and numbers right.

    Arguments:
        table: columns in their order.
        width: characters a line may have; the last columns are left out, and a line says so, where
            they do not fit.
    """
    columns = []
    for name in table.columns:
        cells = [name, *(format_cell(name, value) for value in table[name])]
        size = max(map(len, cells))
        right = pd.api.types.is_numeric_dtype(table[name])
        columns.append([cell.rjust(size) if right else cell.ljust(size) for cell in cells])
    kept = len(columns)
    while kept > 1 and sum(len(column[0]) for column in columns[:kept]) + 2 * (kept - 1) > width:
        kept -= 1
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns[:kept], strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    return (
        lines
        if kept == len(columns)
        else [*lines, f"({len(columns) - kept} more columns in the table's file)"]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
