"""The HTML report: one file that holds everything it shows."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from brnf.evaluate.captions import Caption
from brnf.evaluate.making import Making, duration
from brnf.evaluate.names import column_name, model_name, product_name
from brnf.evaluate.tables import format_cell

__all__ = ["Override", "Picture", "Section", "Table", "picture", "render", "table"]

BARS = ("miou", "bias", "own", "best", "fire70", "miou70")
"""Columns in percent whose cells carry a bar."""
LESS_IS_BETTER = ("bias", "fire70")
NAMES = {"model": model_name, "product": product_name}
"""Columns whose cells have readable names."""
PARTS = ("report.html.j2", "report.css", "report.js")


@dataclass(frozen=True)
class Column:
    """The head of a column, and whether numbers stand below it."""

    name: str
    number: bool


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, its bar's percentage or None, and whether the bar is of what
    should be small.
    """

    text: str
    bar: float | None = None
    fire: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    caption: Caption
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its file.
        caption: what stands beside it.
        source: a data URI.
        file: where it lies, relative to the report.
        width: in pixels.
        height: in pixels.
        chart: whether it may be drawn light on dark.
    """

    name: str
    caption: Caption
    source: str
    file: str
    width: int
    height: int
    chart: bool


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
        index: what the image index left out, corrected or doubts, a line each.
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
    index: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    reference: str
    overrides: Sequence[Override]
    configuration: str
    files: Mapping[str, str] = field(default_factory=dict)


def table(frame: pd.DataFrame, caption: Caption) -> Table:
    """Turn a data frame into a table to show: readable names, percentages with one decimal and, for
    the main ones, a bar.
    """
    columns = []
    for name in map(str, frame.columns):
        number = pd.api.types.is_numeric_dtype(frame[name])
        columns.append(Column(column_name(name), number))
    rows = [
        tuple(_cell(str(name), value) for name, value in zip(frame.columns, values, strict=True))
        for values in frame.itertuples(index=False)
    ]
    return Table(caption, tuple(columns), tuple(rows))


def _cell(column: str, value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(NAMES[column](value) if column in NAMES else value)
    barred = column in BARS and not pd.isna(value)
    bar = float(min(max(value, 0.0), 100.0)) if barred else None
    return Cell(format_cell(column, value), bar, column in LESS_IS_BETTER)


def picture(name: str, caption: Caption, content: bytes, file: str, *, chart: bool) -> Picture:
    """Turn a PNG file's bytes into a figure to show."""
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Picture(name, caption, source, file, width, height, chart)


def render(
    title: str,
    sections: Sequence[Section],
    protocols: Mapping[str, str],
    made: Making | None = None,
) -> str:
    """Return the report as HTML without any reference to another file but those of ``files``.

    Arguments:
        title: of the page.
        sections: one for each experiment, the main one first.
        protocols: name -> what it means, for those that occur.
        made: when, by what and where; None where no stamp says it.
    """
    folder = resources.files("brnf.evaluate")
    page, style, script = (folder.joinpath(part).read_text(encoding="utf-8") for part in PARTS)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["duration"] = duration
    context: dict[str, Any] = {
        **{"title": title, "sections": sections, "protocols": protocols, "made": made},
        **{"style": Markup(style), "script": Markup(script)},
    }
    return environment.from_string(page).render(context) + "\n"
