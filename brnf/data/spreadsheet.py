"""Rows of a CSV as spreadsheets and scripts write it, each with its place."""

import codecs
import csv
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brnf.errors import UserError

__all__ = ["Row", "read_rows"]

OTHER_SEPARATORS = {";": "';'", "\t": "tab"}


@dataclass(slots=True)
class Row:
    """A row of the table.

    Attributes:
        table: the file.
        line: its number.
        cells: text of each column.
        fault: why its cells cannot be told apart, or nothing.
    """

    table: Path
    line: int
    cells: dict[str, str]
    fault: str = ""

    @property
    def place(self) -> str:
        """Return where in the file it is, such as ``line 7``."""
        return f"line {self.line}"

    def __str__(self) -> str:
        """Return where the row is."""
        return f"{self.table}, {self.place}"

    def __contains__(self, column: str) -> bool:
        """Return whether the row has something in a column."""
        return bool(self.cells.get(column))


def read_rows(path: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV of UTF-8 or UTF-16, without rows and columns that are empty.

    Arguments:
        path: the file; read as its rows are asked for.
        columns: that may be there, in lower case; capitals do not count.
        needed: of them.

    Raises:
        UserError: it is no such file, or has other columns or no row.
    """
    header = f"{','.join(needed)}{''.join(f'[,{name}]' for name in columns[len(needed) :])}"
    empty = True
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            _check_separator(path, file.readline())
            file.seek(0)
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            titles = [title.strip().lower() for title in next(reader, [])]
            while titles and not titles[-1]:
                titles.pop()
            _check_header(path, titles, columns, needed, header)
            for cells in reader:
                stripped = list(map(str.strip, cells))
                while len(stripped) > len(titles) and not stripped[-1]:
                    stripped.pop()
                if any(stripped):
                    empty = False
                    yield _row(path, reader.line_num, titles, stripped)
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as a CSV ({error}); give a UTF-8 file with the columns "
            f"{header}"
        ) from error
    if empty:
        raise UserError(f"{path}: holds no image; add one row an image")


def _row(path: Path, line: int, titles: list[str], cells: list[str]) -> Row:
    fault = ""
    if not all(map(str.isprintable, cells)) and any(
        unicodedata.category(sign) == "Cc" for cell in cells for sign in cell
    ):
        fault = "a cell holds control characters or a line break; write it in one line"
    elif len(cells) != len(titles):
        fault = f"{len(cells)} cells under {len(titles)} columns; separate several labels by ;"
    return Row(path, line, dict(zip(titles, cells, strict=False)), fault)


def _encoding(path: Path) -> str:
    """Tell UTF-8 from UTF-16, which spreadsheets write with a mark in front, scripts without."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if b"\0" in start:
        return "utf-16-be" if start[:1] == b"\0" else "utf-16-le"
    return "utf-8-sig"


def _check_separator(path: Path, first: str) -> None:
    for separator, name in OTHER_SEPARATORS.items():
        if separator in first and "," not in first:
            raise UserError(
                f"{path}, line 1: columns are separated by {name}; save the table with commas, "
                "as ; separates labels"
            )


def _check_header(
    path: Path, titles: list[str], columns: Sequence[str], needed: Sequence[str], header: str
) -> None:
    problem = ""
    if missing := [name for name in needed if name not in titles]:
        problem = f"column '{missing[0]}' is missing"
    elif "" in titles:
        problem = f"column {titles.index('') + 1} has no name; remove it"
    elif unknown := [name for name in titles if name not in columns]:
        problem = f"unknown column '{unknown[0]}'"
    elif len(set(titles)) < len(titles):
        problem = "a column is there twice"
    if problem:
        raise UserError(f"{path}, line 1: {problem}; the header is {header}")
