"""How many images a split has and how large they are, and the bytes that follow from it.

Of a data set without an image index the numbers of docs/method.md section 1 are taken, or that of
the photographs where there are fewer, and images of 512 x 512.
"""

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
        height: of the mean image, pixels.
        width: of the mean image, pixels.
        labels: of an image, on average.
        pixels: of all images together.
        map_values: pixels times channels of a map, background included, of all images together.
        rows: of the pixel store.
        known: whether the numbers come from an image index.
    """

    images: int
    classes: int
    height: float
    width: float
    labels: float
    pixels: float
    map_values: float
    rows: float
    known: bool


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
        return _size(shapes, [1] * len(shapes), classes, cam, known=True)
    dataset, side = experiment.settings["dataset"], SIDE
    images = _public_images(dataset["kind"], dataset["root"], split)
    if dataset["kind"] == "scenes":
        images, side = experiment.settings["scenes"][split], experiment.settings["scenes"]["size"]
    elif dataset["kind"] == "table":
        images = _rows_of_table(Path(dataset["table"]), split)
    images = min(images, dataset["limit"] or images)
    labels = LABELS.get(dataset["kind"], 2.0)
    return _size([(side, side, labels)], [images], _class_count(experiment), cam, known=False)


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
    known: bool,
) -> SplitSize:
    """Add up images of given heights, widths and numbers of labels, each so often."""
    images = sum(counts)
    pixels = map_values = rows = heights = widths = labelled = 0.0
    for (height, width, labels), count in zip(shapes, counts, strict=True):
        scale = cam["image_long_side"] / max(height, width) if cam["image_long_side"] else 1.0
        pixels += count * height * width
        map_values += (
            count
            * (1 + labels)
            * _map_side(height, cam["map_stride"])
            * _map_side(width, cam["map_stride"])
        )
        rows += count * math.ceil(height * scale / STRIDE) * math.ceil(width * scale / STRIDE)
        heights, widths, labelled = (
            heights + count * height,
            widths + count * width,
            labelled + count * labels,
        )
    each = max(images, 1)
    return SplitSize(
        images,
        classes,
        heights / each,
        widths / each,
        labelled / each,
        pixels,
        map_values,
        rows,
        known,
    )


def _map_side(side: int, stride: int) -> int:
    """Return a side of a stored map, pixels."""
    return -(-side // stride)


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


Size = Callable[[Experiment, str, SplitSize, Sequence[int]], float]
"""From experiment, model, split and the channels of the backbone's four stages to bytes."""


def _cache(experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]) -> float:
    training = experiment.network(model)
    if not training["cache"]:
        return 0.0
    stride = experiment.settings["backbone"]["stride"]
    sides = [training["crop"] / min(own, stride) for own in (4, 8, 16, 32)]
    values = sum(width * side**2 for width, side in zip(channels, sides, strict=True))
    return 2 * FLOAT_BYTES * size.images * values


def _map(experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]) -> float:
    return 2 * MAP_SHARE * size.map_values


def _two_maps(
    experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]
) -> float:
    return 2 * _map(experiment, model, size, channels)


def _exported(
    experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]
) -> float:
    return 2 * FLOAT_BYTES * size.map_values


def _pixels(experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]) -> float:
    widths = experiment.settings["cam"]["side_widths"]
    dimension = sum(map(min, widths, channels))
    return size.rows * (2 * dimension + ROW_BYTES)


def _masks(experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]) -> float:
    return MASK_BYTES * size.pixels


def _pseudo_labels(
    experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]
) -> float:
    kept = experiment.settings["pseudo_labels"]["save_probabilities"]
    probabilities = 2 * MAP_SHARE * (1 + size.labels) if kept else 0.0
    return (MASK_BYTES + probabilities) * size.pixels


def _predictions(
    experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]
) -> float:
    kept = experiment.settings["segmentation"]["test"]["save_probabilities"]
    probabilities = 2 * MAP_SHARE * (1 + size.classes) if kept else 0.0
    return (MASK_BYTES + probabilities) * size.pixels


def _scenes(experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int]) -> float:
    return SCENE_BYTES * size.images * experiment.settings["scenes"]["size"] ** 2


SIZES: Mapping[str, Size] = {
    "render_scenes": _scenes,
    "draw_masks": _masks,
    "train_base": _cache,
    "train_brnf": _cache,
    "compute_cams": _two_maps,
    "import_maps": _two_maps,
    "compute_clip_maps": _two_maps,
    "export_maps": _exported,
    "store_pixels": _pixels,
    "denoise_seeds": _map,
    "make_pseudo_labels": _pseudo_labels,
    "walk_pseudo_labels": _pseudo_labels,
    "make_boundary_labels": _masks,
    "predict_segmentation": _predictions,
    "export_predictions": _masks,
}
"""Rule -> bytes that it writes for a whole split; of a training with ``cache`` those that it keeps
until it ends.
"""
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
    return SIZES[rule](experiment, model, size, channels) if rule in SIZES else 0.0
