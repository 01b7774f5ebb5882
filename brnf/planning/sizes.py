"""How many images a split has and how large they are, and the bytes that follow from it.

Of a data set without an image index the numbers of docs/method.md section 1 are taken, or that of
the photographs where there are fewer, and images of 512 x 512.
"""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from brnf.config.experiment import Experiment
from brnf.data.index import Index
from brnf.planning.jobs import Job

__all__ = ["RESNET50", "SIZES", "SMALL", "SplitSize", "bytes_made", "split_size", "splits_of"]

IMAGES = {
    "voc": {"train": 1464, "train_aug": 10582, "val": 1449, "test": 1456},
    "coco": {"train": 82081, "val": 40137},
}
CLASSES = {"voc": 20, "coco": 80, "scenes": 6}
LABELS = {"voc": 1.5, "coco": 2.9, "scenes": 1.7}
"""Classes of an image on average; only as long as there is no index."""
SIDE = 512
"""Pixels of a side of an image as long as there is no index: 1,024 rows an image, as in
``docs/method.md`` section 4.
"""
STRIDE = 16
RESNET50 = (256, 512, 1024, 2048)
"""Channels of the four stages of ResNet-50, wider than which no usual backbone is."""
ROW_BYTES = 13
"""Of a row of the pixel store beside its features: scores, label, image, position."""
FLOAT_BYTES = 4
MAP_SHARE = 0.45
"""Bytes of stored maps over those of their float16 values; 0.27 to 0.43 were measured on
photographs of VOC.
"""
MASK_BYTES = 0.025
"""Of a mask's PNG for each pixel; 0.014 to 0.020 were measured on photographs of VOC."""
SCENE_BYTES = 1.4
"""Of a rendered scene with its masks, for each pixel; 0.7 to 1.3 were measured on sides of 448 to
96 pixels.
"""


@dataclass(frozen=True)
class SplitSize:
    """The images of one split.

    Attributes:
        images: how many.
        classes: C.
        labels: of an image, on average.
        pixels: of all images together.
        map_values: pixels times channels of a map, background included, of all images together.
        rows: of the pixel store.
    """

    images: int
    classes: int
    labels: float
    pixels: float
    map_values: float
    rows: float


def split_size(experiment: Experiment, split: str, index: Path) -> SplitSize:
    """Return how large a split is.

    Arguments:
        experiment: whose sizes of maps and grids are taken.
        split: its name.
        index: folder of the image index, which need not exist.
    """
    cam = experiment.settings["cam"]
    if (index / "splits" / f"{split}.csv").is_file():
        classes, shapes = _listed(index, split)
        return _size(shapes, [1] * len(shapes), classes, cam)
    dataset, side = experiment.settings["dataset"], SIDE
    images = _public_images(dataset["kind"], dataset["root"], split)
    if dataset["kind"] == "scenes":
        images, side = experiment.settings["scenes"][split], experiment.settings["scenes"]["size"]
    elif dataset["kind"] == "table":
        images = _rows_of_table(Path(dataset["table"]), split)
    images = min(images, dataset["limit"] or images)
    labels = LABELS.get(dataset["kind"], 2.0)
    return _size([(side, side, labels)], [images], _class_count(experiment), cam)


@cache
def _listed(index: Path, split: str) -> tuple[int, list[tuple[int, int, float]]]:
    """Return the number of classes, and height, width and number of labels of every image."""
    listed = Index.of_split(index, split)
    return len(listed.classes), [
        (image.height, image.width, float(len(image.labels))) for image in listed.images
    ]


@cache
def _public_images(kind: str, root: str | None, split: str) -> int:
    """Return the number of images in a split of VOC or COCO, but no more than photographs lie where
    that data set has them; else 0.
    """
    images = IMAGES.get(kind, {}).get(split, 0)
    for folder in (
        "JPEGImages",
        "VOC2012/JPEGImages",
        "VOCdevkit/VOC2012/JPEGImages",
        f"{split}2014",
        f"images/{split}2014",
    ):
        photographs = Path(root or "") / folder
        if root and photographs.is_dir():
            return min(images, len(os.listdir(photographs)))
    return images


def _class_count(experiment: Experiment) -> int:
    """Return the number C of classes as far as the configuration tells it."""
    dataset = experiment.settings["dataset"]
    return len(dataset["classes"]) or CLASSES.get(dataset["kind"], 20)


def _rows_of_table(table: Path, split: str) -> int:
    """Count a split's images in a CSV table; without a column ``split`` all count."""
    with table.open(newline="") as file:
        return sum(row.get("split") in (None, "", split) for row in csv.DictReader(file))


