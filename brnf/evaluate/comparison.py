"""The paper's main table with what was run here beside it, each number with its protocol."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from brnf.config.renamed import with_new_names
from brnf.config.studies import SUPERVISED
from brnf.errors import UserError

__all__ = ["NOT_REPORTED", "NOT_RUN", "PAPER", "Run", "comparison_table", "read_runs", "runs_table"]

PAPER: dict[str, tuple[float | None, float | None, float | None]] = {
    "SEAM": (64.5, 65.7, None),
    "OCR + SEAM": (67.8, 68.4, 33.2),
    "ReCAM": (68.5, 68.4, 42.9),
    "SIPE": (68.8, 69.7, 43.6),
    "SAS": (69.5, 70.1, 44.8),
    "CLIMS": (70.4, 70.0, None),
    "MCTformer": (71.9, 71.6, 42.0),
    "ACR": (71.9, 71.9, 45.3),
    "BECO": (72.1, 71.8, 45.1),
    "PSDPM": (74.1, 74.9, 47.2),
    "CPAL": (74.5, 74.7, 46.8),
    "SFC": (71.2, 72.5, 46.8),
    "SFC + BRNF": (74.8, 75.7, 47.7),
    "CLIP-ES": (71.1, 71.4, 45.4),
    "CLIP-ES + BRNF": (75.9, 76.2, 47.9),
}
"""Method -> mIoU of its segmentation in percent as the paper prints it (``docs/method.md`` section
10), in the order of :data:`SETS`.
"""
SETS = ("VOC val", "VOC test", "COCO val")
SIZES = {("voc", "val"): ("VOC val", 1449, 21), ("coco", "val"): ("COCO val", 40137, 81)}
"""Kind and split -> one of :data:`SETS`, its images and its classes with the background: fewer are
another, easier or harder, task.
"""
BASES = {"sipe": "SIPE", "sfc": "SFC", "clip_es": "CLIP-ES", "import": "imported maps"}
PROTOCOLS = ("paper", "bench", "scenes")
NOT_RUN = "not run here"
NOT_REPORTED = "not reported"


@dataclass(frozen=True)
class Run:
    """The segmentation of one model of one experiment, over its seeds.

    Attributes:
        model: its name in the experiment.
        method: as the table calls it, such as ``SIPE + BRNF``.
        data: what it was measured on: one of :data:`SETS`, or a description of anything else.
        protocol: of the experiment.
        experiment: its name.
        miou: of each seed, in percent.
    """

    model: str
    method: str
    data: str
    protocol: str
    experiment: str
    miou: tuple[float, ...]

    @property
    def cell(self) -> str:
        """Return the mean with all that tells what it is worth."""
        several = len(self.miou) > 1
        spread, seeds = (
            (f" ± {pd.Series(self.miou).std():.1f}", f", {len(self.miou)} seeds")
            if several
            else ("", "")
        )
        return (
            f"{sum(self.miou) / len(self.miou):.1f}{spread} "
            f"({self.protocol}: {self.experiment}{seeds})"
        )


def read_runs(experiments: Sequence[Path]) -> list[Run]:
    """Read the segmentations of finished experiments; what their configuration no longer names is
    left out.

    Arguments:
        experiments: folders with ``config.yaml`` and ``<model>/seed<n>/evaluation``.

    Raises:
        UserError: a file is missing or damaged.
    """
    found = []
    for folder in experiments:
        settings = _settings(folder)
        for model in settings["models"]:
            name = f"evaluation/segmentation-{settings['dataset']['val']}.json"
            files = [folder / model / f"seed{seed}" / name for seed in settings["random_seeds"]]
            measured = [_evaluation(file) for file in files if file.is_file()]
            if measured:
                first = measured[0]
                data = _data(settings["dataset"]["kind"], first)
                miou = tuple(100 * one["miou"] for one in measured)
                found.append(
                    Run(
                        model,
                        _method(settings["base"]["method"], model),
                        data,
                        first["protocol"],
                        folder.name,
                        miou,
                    )
                )
    return found


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    try:
        record = yaml.safe_load(file.read_text(encoding="utf-8"))
        settings = with_new_names(record, quiet=True)
        (
            settings["models"],
            settings["random_seeds"],
            settings["dataset"]["val"],
            settings["dataset"]["kind"],
            settings["base"]["method"],
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: missing or damaged record of an experiment; remove {folder} or run the "
            "experiment again"
        ) from error
    return settings


def _evaluation(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        (
            float(found["miou"]),
            found["protocol"],
            found["split"],
            int(found["images"]),
            len(found["classes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: damaged evaluation; remove it and run the experiment again"
        ) from error
    return found


def _method(base: str, model: str) -> str:
    """Return what the paper's table calls a model, or says nothing about."""
    name = BASES.get(base, base)
    known = {"base": name, "brnf": f"{name} + BRNF", SUPERVISED: "DeepLabV2 on true masks"}
    return known.get(model, f"{name}, model {model}")


def _data(kind: str, evaluation: dict[str, Any]) -> str:
    """Return whether the whole of one of the paper's sets was measured, and else what was."""
    split, images, classes = evaluation["split"], evaluation["images"], len(evaluation["classes"])
    name, *size = SIZES.get((kind, split), ("", 0, 0))
    if size == [images, classes]:
        return str(name)
    return f"{images} images of {kind} {split}, {classes} classes with background"


def comparison_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the paper's rows and those of our methods: the paper's mIoU on each of its sets, and
    ours.

    Arguments:
        runs: of this place; those on other data than the paper's sets have no cell here, see
            :func:`runs_table`.
    """
    methods = list(PAPER)
    for own in [f"{BASES['sipe']} + BRNF", *(run.method for run in runs if run.data in SETS)]:
        if own not in methods:
            after = [
                number for number, name in enumerate(methods) if _base_of(name) == _base_of(own)
            ]
            methods.insert(after[-1] + 1 if after else len(methods), own)
    rows = []
    for method in methods:
        printed = PAPER.get(method, (None, None, None))
        row = {"method": method} | {
            f"paper: {data}": NOT_REPORTED if value is None else f"{value:.1f}"
            for data, value in zip(SETS, printed, strict=True)
        }
        for data in SETS:
            cells = [run.cell for run in _ordered(runs) if (run.method, run.data) == (method, data)]
            row[f"here: {data}"] = "; ".join(cells) or NOT_RUN
        rows.append(row)
    return pd.DataFrame(rows)


def _base_of(method: str) -> str:
    return method.split(",")[0].split(" + ")[0]


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return everything that was run here, one row a model of an experiment, those of a protocol
    and of the same data together.

    Returns:
        Columns ``protocol, data, method, experiment, seeds, miou, miou_std``, in percent; the rows
        are in no order of merit.
    """
    rows = [
        {
            "protocol": run.protocol,
            "data": run.data,
            "method": run.method,
            "experiment": run.experiment,
            "seeds": len(run.miou),
            "miou": pd.Series(run.miou).mean(),
            "miou_std": pd.Series(run.miou).std(),
        }
        for run in _ordered(runs)
    ]
    return pd.DataFrame(
        rows, columns=["protocol", "data", "method", "experiment", "seeds", "miou", "miou_std"]
    )


def _ordered(runs: Sequence[Run]) -> list[Run]:
    """Put the runs of a protocol together, and among them those on the same data."""
    rank = {name: number for number, name in enumerate(PROTOCOLS)}
    return sorted(
        runs,
        key=lambda run: (rank.get(run.protocol, len(rank)), run.protocol, run.data, run.experiment),
    )
