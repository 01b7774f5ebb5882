"""The runs in a folder of results: what each is, and in which settings they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from brnf.config.experiment import COMPANION_OF
from brnf.config.recorded import UNSET, flattened, in_words
from brnf.config.renamed import with_new_names
from brnf.errors import UserError
from brnf.evaluate.comparison import read_runs
from brnf.evaluate.finished import measured_experiments
from brnf.evaluate.tables import markdown
from brnf.store.stamps import read_stamp

__all__ = ["Recorded", "describe", "differing", "listed", "read_recorded", "variants"]

RECORD = "config.yaml"
FOLLOWS = ("name", "protocol")
"""Keys that stand in the list of runs anyway."""


@dataclass(frozen=True)
class Recorded:
    """A run by what lies in its folder.

    Attributes:
        name: of its folder.
        settings: its ``config.yaml``.
        companion_of: the experiment beside which it runs, if any.
        finished: when its report was made, ISO 8601; empty without one.
        miou: model -> mIoU of its segmentation on val, as the comparison has it.
    """

    name: str
    settings: Mapping[str, Any]
    companion_of: str
    finished: str
    miou: Mapping[str, str]


def read_recorded(folders: Sequence[Path]) -> list[Recorded]:
    """Read runs, each from a folder that holds a ``config.yaml``, or all below a folder of results.

    Raises:
        UserError: there is none, or its record is damaged.
    """
    found: dict[Path, Recorded] = {}
    for folder in folders:
        inside = [folder / RECORD] if (folder / RECORD).is_file() else folder.glob(f"*/{RECORD}")
        records = sorted(inside)
        if not records:
            raise UserError(f"{folder}: holds no run; name results, or folders such as results/own")
        for record in records:
            found[record.parent.resolve()] = _read(record)
    return list(found.values())


def _read(record: Path) -> Recorded:
    folder = record.parent
    try:
        text = record.read_text(encoding="utf-8")
        settings = with_new_names(yaml.safe_load(text), quiet=True)
        *_, _, _ = settings["models"], settings["random_seeds"], settings["protocol"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{record}: missing or damaged record of an experiment; run the experiment again"
        ) from error
    first = text.split("\n", 1)[0]
    owner = first.removeprefix(COMPANION_OF) if first.startswith(COMPANION_OF) else ""
    report = read_stamp(folder / "report.html")
    return Recorded(
        folder.name, settings, owner, report.made if report else "", _segmentations(folder)
    )


def _segmentations(folder: Path) -> dict[str, str]:
    """Return the measured segmentations of a run whose tables belong to its settings."""
    if str(folder) not in measured_experiments(folder.parent):
        return {}
    return {run.model: f"{sum(run.miou) / len(run.miou):.1f}" for run in read_runs([folder])}


def listed(runs: Sequence[Recorded]) -> pd.DataFrame:
    """Return one row a run."""
    rows = [
        {
            "run": run.name + (f" (companion of {run.companion_of})" if run.companion_of else ""),
            "protocol": run.settings["protocol"],
            "models": ", ".join(run.settings["models"]),
            "seeds": ", ".join(map(str, run.settings["random_seeds"])),
            "finished": run.finished[:16].replace("T", " ") or "no",
            "mIoU of the segmentation": ", ".join(f"{one} {run.miou[one]}" for one in run.miou),
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def differing(runs: Sequence[Recorded]) -> pd.DataFrame:
    """Return one row a key that has not the same value in all runs, one column a run."""
    values = [flattened(run.settings) for run in runs]
    keys = {key: None for one in values for key in one if key not in FOLLOWS}
    rows = [
        {"key": key}
        | {run.name: in_words(one.get(key, UNSET)) for run, one in zip(runs, values, strict=True)}
        for key in keys
        if any(one.get(key, UNSET) != values[0].get(key, UNSET) for one in values)
    ]
    return pd.DataFrame(rows, columns=["key", *(run.name for run in runs)])


def variants(runs: Sequence[Recorded]) -> pd.DataFrame:
    """Return one row a variant that a run makes, with what differs from the section ``brnf``."""
    rows = [
        {
            "run": run.name,
            "model": model,
            "differs from brnf in": ", ".join(
                f"{key}: {in_words(value)}"
                for key, value in flattened(run.settings["variants"][model]).items()
            ),
        }
        for run in runs
        for model in run.settings["models"]
        if model in run.settings.get("variants", {})
    ]
    return pd.DataFrame(rows)


def describe(runs: Sequence[Recorded]) -> str:
    """Return all of it as Markdown."""
    different, own = differing(runs), variants(runs)
    parts = [markdown(listed(runs))]
    if len(runs) > 1:
        head = "What differs:\n\n"
        parts.append(head + markdown(different) if len(different) else "No setting differs.\n")
    if len(own):
        parts.append(f"Variants:\n\n{markdown(own)}")
    return "\n".join(parts)
