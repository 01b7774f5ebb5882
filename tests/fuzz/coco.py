"""COCO's annotations: labels and outlines of all images of a split in one file."""

import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np

from brnf.config.sections.data import Crowds, IndexedImages, LabelSource, Masks, Overlap
from brnf.data.index import Index
from brnf.stages import draw_masks, index_images
from tests.fuzz.mutations import mutate_text, mutate_value
from tests.fuzz.pictures import JPEG
from tests.fuzz.runner import Kind
from tests.fuzz.sources import QUIET

__all__ = ["coco_kinds"]

RUN_LENGTHS = "c2<800000000000000000000000000000]2"
"""A rectangle, compressed."""
ANNOTATIONS: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 24, "height": 20},
        {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 24, "height": 20},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 1,
            "iscrowd": 0,
            "area": 94.375,
            "segmentation": [[2, 2, 12, 2, 12, 9, 2, 9], [1.5, 12, 9, 12, 5, 18.5]],
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 90,
            "iscrowd": 1,
            "area": 40,
            "segmentation": {"size": [20, 24], "counts": [30, 40, 410]},
        },
        {
            "id": 3,
            "image_id": 9,
            "category_id": 90,
            "iscrowd": 0,
            "area": 80,
            "segmentation": {"size": [20, 24], "counts": RUN_LENGTHS},
        },
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
}
DRAWN = tuple(product(get_args(Overlap), get_args(Crowds), get_args(LabelSource)))
"""The ways to draw and to label, one after the other."""


def spoil(random: np.random.Generator) -> bytes:
    """Return spoilt values as JSON, whose text may be spoilt too."""
    text = json.dumps(mutate_value(ANNOTATIONS, random)).encode()
    return mutate_text(text, [text], random) if random.random() < 0.4 else text


def read(path: Path, number: int) -> None:
    """Index the images, then draw the masks of one shard."""
    root, out = path.parent / "coco", path.parent / "out"
    (root / "annotations").mkdir(parents=True)
    (root / "train2014").mkdir()
    for image in ANNOTATIONS["images"]:
        (root / "train2014" / image["file_name"]).write_bytes(JPEG)
    path.rename(root / "annotations" / "instances_train2014.json")
    overlap, crowds, labels_from = DRAWN[number % len(DRAWN)]
    options = index_images.Options(
        IndexedImages(kind="coco", overlap=overlap, crowds=crowds, labels_from=labels_from),
        splits=("train",),
        shards=1,
    )
    try:
        index_images.run(
            index_images.Inputs(root=root), index_images.Outputs(out / "index"), options, QUIET
        )
    finally:
        for seen in ("files", "masks"):  # what was seen of them outlives an index on purpose
            (out / f"index.{seen}.csv").unlink(missing_ok=True)
    (out / "index").rename(
        path.parent / "index"
    )  # complete: what is left in `out` from here on is of the masks
    images = Index.of_split(path.parent / "index", "train").images
    assert images and all(image.path.parent == root / "train2014" for image in images)
    inputs = draw_masks.Inputs(
        path.parent / "index", path.parent / "index" / "shards" / "train" / "0.csv"
    )
    drawing = draw_masks.Options("train", Masks(overlap=overlap, crowds=crowds))
    draw_masks.run(inputs, draw_masks.Outputs(out / "masks"), drawing, QUIET)
    assert len(list((out / "masks").glob("*.png"))) == len(images)


def coco_kinds() -> list[Kind]:
    """Return the one kind."""
    return [
        Kind("json coco", 1200, json.dumps(ANNOTATIONS).encode(), spoil, read, "instances.json")
    ]
