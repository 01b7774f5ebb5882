"""What a reader wants to know of an experiment before its numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brnf.data.index import has_masks
from brnf.evaluate.names import model_name
from brnf.weights import clip_identity, identity

__all__ = ["facts", "index_notes"]

MOST_SAID = 12
"""Lines of the image index's summary that are shown."""


def facts(config: Mapping[str, Any], index: Path) -> dict[str, str]:
    """Return data, models, networks and lengths by their names.

    Arguments:
        config: of the experiment.
        index: folder of its image index.
    """

    def measured(split: str | None) -> str | None:
        known = split is None or not index.is_dir() or has_masks(index, split)
        return split if known else "nothing, for want of masks"

    dataset, backbone, segmentation = (
        config.get(key) or {} for key in ("dataset", "backbone", "segmentation")
    )
    found = {
        "data": dataset.get("kind"),
        "trained on": dataset.get("train"),
        "seeds evaluated on": measured(dataset.get("eval_split")),
        "segmentation evaluated on": measured(dataset.get("val")),
        "models": [model_name(str(model)) for model in config.get("models") or ()] or None,
        "random seeds": config.get("random_seeds"),
        "backbone": backbone.get("name"),
        "backbone weights": _weights(backbone),
        "segmentation backbone": segmentation.get("backbone"),
        "segmentation weights": _weights(segmentation),
        "scales of the maps": (config.get("cam") or {}).get("scales"),
        "segmentation iterations": _iterations(segmentation),
    }
    base = config.get("base") or {}
    if base.get("method") == "clip_es" and isinstance(clip := base.get("clip_es"), dict):
        found["weights of CLIP"] = clip_identity(str(clip.get("model")), str(clip.get("weights")))
    if dataset.get("kind") == "scenes":
        scenes = config.get("scenes") or {}
        found["context bias (ρ, ν)"] = [scenes.get("rho"), scenes.get("nu")]
    return {
        name: ", ".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
        for name, value in found.items()
        if value is not None
    }


def _iterations(segmentation: Mapping[str, Any]) -> str | None:
    """Say how long a segmenter was trained: its iterations, and the epochs that may end it."""
    iterations, epochs = segmentation.get("iterations"), segmentation.get("epochs")
    if iterations is None or epochs is None:
        return None if iterations is None else str(iterations)
    return f"{iterations}, or {epochs} epochs if these are fewer"


def index_notes(folder: Path) -> list[str]:
    """Return what the image index of an experiment says below its table: what was left out,
    corrected or doubted.
    """
    path = folder / "index" / "summary.md"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("- ") for line in lines[1:] if line and line[0] != "|"]
    said.sort(key=lambda line: not line.startswith("Warning"))  # no list of notes may hide it
    left = len(said) - MOST_SAID
    return [*said[:MOST_SAID], *([f"{left} more lines in index/summary.md"] if left > 0 else [])]


def _weights(section: Mapping[str, Any]) -> str | None:
    """Name the weights of a section by their tag or what their file holds now."""
    weights = section.get("weights")
    return identity(weights) if isinstance(weights, str) else None
