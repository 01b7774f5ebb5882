"""Stage: write the HTML report of an experiment and its companions."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from brnf.config.protocol import differences, paper_files
from brnf.config.schema import oversized
from brnf.engine.runtime import Runtime
from brnf.errors import DamagedProduct, UserError
from brnf.evaluate.records import read_table
from brnf.evaluate.report import Override, Picture, Section, Table, picture, render, table
from brnf.evaluate.tables import KEY
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked
from brnf.weights import clip_identity, identity

__all__ = ["Inputs", "Options", "Outputs", "run"]

TABLES = {
    "results": ("mIoU, bias and IoU per class (%, mean over seeds)", False),
    "seeds": (
        "Seeds: own background, best constant threshold, equal object recall (%, mean over seeds)",
        False,
    ),
    "by_seed": ("mIoU, bias and IoU per class for each seed (%)", True),
}
"""File in ``tables/`` -> caption, and whether it is folded."""

FIGURES = {
    "examples": "Images with their ground truth, seeds and masks. "
    "White lines are the outlines of the true objects.",
    "bias": "mIoU against the context inside the seed at equal object recall. "
    "Large marks are means, dots seeds; up and left is better.",
    "scores": "mIoU of every product. Large marks are means, small dots seeds.",
    "curves": "Training curves; thin lines are single steps, thick ones their moving mean.",
}
"""File in ``figures/`` -> caption, in the order of the report."""

PROTOCOLS = {
    "paper": "the paper's setting: no key that a number depends on differs from it.",
    "bench": "a setting of its own: "
    "the keys that differ from the paper's are listed with the experiment.",
    "scenes": "rendered scenes with known context bias, a small frozen backbone, "
    "a few hundred training steps.",
}


SECTIONS = ("dataset", "backbone", "segmentation", "cam", "scenes", "base")
"""Of the configuration, from which facts are shown."""


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    experiments: tuple[Path, ...]
    """Folders ``results/<name>`` with config.yaml, tables/ and figures/; the main experiment first,
    then its companions.
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
    sections = [_section(folder, outputs.report.parent) for folder in inputs.experiments]
    used = dict.fromkeys(section.protocol for section in sections)
    with locked(outputs.report), atomic_file(outputs.report) as temporary:
        temporary.write_text(
            render(options.title, sections, {name: PROTOCOLS.get(name, "") for name in used}),
            encoding="utf-8",
        )


def _section(folder: Path, home: Path) -> Section:
    """Read one experiment."""
    path = folder / "config.yaml"
    config = _yaml(path)
    files = [
        path,
        *sorted((folder / "tables").glob("*")),
        *sorted((folder / "figures").glob("*.png")),
    ]
    return Section(
        name=str(config.get("name", folder.name)),
        protocol=str(config.get("protocol", "bench")),
        facts=_facts(config),
        tables=_tables(folder),
        pictures=_pictures(folder),
        reference=" + ".join(f"config/{file}" for file in paper_files(config)),
        overrides=[
            Override(one.key, json.dumps(one.paper), json.dumps(one.here))
            for one in differences(config)
        ],
        configuration=path.read_text(),
        files={
            os.path.relpath(file, home): f"{file.stat().st_size / 1024:,.0f} KB"
            for file in files
            if not file.name.startswith(".")
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


def _tables(folder: Path) -> list[Table]:
    tables = []
    for name, (caption, folded) in TABLES.items():
        path = folder / "tables" / f"{name}.csv"
        frame = read_table(path, "tabulate", words=tuple(KEY))
        if len(frame):
            tables.append(table(frame, caption, folded=folded))
    return tables


def _pictures(folder: Path) -> list[Picture]:
    known = [(folder / "figures" / f"{name}.png", caption) for name, caption in FIGURES.items()]
    others = [
        (path, path.stem)
        for path in sorted((folder / "figures").glob("*.png"))
        if path.stem not in FIGURES and path.stem[0] != "."
    ]
    return [
        picture(path.stem, caption, path.read_bytes())
        for path, caption in [*known, *others]
        if path.exists()
    ]


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader wants to know first."""
    dataset, backbone, segmentation = (
        config.get(key) or {} for key in ("dataset", "backbone", "segmentation")
    )
    facts = {
        "data": dataset.get("kind"),
        "trained on": dataset.get("train"),
        "seeds evaluated on": dataset.get("seeds"),
        "segmentation evaluated on": dataset.get("val"),
        "models": config.get("models"),
        "seeds of the random generators": config.get("seeds"),
        "backbone": backbone.get("name"),
        "backbone weights": _weights(backbone),
        "segmentation backbone": segmentation.get("backbone"),
        "segmentation weights": _weights(segmentation),
        "scales of the maps": (config.get("cam") or {}).get("scales"),
        "segmentation iterations": segmentation.get("iterations"),
    }
    base = config.get("base") or {}
    if base.get("method") == "clip_es" and isinstance(clip := base.get("clip_es"), dict):
        facts["weights of CLIP"] = clip_identity(str(clip.get("model")), str(clip.get("weights")))
    if dataset.get("kind") == "scenes":
        scenes = config.get("scenes") or {}
        facts["context bias (ρ, ν)"] = [scenes.get("rho"), scenes.get("nu")]
    return {
        name: ", ".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
        for name, value in facts.items()
        if value is not None
    }


def _weights(section: Mapping[str, Any]) -> str | None:
    """Name the weights of a section by their tag or what their file holds now."""
    weights = section.get("weights")
    return identity(weights) if isinstance(weights, str) else None


if __name__ == "__main__":
    run_stage(run)
