"""Stage: measure one product of one model against the ground truth."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.evaluation import Scores
from brnf.data.index import ImageRecord, Index
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.evaluate.confusion import Confusion, intersection_over_union, mean_iou
from brnf.evaluate.scores import ScoreHistogram
from brnf.evaluate.truth import GroundTruth, MaskFolders, at_image_size
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked
from brnf.store.maps import CamMaps, MapReader

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    index: Path
    """Image index."""
    maps: tuple[Path, ...] = ()
    """Shards of maps to evaluate (or give masks)."""
    masks: tuple[Path, ...] = ()
    """Folders of PNG masks to evaluate (or give maps)."""
    probabilities: tuple[Path, ...] = ()
    """With masks: shards of the maps they were made from, for the sweep and the bias; may hold no
    image.
    """
    truth: tuple[Path, ...] = ()
    """Folders of drawn ground truth, where the data set has no mask files."""


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    evaluation: Path
    """JSON file of all measurements."""


@dataclass(frozen=True)
class Options:
    """What is measured, and the names it gets in the tables."""

    split: str
    """Split to evaluate on."""
    product: str = "prototype"
    """Product inside the map shards, or ``mask`` for PNG masks."""
    product_name: str | None = None
    """Product in the tables; None: the same."""
    probability_product: str = "probability"
    """Product inside the probability shards."""
    model: str = "base"
    """Model of the row in the tables."""
    protocol: str = "bench"
    """Protocol of the row in the tables."""
    seed: int = 0
    """Random seed the model was trained with."""
    scores: Scores = Scores()
    """What is read off the scores; thresholds have at most three digits."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Measure one product: confusion, IoU per class, threshold sweep and context bias."""
    _check(inputs, options)
    index = Index.of_split(inputs.index, options.split)
    truth = GroundTruth(index, inputs.index, options.split, inputs.truth)
    cv2.setNumThreads(runtime.threads)
    with locked(outputs.evaluation):
        measured = _measure(index, truth, inputs, options, runtime)
        with atomic_file(outputs.evaluation) as temporary:
            temporary.write_text(json.dumps(measured, indent=1, allow_nan=False) + "\n")


def _check(inputs: Inputs, options: Options) -> None:
    if bool(inputs.maps) == bool(inputs.masks) or bool(inputs.masks) != (options.product == "mask"):
        raise UserError(
            "evaluate: give either --maps and the --product inside them, or --masks and --product "
            "mask"
        )
    for threshold in options.scores.thresholds:
        if abs(round(threshold * 1000) - threshold * 1000) > 1e-6:
            raise UserError(
                f"evaluate.thresholds: {threshold} has more than three digits; round it"
            )


def _measure(
    index: Index, truth: GroundTruth, inputs: Inputs, options: Options, runtime: Runtime
) -> dict[str, Any]:
    """Go once through the images of the split and return everything that is written."""
    confusion = Confusion(len(index.classes) + 1)
    histogram = ScoreHistogram(len(index.classes))
    images = index.images
    without_mask = scored = 0
    for image, labels, maps in _predictions(images, len(index.classes), inputs, options, runtime):
        objects = truth.objects(image)
        if objects is None:
            without_mask += 1
            continue
        confusion.add(objects, labels)
        if maps is not None:
            scored += 1
            histogram.add(
                objects, maps.classes, maps.values[1:], truth.context(image), image.labels
            )
    if without_mask == len(images):
        raise UserError(
            f"split '{options.split}': none of its {len(images)} images has a ground-truth mask; "
            "evaluate another split"
        )
    if not confusion.counts.sum():
        raise UserError(
            f"split '{options.split}': its masks hold no labelled pixel (all are 255); check the "
            "mask files"
        )
    sweep = histogram.sweep(options.scores.thresholds) if scored else None
    reading = histogram.at_recall(options.scores.recall) if scored else None
    return {
        **{key: getattr(options, key) for key in ("model", "split", "protocol", "seed")},
        "product": options.product_name or options.product,
        "classes": ["background", *index.classes],
        "images": len(images) - without_mask,
        "images_without_mask": without_mask,
        "miou": float(mean_iou(confusion.counts)),
        "iou": [
            None if np.isnan(value) else value
            for value in intersection_over_union(confusion.counts).tolist()
        ],
        "unlabelled_pixels": confusion.unlabelled,
        "sweep": {**asdict(sweep), "best_miou": sweep.best[0], "best_threshold": sweep.best[1]}
        if sweep
        else None,
        "at_recall": {"target": options.scores.recall, **asdict(reading)} if reading else None,
        "confusion": confusion.counts.tolist(),
    }


def _predictions(
    images: tuple[ImageRecord, ...],
    classes: int,
    inputs: Inputs,
    options: Options,
    runtime: Runtime,
) -> Iterator[tuple[ImageRecord, NDArray[np.uint8], CamMaps | None]]:
    """Yield each image with its predicted classes, [H, W], and its maps at image size where there
    are any.
    """
    name = f"evaluate {options.model} {options.product_name or options.product} {options.split}"
    progress = Progress(images, name, runtime, unit="image")
    if inputs.maps:
        reader = MapReader(inputs.maps, options.product)
        for image in progress:
            maps = at_image_size(reader[image.id], image)
            yield image, maps.labels(), maps
        return
    folders = MaskFolders(inputs.masks, classes)
    probabilities = MapReader(inputs.probabilities, options.probability_product)
    given = bool(probabilities.images)
    for image in progress:
        yield (
            image,
            folders.read(image),
            at_image_size(probabilities[image.id], image) if given else None,
        )


if __name__ == "__main__":
    run_stage(run)
