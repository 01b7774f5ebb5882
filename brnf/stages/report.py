"""Stage: write the HTML report of an experiment and its companions."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from brnf.config.protocol import differences, paper_files
from brnf.config.schema import oversized
from brnf.engine.runtime import Runtime
from brnf.errors import DamagedProduct, UserError
from brnf.evaluate.captions import (
    CHARTS,
    FIGURES,
    PROTOCOLS,
    STUDY_FIGURES,
    STUDY_TABLES,
    TABLES,
    Caption,
)
from brnf.evaluate.facts import facts, index_notes
from brnf.evaluate.making import making
from brnf.evaluate.records import read_table
from brnf.evaluate.report import Override, Section, Table, picture, render, table
from brnf.evaluate.tables import KEY, for_reading, remarks
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked
from brnf.store.stamps import Stamp, read_stamp
from brnf.use.provenance import origins
from brnf.workflow.provenance import Provenance

__all__ = ["Inputs", "Options", "Outputs", "run"]

SECTIONS = ("dataset", "backbone", "segmentation", "cam", "scenes", "base")
"""Of the configuration, from which facts are shown."""
ENDINGS = (".csv", ".md")


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    experiments: tuple[Path, ...]
    """Folders ``results/<name>`` with config.yaml; the main experiment first, then its companions.
    """
    tables: tuple[Path, ...] = ()
    """``tables/results.csv`` of those experiments in which something was measured; the other tables
    stand beside it.
    """
    figures: tuple[Path, ...] = ()
    """Figures that the experiments have now. Of others in their folders, and of tables, those of
    studies are shown that are known to follow from files that are still there.
    """


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    report: Path
    """One HTML file without any reference to the network."""


@dataclass(frozen=True)
class Options:
    """How it is called."""

    title: str = "BRNF: bias-resilient weakly supervised segmentation"
    """Headline of the page."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Write the HTML report of an experiment and its companions."""
    if not inputs.experiments:
        raise UserError("report: no experiment given; give at least one folder results/<name>")
    home = outputs.report.parent
    sections = [_section(folder, inputs, home) for folder in inputs.experiments]
    used = dict.fromkeys(section.protocol for section in sections)
    protocols = {name: PROTOCOLS.get(name, "") for name in used}
    made = making(_stamps(home / file for section in sections for file in section.files))
    with locked(outputs.report), atomic_file(outputs.report) as temporary:
        page = render(options.title, sections, protocols, made)
        temporary.write_text(page, encoding="utf-8")


def _stamps(files: Iterable[Path]) -> list[Stamp]:
    """Return the stamps of files and of all that they were made from."""
    found: dict[str, Stamp] = {}
    for file in files:
        path = Path(os.path.relpath(file))
        if read_stamp(path) is not None:
            found |= origins(path)
    return list(found.values())


def _section(folder: Path, inputs: Inputs, home: Path) -> Section:
    """Read one experiment."""
    path = folder / "config.yaml"
    config = _yaml(path)
    names = TABLES if folder / "tables" / "results.csv" in inputs.tables else {}
    figures = _figures(folder, inputs.figures)
    own = [folder / "tables" / f"{name}{ending}" for name in names for ending in ENDINGS]
    studies = _studies(folder / "tables", "*", TABLES)
    files = [path, *filter(Path.is_file, own), *studies, *sorted(figures)]
    return Section(
        name=str(config.get("name", folder.name)),
        protocol=str(config.get("protocol", "bench")),
        facts=facts(config, folder / "index"),
        index=index_notes(folder),
        tables=[*_tables(folder, names), *_study_tables(studies)],
        pictures=[
            picture(
                file.stem,
                caption,
                file.read_bytes(),
                os.path.relpath(file, home),
                chart=file.stem in CHARTS,
            )
            for file, caption in figures.items()
        ],
        reference=" + ".join(f"config/{file}" for file in paper_files(config)),
        overrides=[
            Override(one.key, json.dumps(one.paper), json.dumps(one.here))
            for one in differences(config)
        ],
        configuration=path.read_text(),
        files={
            os.path.relpath(file, home): f"{file.stat().st_size / 1024:,.0f} KB" for file in files
        },
    )


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the workflow first")
    try:
        content = yaml.safe_load(path.read_text())
    except Exception as error:  # yaml meets damaged text with many kinds of exceptions
        raise DamagedProduct(path, f"no YAML ({error})", "the workflow") from error
    sections = (
        [content.get(key) for key in SECTIONS]
        if isinstance(content, dict) and not oversized(content)
        else [None]
    )
    if not all(
        section is None or isinstance(section, dict) for section in sections
    ) or sections == [None]:
        raise DamagedProduct(path, "holds no configuration", "the workflow")
    found: dict[str, Any] = content
    return found


def _tables(folder: Path, names: Iterable[str]) -> list[Table]:
    tables = []
    for name in names:
        path = folder / "tables" / f"{name}.csv"
        frame = read_table(path, "tabulate", words=tuple(KEY))
        if len(frame):
            shown, said = for_reading(frame)
            if shown.protocol.nunique() == 1:  # stands beside the section's name
                shown = shown.drop(columns="protocol")
            notes = remarks(frame) if "seed" in frame else []
            text = " ".join(
                [
                    TABLES[name].text,
                    *(f"{note[0].upper()}{note[1:]}." for note in (said, *notes) if note),
                ]
            )
            tables.append(table(shown, replace(TABLES[name], text=text)))
    return tables


def _study_tables(files: Iterable[Path]) -> list[Table]:
    """Return the tables of studies that have a caption; others are among the files."""
    tables = []
    for path in files:
        if path.suffix == ".csv" and (caption := STUDY_TABLES.get(path.stem)):
            frame = read_table(path, "the study").dropna(axis="columns", how="all")
            if len(frame):
                tables.append(table(frame, caption))
    return tables


def _figures(folder: Path, given: Sequence[Path]) -> dict[Path, Caption]:
    """Return the figures of an experiment and their captions: those that were drawn for the report,
    none that an earlier run left, and those of studies.
    """
    paths = {name: folder / "figures" / f"{name}.png" for name in FIGURES}
    known = {paths[name]: caption for name, caption in FIGURES.items() if paths[name] in given}
    return known | {
        path: STUDY_FIGURES.get(path.stem, Caption(path.stem, ""))
        for path in _studies(folder / "figures", "*.png", FIGURES)
    }


def _studies(folder: Path, pattern: str, known: Iterable[str]) -> list[Path]:
    """Return the other files in a folder that are what their stamps say, made from files that are
    so.
    """
    provenance, others = Provenance(lambda path: None), frozenset(known)
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.is_file()
        and path.stem not in others
        and read_stamp(path) is not None
        and provenance.verdict(str(path)).fault is None
    ]


if __name__ == "__main__":
    run_stage(run)
