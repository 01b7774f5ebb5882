"""How large the splits of a data set are, and the bytes that follow for every rule.

Of a data set without an image index the numbers of docs/method.md section 1 are taken, or that of
the photographs where there are fewer, and images of 512 x 512.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brnf.config.experiment import Experiment
from brnf.config.networks import stage_strides
from brnf.data.index import Index
from brnf.data.spreadsheet import read_rows
from brnf.data.table import COLUMNS, NEEDED
from brnf.planning.jobs import Job, shard_count

__all__ = ["RESNET50", "SplitSize", "bytes_made", "sizes_of", "split_size", "splits_of"]

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
        shards: into which the split is cut.
    """

    images: int
    classes: int
    labels: float
    pixels: float
    map_values: float
    rows: float
    shards: int = 1


def sizes_of(
    experiments: Mapping[str, Experiment], results: Path
) -> Callable[[str, str], SplitSize]:
    """Return a function from names of an experiment and a split to the split's size.

    Arguments:
        experiments: by name.
        results: folder that holds their image indices, which need not exist.
    """
    return cache(lambda name, split: split_size(experiments[name], split, results))


def split_size(experiment: Experiment, split: str, results: Path) -> SplitSize:
    """Return how large a split is; see :func:`sizes_of`."""
    dataset, cam = experiment.settings["dataset"], experiment.settings["cam"]
    index = results / experiment.name / "index"
    if (index / "splits" / f"{split}.csv").is_file():
        classes, shapes = _listed(index, split)
        images = len(shapes)
    else:
        scenes = experiment.settings["scenes"] if dataset["kind"] == "scenes" else {}
        classes = len(dataset["classes"]) or CLASSES.get(dataset["kind"], 20)
        side = scenes.get("size", SIDE)
        shapes = np.array([[side, side, LABELS.get(dataset["kind"], 2.0)]])
        images = scenes[split] if scenes else _images(dataset, split)
        images = min(images, dataset["limit"] or images)
    count = images / max(len(shapes), 1)  # of each shape
    sides, labels = shapes[:, :2], shapes[:, 2]
    longest = cam["image_long_side"]
    scale = longest / sides.max(1, keepdims=True) if longest else 1.0
    return SplitSize(
        images,
        classes,
        float(labels.mean()) if images else 0.0,
        count * float(sides.prod(1).sum()),
        count * float((np.ceil(sides / cam["map_stride"]).prod(1) * (1 + labels)).sum()),
        count * float(np.ceil(sides * scale / STRIDE).prod(1).sum()),
        shard_count(experiment, results, split),
    )


@cache
def _listed(index: Path, split: str) -> tuple[int, np.ndarray[Any, Any]]:
    """Return the number of classes; height, width and number of labels of every image [N, 3]."""
    listed = Index.of_split(index, split)
    rows = [(image.height, image.width, len(image.labels)) for image in listed.images]
    return len(listed.classes), np.array(rows, float).reshape(-1, 3)


def _images(dataset: Mapping[str, Any], split: str) -> int:
    """Return the number of images in a split: of a table's rows (without a column ``split`` all
    count), or of VOC or COCO, but no more than photographs lie where that data set has them.
    """
    if dataset["kind"] == "table":
        rows = read_rows(Path(dataset["table"]), COLUMNS, NEEDED)
        return sum(split in (row.cells.get("split") or split).lower() for row in rows)
    images = IMAGES.get(dataset["kind"], {}).get(split, 0)
    places = [f"{above}JPEGImages" for above in ("", "VOC2012/", "VOCdevkit/VOC2012/")]
    years = ("2014", "2017")
    places += [f"{above}{split}{year}" for year in years for above in ("", "images/")]
    for folder in (Path(dataset["root"] or "", place) for place in places):
        if dataset["root"] and folder.is_dir():
            return min(images, len(os.listdir(folder)))
    return images


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


def bytes_made(
    experiment: Experiment, model: str, size: SplitSize, channels: Sequence[int] = RESNET50
) -> dict[str, float]:
    """Return the bytes that each rule writes for a split; a training keeps its until it ends.

    Rules that are not among them write lists, tables, figures, or a network each. A download looks
    for room itself, as soon as the server has told the size of the archive.

    Arguments:
        experiment: whose settings are taken.
        model: whose run it is.
        size: of the split.
        channels: of the backbone's four stages.
    """
    settings, training = experiment.settings, experiment.network(model)
    maps, masks = 2 * MAP_SHARE * size.map_values, MASK_BYTES * size.pixels

    def labels(section: Mapping[str, Any], classes: float) -> float:
        kept = 2 * MAP_SHARE * (1 + classes) if section["save_probabilities"] else 0.0
        return masks + kept * size.pixels

    strides = stage_strides(settings["backbone"]["name"], settings["backbone"]["stride"])
    pairs = zip(channels, strides, strict=True)
    values = sum(width * (training["crop"] / stride) ** 2 for width, stride in pairs)
    cached = 2 * FLOAT_BYTES * size.images * values if training["cache"] else 0.0
    dimension = sum(map(min, settings["cam"]["side_widths"], channels))
    pseudo_labels = labels(settings["pseudo_labels"], size.labels)
    return {
        "render_scenes": SCENE_BYTES * size.images * settings["scenes"]["size"] ** 2,
        **dict.fromkeys(("draw_masks", "collect_masks"), masks),
        "train_base": cached,
        "train_brnf": cached,
        **dict.fromkeys(("compute_cams", "import_maps", "compute_clip_maps"), 2 * maps),
        "export_maps": 2 * FLOAT_BYTES * size.map_values,
        "store_pixels": size.rows * (2 * dimension + ROW_BYTES),
        "denoise_seeds": maps,
        "make_pseudo_labels": pseudo_labels,
        "walk_pseudo_labels": pseudo_labels,
        "make_boundary_labels": masks,
        "predict_segmentation": labels(settings["segmentation"]["test"], size.classes),
        "export_predictions": masks,
    }
