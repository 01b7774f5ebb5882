"""Masks of new photographs, written file by file."""

import csv
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from brnf.config.fields import plain
from brnf.data.masks import write_mask
from brnf.data.table import list_table
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.store.files import atomic_file, locked
from brnf.use.model import Model, Prediction
from brnf.use.photographs import Photograph

__all__ = ["Products", "labels_of", "predict_files"]

MASKS, OVERLAYS, CONFIDENCE = ("masks", ".png"), ("overlays", ".jpg"), ("confidence", ".png")
"""Folder and ending of each product."""
RECORD = "predictions.json"
NO_MEMORY = ("alloc", "out of memory", "not enough memory")
Labels = Mapping[Path, Sequence[str]] | Sequence[str] | None
"""Of each photograph by its resolved path, of all, or none."""


@dataclass(frozen=True)
class Products:
    """What is written of each photograph beside its mask.

    Attributes:
        overlay: the photograph under its classes' colours, ``overlays/<name>.jpg``.
        confidence: probability of the winning class in 0..255, ``confidence/<name>.png``.
    """

    overlay: bool = False
    confidence: bool = False

    def files(self, out: Path, name: Path) -> dict[str, Path]:
        """Return the files about a photograph by the folder of their product."""
        chosen = [MASKS, *([OVERLAYS] if self.overlay else ())]
        chosen += [CONFIDENCE] if self.confidence else []
        return {folder: out / folder / f"{name}{ending}" for folder, ending in chosen}


def labels_of(word: str, classes: Sequence[str]) -> Labels:
    """Return the labels that a user gives.

    Arguments:
        word: ``cat,dog`` for all photographs, or a CSV with the columns ``image`` and ``labels``.
        classes: that the network knows.

    Raises:
        UserError: a label is unknown, or the CSV cannot be read.
    """
    if word.lower().endswith(".csv"):
        listed = list_table(Path(word), classes=classes)
        return {Path(entry.image).resolve(): sorted(entry.labels or ()) for entry in listed.entries}
    named = [part.strip() for part in word.split(",") if part.strip()]
    if unknown := [name for name in named if name not in classes]:
        known = ", ".join(classes)
        raise UserError(f"--labels: '{unknown[0]}' is none of the network's classes: {known}")
    return named


def predict_files(
    model: Model,
    photographs: Sequence[Photograph],
    out: Path,
    products: Products,
    labels: Labels,
    runtime: Runtime,
    overwrite: bool = False,
) -> int:
    """Write what a network says about each photograph; return how many could not be used.

    A photograph whose files are all there is passed over. One that cannot be read is named on the
    standard error, and the rest goes on.

    Arguments:
        model: predicts.
        photographs: to predict.
        out: folder of the outputs: ``masks/<name>.png`` with 0 background, 1..C, and 255 (of
            two bytes 65535) unsure, ``classes.csv``, and what ``products`` say.
        products: beside the masks.
        labels: for a CAM network.
        runtime: how progress is shown.
        overwrite: predict photographs again whose files are there.

    Raises:
        UserError: the folder holds predictions of another network or of other options, or cannot be
            written.
    """
    with locked(out / RECORD):
        _begin(model, out, overwrite)
        files = {one: products.files(out, one.name) for one in photographs}
        todo = [
            one
            for one in photographs
            if overwrite or not all(file.is_file() for file in files[one].values())
        ]
        if kept := len(photographs) - len(todo):
            print(f"{kept} of {len(photographs)} photographs are done already", file=sys.stderr)
        bad = 0
        for one in Progress(todo, "predict", runtime, unit="photograph"):
            try:
                prediction = model(one.path, _labels(labels, one.path))
            except (UserError, MemoryError, RuntimeError) as error:
                bad += 1
                print(f"error: {_reason(one.path, error)}", file=sys.stderr, flush=True)
                continue
            for product, file in files[one].items():
                _write(product, file, prediction)
        return bad


def _begin(model: Model, out: Path, overwrite: bool) -> None:
    """Write which network predicts how, and what its masks hold, unless others stand there."""
    state = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        state.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    record = {"network": state.hexdigest(), "options": plain(model.file.use)}
    text = json.dumps(record, indent=1) + "\n"
    path = out / RECORD
    for folder, _ in (MASKS, OVERLAYS, CONFIDENCE):
        if not path.is_file() and (out / folder).exists():
            raise UserError(
                f"{out / folder}: was not written by brnf predict and stays; give another folder"
            )
    if path.is_file() and path.read_text() != text and not overwrite:
        raise UserError(
            f"{out}: holds predictions of another network or of other options; give another "
            "folder, or --overwrite"
        )
    with atomic_file(path) as temporary:
        temporary.write_text(text)
    names, values = ("background", *model.classes), (0, *model.file.mask_values)
    rows = zip(names, values, model.file.palette, strict=True)
    with (
        atomic_file(out / "classes.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "name", "mask_value", "red", "green", "blue"))
        writer.writerows((i, name, value, *colour) for i, (name, value, colour) in enumerate(rows))


def _labels(labels: Labels, path: Path) -> Sequence[str] | None:
    """Return the labels of one photograph.

    Raises:
        UserError: the table has no row for it.
    """
    if not isinstance(labels, Mapping):
        return labels
    if path.resolve() not in labels:
        raise UserError(f"{path}: has no row in the table of labels; add one")
    return labels[path.resolve()]


def _reason(path: Path, error: Exception) -> str:
    """Return the line that tells why a photograph cannot be used."""
    if isinstance(error, UserError):
        return str(error) if str(path) in str(error) else f"{path}: {error}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return f"{path}: out of memory; give a smaller --long-side"
    raise error


def _write(product: str, path: Path, prediction: Prediction) -> None:
    """Write one product of a photograph, whole or not at all."""
    with atomic_file(path) as temporary:
        if product == MASKS[0]:
            write_mask(temporary, prediction.mask)
        elif product == OVERLAYS[0]:
            Image.fromarray(prediction.overlay()).save(temporary, format="JPEG", quality=92)
        else:
            grey = (255 * prediction.confidence).round().astype(np.uint8)
            Image.fromarray(grey).save(temporary, format="PNG")
