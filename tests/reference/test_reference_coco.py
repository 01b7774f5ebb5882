"""COCO's masks as coco2voc draws them, and CLIP-ES's lists of labels, from the annotations of 140
images.
"""

import csv
import gzip
import json
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from brnf.config.sections.data import CocoLabels, LabelSource, Masks
from brnf.data.coco import list_coco
from brnf.data.coco_file import COCO_SPLITS, read_shapes
from brnf.data.coco_masks import draw_mask
from brnf.evaluate.confusion import Confusion, mean_iou
from tests.reference.recipe import FOLDER, load

STORED = load("coco_masks")
COCO2VOC = Masks()
LATER = Masks(overlap="later_on_top", crowds="background")
DRAWINGS = {"later_on_top": LATER, "smallest_on_top": COCO2VOC}


@cache
def annotations() -> dict[str, Any]:
    with gzip.open(FOLDER / "coco_annotations.json.gz", "rt") as file:
        content: dict[str, Any] = json.load(file)
    return content


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the annotations as COCO has them, a file a split; no photograph is needed."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for split in COCO_SPLITS:
        content = annotations()
        images = [one for one in content["images"] if f"_{split}2014_" in one["file_name"]]
        own = {image["id"] for image in images}
        drawn = [one for one in content["annotations"] if one["image_id"] in own]
        parts = {**content, "images": images, "annotations": drawn}
        (root / f"{split}2014").mkdir()
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(parts))
    return root


@pytest.fixture(scope="module")
def masks(coco: Path) -> dict[str, dict[str, NDArray[np.uint8]]]:
    """Draw all images in both ways, by the name of the way and the image."""
    found: dict[str, dict[str, NDArray[np.uint8]]] = {name: {} for name in DRAWINGS}
    for split in COCO_SPLITS:
        names = [name for name in lists() if f"_{split}2014_" in name]
        for (image, size, shapes), way in product(read_shapes(coco, split, names), DRAWINGS):
            found[way][image] = draw_mask(shapes, size, DRAWINGS[way])
    return found


@cache
def lists() -> dict[str, dict[str, set[int]]]:
    """Return the labels of each image, by the column of the table."""
    with (FOLDER / "coco_labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ("clip_es", "annotations", "annotations_with_crowds")
    return {
        row["image"]: {name: set(map(int, row[name].split())) for name in columns} for row in rows
    }


@pytest.mark.parametrize(("image", "way"), product(STORED["images"].tolist(), DRAWINGS))
def test_masks(masks: Any, image: str, way: str) -> None:
    assert np.array_equal(masks[way][image], STORED[f"{image}.{way}"])


def test_both_ways_differ_where_they_do_in_the_references(masks: Any) -> None:
    pairs = {
        image: (masks["later_on_top"][image], masks["smallest_on_top"][image]) for image in lists()
    }
    differing = sum(not np.array_equal(*pair) for pair in pairs.values())
    assert (len(pairs), differing) == (int(STORED["all_images"]), int(STORED["all_differing"]))
    shares = [np.mean(np.not_equal(*pairs[image])) for image in STORED["images"].tolist()]
    np.testing.assert_allclose(shares, STORED["share_differing_f64"], rtol=1e-12)


@pytest.mark.parametrize(("split", "miou"), [("train", 94.8), ("val", 93.9)])
def test_what_the_choice_is_worth(masks: Any, split: str, miou: float) -> None:
    """The number of docs/decisions.md: masks of one way measured against those of the other."""
    confusion = Confusion(81)
    for image, truth in masks["smallest_on_top"].items():
        if f"_{split}2014_" in image:
            confusion.add(truth, masks["later_on_top"][image])
    assert round(100 * float(mean_iou(confusion.counts)), 1) == miou


@pytest.mark.parametrize(
    ("masks", "labels_from", "column", "equal"),
    [
        (LATER, "masks", "clip_es", 140),
        (LATER, "annotations", "clip_es", 132),
        (LATER, "annotations", "annotations", 140),
        (COCO2VOC, "masks", "clip_es", 132),
        (COCO2VOC, "masks", "annotations", 140),
        (COCO2VOC, "annotations", "annotations_with_crowds", 140),
    ],
)
def test_labels(
    coco: Path, masks: Masks, labels_from: LabelSource, column: str, equal: int
) -> None:
    """CLIP-ES's lists are the classes that are left in masks whose later annotations lie on top."""
    options = CocoLabels(**asdict(masks), labels_from=labels_from)
    listing = list_coco(coco, (), options)
    rank = {name: number for number, name in enumerate(listing.classes, 1)}
    found = {one.id: {rank[name] for name in one.labels or ()} for one in listing.entries}
    assert found.keys() == lists().keys()
    assert sum(found[image] == row[column] for image, row in lists().items()) == equal
