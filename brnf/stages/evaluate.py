"""Stage: measure one product of one model against the ground truth."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from brnf.config.sections.evaluation import Scores
from brnf.data.index import ImageRecord, Index
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.evaluate.confusion import Confusion, halves, intersection_over_union, mean_iou
from brnf.evaluate.scores import ScoreHistogram
from brnf.evaluate.truth import GroundTruth, MaskFolders, at_image_size
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked
from brnf.store.label_type import Labels, ignored_value
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
    packed: tuple[Path, ...] = ()
    """Packs of their masks, where no disk is shared (`docs/storage.md`)."""


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
    labels: Literal["given", "none"] | None = None
    """Whether the images' labels were given to what predicts, as to maps and pseudo-labels, or
    not, as to a segmentation; stands in the tables.
    """
    scores: Scores = Scores()
    """What is read off the scores."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Measure one product: confusion, IoU per class, threshold sweep and context bias."""
    _check(inputs, options)
    index = Index.of_split(inputs.index, options.split)
    truth = GroundTruth(index, inputs.index, options.split, inputs.truth, inputs.packed)
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


def _measure(
    index: Index, truth: GroundTruth, inputs: Inputs, options: Options, runtime: Runtime
) -> dict[str, Any]:
    """Go once through the images of the split and return everything that is written."""
    confusion = Confusion(len(index.classes) + 1)
    histogram = ScoreHistogram(len(index.classes))
    images = index.images
    without_mask = scored = 0
    half_of = halves(image.id for image in images)
    for image, labels, maps in _predictions(images, inputs, options, runtime):
        objects = truth.objects(image)
        if objects is None:
            without_mask += 1
            continue
        confusion.add(objects, labels)
        if maps is not None:
            if maps.classes.max(initial=0) > len(index.classes):
                raise UserError(
                    f"{image.id}: its maps are of class {maps.classes.max()}, and there are "
                    f"{len(index.classes)}; give maps that were made with this image index"
                )
            scored += 1
            histogram.add(
                objects,
                maps.classes,
                maps.values[1:],
                truth.context(image),
                image.labels,
                half_of[image.id],
            )
    if without_mask == len(images):
        raise UserError(
            f"split '{options.split}': none of its {len(images)} images has a ground-truth mask; "
            "evaluate another split"
        )
    nothing = ignored_value(len(index.classes))
    if not confusion.counts.sum():
        raise UserError(
            f"split '{options.split}': its masks hold no labelled pixel (all are {nothing}); "
            "check the mask files"
        )
    if not confusion.counts[:, :-1].any():
        raise UserError(
            f"{', '.join(map(str, inputs.masks))}: these predictions hold no class at all (every "
            f"value is {nothing} or above {len(index.classes)}); write class indices there"
        )
    known = int(confusion.counts.sum())
    sweep = histogram.sweep() if scored else None
    reading = histogram.at_recall(options.scores.recall) if scored else None
    return {
        **{key: getattr(options, key) for key in ("model", "split", "protocol", "seed", "labels")},
        "product": options.product_name or options.product,
        "classes": ["background", *index.classes],
        "images": len(images) - without_mask,
        "images_without_mask": without_mask,
        "miou": float(mean_iou(confusion.counts)),
        "iou": [
            None if np.isnan(value) else value
            for value in intersection_over_union(confusion.counts).tolist()
        ],
        "pixels": known,
        "unlabelled_pixels": confusion.unlabelled,
        "no_class": int(confusion.counts[:, -1].sum()) / known,
        "coverage": 1 - confusion.unlabelled / known,
        "sweep": asdict(sweep) if sweep else None,
        "at_recall": {"target": options.scores.recall, **asdict(reading)} if reading else None,
        "confusion": confusion.counts[:, :-1].tolist(),
        "no_class_pixels": confusion.counts[:, -1].tolist(),
    }


def _predictions(
    images: tuple[ImageRecord, ...],
    inputs: Inputs,
    options: Options,
    runtime: Runtime,
) -> Iterator[tuple[ImageRecord, Labels, CamMaps | None]]:
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
    folders = MaskFolders(inputs.masks)
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