def _size(
    shapes: Sequence[tuple[int, int, float]],
    counts: Sequence[int],
    classes: int,
    cam: Mapping[str, Any],
) -> SplitSize:
    """Add up images of given heights, widths and numbers of labels, each so often."""
    labelled = pixels = map_values = rows = 0.0
    for (height, width, labels), count in zip(shapes, counts, strict=True):
        scale = cam["image_long_side"] / max(height, width) if cam["image_long_side"] else 1.0
        grid = (math.ceil(side * scale / STRIDE) for side in (height, width))
        stored = (-(-side // cam["map_stride"]) for side in (height, width))
        pixels += count * height * width
        map_values += count * (1 + labels) * math.prod(stored)
        rows += count * math.prod(grid)
        labelled += count * labels
    images = sum(counts)
    return SplitSize(images, classes, labelled / max(images, 1), pixels, map_values, rows)


def splits_of(job: Job, experiment: Experiment) -> list[str]:
    """Return the splits whose images a job goes through or is trained on; none for tables."""
    if "split" in job.wildcards:
        return [job.wildcards["split"]]
    if job.rule == "render_scenes":
        return ["train", "val"]
    if job.rule == "index_images":
        return experiment.splits()
    if job.rule == "export_maps":
        return list(dict.fromkeys(map(experiment.computed_split, experiment.splits())))
    key = "test" if job.rule == "export_predictions" else "train"
    return [experiment.settings["dataset"][key]] if "model" in job.wildcards else []


Product = Literal["cache", "map", "two maps", "exported", "pixels", "masks", "labels", "scenes"]
SIZES: Mapping[str, Product] = {
    "render_scenes": "scenes",
    "draw_masks": "masks",
    "train_base": "cache",
    "train_brnf": "cache",
    "compute_cams": "two maps",
    "import_maps": "two maps",
    "compute_clip_maps": "two maps",
    "export_maps": "exported",
    "store_pixels": "pixels",
    "denoise_seeds": "map",
    "make_pseudo_labels": "labels",
    "walk_pseudo_labels": "labels",
    "make_boundary_labels": "masks",
    "predict_segmentation": "labels",
    "export_predictions": "masks",
}
"""Rule -> what it writes; a training with ``cache`` keeps that until it ends."""
SMALL = frozenset(
    {
        *("index_images", "write_config", "evaluate", "sweep_denoising", "measure_scaling"),
        *("train_flow", "fit_density", "train_boundaries", "train_segmentation"),
        *("tabulate", "tabulate_sweeps", "tabulate_comparison", "compare_models"),
        *("compare_points", "draw", "draw_density", "draw_scaling", "draw_sensitivity", "report"),
        *("download_voc12", "download_voc12_test", "download_coco14"),
    }
)
"""Rules whose outputs need no counting: lists, tables, figures, a network each. A download looks
for room itself, as soon as the server has told the size of the archive.
"""


def bytes_made(
    rule: str,
    experiment: Experiment,
    model: str,
    size: SplitSize,
    channels: Sequence[int] = RESNET50,
) -> float:
    """Return the bytes that a rule writes for a split.

    Arguments:
        rule: its name.
        experiment: whose settings are taken.
        model: whose run it is.
        size: of the split.
        channels: of the backbone's four stages.

    Returns:
        0 for rules that write little.
    """
    settings = experiment.settings
    match SIZES.get(rule):
        case "map":
            return 2 * MAP_SHARE * size.map_values
        case "two maps":
            return 4 * MAP_SHARE * size.map_values
        case "exported":
            return 2 * FLOAT_BYTES * size.map_values
        case "pixels":
            dimension: int = sum(map(min, settings["cam"]["side_widths"], channels))
            return size.rows * (2 * dimension + ROW_BYTES)
        case "masks":
            return MASK_BYTES * size.pixels
        case "labels":
            predicted = rule == "predict_segmentation"
            section = settings["segmentation"]["test"] if predicted else settings["pseudo_labels"]
            maps = 1 + (size.classes if predicted else size.labels)
            kept = 2 * MAP_SHARE * maps if section["save_probabilities"] else 0.0
            return (MASK_BYTES + kept) * size.pixels
        case "scenes":
            return float(SCENE_BYTES * size.images * settings["scenes"]["size"] ** 2)
        case "cache" if (training := experiment.network(model))["cache"]:
            strides = (min(own, settings["backbone"]["stride"]) for own in (4, 8, 16, 32))
            sides = (training["crop"] / stride for stride in strides)
            values: float = sum(
                width * side**2 for width, side in zip(channels, sides, strict=True)
            )
            return 2 * FLOAT_BYTES * size.images * values
    return 0.0
