"""Stage: draw the figures of an experiment."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from brnf.config.sections.evaluation import Figures
from brnf.data.images import read_image
from brnf.data.index import ImageRecord, Index
from brnf.engine.history import read_history
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.example_figures import Example, examples_figure
from brnf.evaluate.figures import History, bias_figure, curves_figure, scores_figure
from brnf.evaluate.tables import read_evaluations, results_table, seeds_table
from brnf.evaluate.truth import GroundTruth, MaskFolders
from brnf.stages._cli import run_stage
from brnf.store.confidences import read_confidences
from brnf.store.files import atomic_file, locked
from brnf.store.label_type import Labels
from brnf.store.maps import MapReader

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    index: Path
    """Image index; only the examples are drawn from it."""
    panels: tuple[str, ...] = ()
    """What the examples show, ``title:product:path`` each: a shard of maps and the product inside
    it, or ``mask`` and a folder of PNG masks. Words of one title are shards of one panel; panels
    keep the order of their first word."""
    evaluations: tuple[Path, ...] = ()
    """JSON files of the stage evaluate."""
    histories: tuple[str, ...] = ()
    """Training curves, ``model:stage:path`` each; equal model and stage are runs of different
    seeds.
    """
    truth: tuple[Path, ...] = ()
    """Folders of drawn ground truth, where the data set has no mask files."""
    confidences: tuple[str, ...] = ()
    """How sure panels are of each image, ``title:path`` each: the CSV of predict_segmentation."""
    packed: tuple[Path, ...] = ()
    """Packs of its images and masks, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What is written; None leaves a figure out."""

    examples: Path | None = None
    """Images with their seeds and masks."""
    scores: Path | None = None
    """mIoU of every product."""
    bias: Path | None = None
    """mIoU against context bias at equal recall (data with context masks only)."""
    curves: Path | None = None
    """Training curves."""
    predictions: Path | None = None
    """Images with what segmenters say of them, and how sure they are."""


@dataclass(frozen=True)
class Options:
    """What is drawn."""

    split: str = "train"
    """Split the examples are from."""
    figures: Figures = Figures()
    """The examples; where none are named, the first by a hash of the id of those with the most
    panels, and with a mask where any image has one.
    """
    models: tuple[str, ...] = ("base", "brnf")
    """Models in their order."""
    products: tuple[str, ...] = (
        "cam_classifier",
        "cam_prototype",
        "seeds",
        "seeds_bsdnf",
        "pseudo_labels",
        "segmentation",
    )
    """Products in their order."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Draw the figures of an experiment."""
    pictures = [path for path in (outputs.examples, outputs.predictions) if path]
    others = [path for path in (outputs.scores, outputs.bias, outputs.curves) if path]
    if not pictures and not others:
        raise UserError(
            "draw: no figure asked for; give --examples, --predictions, --scores, --bias or "
            "--curves"
        )
    with locked([*pictures, *others][0]):
        for path in pictures:
            _save(path, _examples(inputs, options))
        if outputs.scores or outputs.bias:
            evaluations = read_evaluations(inputs.evaluations, options.models, options.products)
            if outputs.scores:
                _save(outputs.scores, scores_figure(results_table(evaluations)))
            if outputs.bias:
                table = seeds_table(evaluations)
                if table.fire70.isna().all():
                    raise UserError(
                        "draw: no evaluation holds a context bias, the data have no context masks; "
                        "leave --bias out"
                    )
                targets = [one["at_recall"]["target"] for one in evaluations if one["at_recall"]]
                _save(outputs.bias, bias_figure(table, 100 * targets[0]))
        if outputs.curves:
            _save(outputs.curves, curves_figure([_history(word) for word in inputs.histories]))


def _save(path: Path, figure: Figure) -> None:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _history(word: str) -> History:
    model, stage, path = _three(word, "histories", "model:stage:path")
    return History(model, stage, read_history(path))


def _three(word: str, flag: str, form: str) -> tuple[str, str, Path]:
    parts = word.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise UserError(f"--{flag}: '{word}' is not of the form {form}")
    return parts[0], parts[1], Path(parts[2])


class Panel:
    """One column of the examples: maps or masks of one product."""

    def __init__(self, product: str, paths: Sequence[Path]) -> None:
        self._source = MaskFolders(paths) if product == "mask" else MapReader(paths, product)

    def __contains__(self, image: str) -> bool:
        return image in self._source

    def labels(self, image: ImageRecord) -> Labels:
        """Return the classes of one image, [H, W]."""
        if isinstance(self._source, MaskFolders):
            return self._source.read(image)
        labels = self._source[image.id].labels()
        return np.asarray(
            cv2.resize(labels, (image.width, image.height), interpolation=cv2.INTER_NEAREST)
        )


def _examples(inputs: Inputs, options: Options) -> Figure:
    index = Index.of_split(inputs.index, options.split, inputs.packed)
    truth = GroundTruth(index, inputs.index, options.split, inputs.truth, inputs.packed)
    groups: dict[tuple[str, str], list[Path]] = {}
    for word in inputs.panels:
        title, product, path = _three(word, "panels", "title:product:path")
        groups.setdefault((title, product), []).append(path)
    panels = {title: Panel(product, paths) for (title, product), paths in groups.items()}
    sure = _confidences(inputs.confidences)
    examples = []
    for image in _choose(index, panels, truth, options):
        shown = {title: panel.labels(image) for title, panel in panels.items() if image.id in panel}
        known = {title: found[image.id] for title, found in sure.items() if image.id in found}
        examples.append(Example(read_image(image.path), truth.objects(image), shown, known))
    used = [title for title in panels if any(title in example.panels for example in examples)]
    return examples_figure(examples, used, index.classes, options.figures.palette)


def _confidences(words: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the confidences of each panel by the id of the image."""
    groups: dict[str, list[Path]] = {}
    for word in words:
        title, _, path = word.partition(":")
        if not title or not path:
            raise UserError(f"--confidences: '{word}' is not of the form title:path")
        groups.setdefault(title, []).append(Path(path))
    return {title: read_confidences(paths) for title, paths in groups.items()}


def _choose(
    index: Index, panels: dict[str, Panel], truth: GroundTruth, options: Options
) -> Sequence[ImageRecord]:
    """Return the images to show."""
    if options.figures.images:
        return index.select(options.figures.images)
    ranked = sorted(
        index.images,
        key=lambda image: (
            -sum(image.id in panel for panel in panels.values()),
            hashlib.sha256(image.id.encode()).digest(),
        ),
    )
    chosen: list[ImageRecord] = []
    for image in ranked:
        if len(chosen) == options.figures.count:
            break
        if truth.objects(image) is not None:
            chosen.append(image)
    return chosen or ranked[: options.figures.count]


if __name__ == "__main__":
    run_stage(run)
