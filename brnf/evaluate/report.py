"""The HTML report: one file that holds everything it shows."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import pandas as pd

from brnf.evaluate.tables import format_cell

__all__ = ["Override", "Picture", "Section", "Table", "picture", "render", "table"]

BARS = ("miou", "bias", "own", "best", "fire70", "miou70")
"""Columns in percent whose cells carry a bar."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, whether it is a number, its bar's percentage or None."""

    text: str
    number: bool
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure with its caption; ``source`` is a data URI."""

    name: str
    caption: str
    source: str


@dataclass(frozen=True)
class Override:
    """A key of the configuration that differs from the paper's setting."""

    key: str
    paper: str
    value: str


@dataclass(frozen=True)
class Section:
    """What the report says of one experiment.

    Attributes:
        name: of the experiment.
        protocol: printed beside every number.
        facts: name -> value, the first things to know.
        tables: in their order.
        pictures: in their order.
        reference: the files that hold the paper's setting.
        overrides: what differs from it.
        configuration: the effective configuration, YAML.
        files: path relative to the report -> what it is.
    """

    name: str
    protocol: str
    facts: Mapping[str, str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    reference: str
    overrides: Sequence[Override]
    configuration: str
    files: Mapping[str, str] = field(default_factory=dict)


def table(frame: pd.DataFrame, caption: str, *, folded: bool = False) -> Table:
    """Turn a data frame into a table to show: percentages with one decimal and, for the main ones,
    a bar.
    """
    rows = []
    for values in frame.itertuples(index=False):
        cells = []
        for name, value in zip(frame.columns, values, strict=True):
            number = not isinstance(value, str)
            bar = (
                float(min(max(value, 0.0), 100.0))
                if number and name in BARS and not pd.isna(value)
                else None
            )
            cells.append(Cell(format_cell(name, value), number, bar))
        rows.append(tuple(cells))
    return Table(caption, tuple(map(str, frame.columns)), tuple(rows), folded)


def picture(name: str, caption: str, content: bytes) -> Picture:
    """Turn a PNG file's bytes into a figure to show."""
    return Picture(name, caption, f"data:image/png;base64,{base64.b64encode(content).decode()}")


def render(title: str, sections: Sequence[Section], protocols: Mapping[str, str]) -> str:
    """Return the report as HTML without any reference to another file but those of ``files``.

    Arguments:
        title: of the page.
        sections: one for each experiment, the main one first.
        protocols: name -> what it means, for those that occur.
    """
    source = resources.files("brnf.evaluate").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    context: dict[str, Any] = {"title": title, "sections": sections, "protocols": protocols}
    return environment.from_string(source).render(context) + "\n"
