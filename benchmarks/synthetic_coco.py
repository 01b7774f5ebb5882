"""A data set with the layout and the proportions of COCO 2014, at any size."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["TRAIN", "VAL", "Proportions", "write_coco"]

UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in UNUSED_IDS)
CROWD_SHARE = 0.012
SIZES = tuple((640, 480 - 3 * step) for step in range(40))
OUTLINES = 2_000


@dataclass(frozen=True)
class Proportions:
    """How large a split is.

    Attributes:
        images: listed.
        labelled: of them, carry a label.
        annotations: in all.
    """

    images: int
    labelled: int
    annotations: int

    def scaled(self, factor: float) -> "Proportions":
        """Return a split of the same proportions."""
        return Proportions(
            *(
                max(round(count * factor), 1)
                for count in (self.images, self.labelled, self.annotations)
            )
        )


TRAIN = Proportions(82_783, 82_081, 604_907)
VAL = Proportions(40_504, 40_137, 291_875)


def write_coco(root: Path, split: str, proportions: Proportions) -> None:
    """Write a split: photographs that are hard links to a few files, and their annotations.

    Arguments:
        root: of the data set.
        split: train or val.
        proportions: of the split.
    """
    folder = root / f"{split}2014"
    folder.mkdir(parents=True)
    for number, (width, height) in enumerate(SIZES):
        Image.new("RGB", (width, height), (6 * number, 120, 90)).save(
            root / f"{split}-{number}.jpg", quality=40
        )
    (root / "annotations").mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    with (root / "annotations" / f"instances_{split}2014.json").open("w") as file:
        file.write('{"info": {"year": 2014}, "images": [')
        for number in range(proportions.images):
            name = f"COCO_{split}2014_{number:012d}.jpg"
            width, height = SIZES[number % len(SIZES)]
            (folder / name).hardlink_to(root / f"{split}-{number % len(SIZES)}.jpg")
            address = f"http://images.example/{split}2014/{name}"
            image = {
                "license": 5,
                "file_name": name,
                "coco_url": address,
                "height": height,
                "width": width,
            }
            dates = {"date_captured": "2013-11-14 16:28:13", "flickr_url": address, "id": number}
            file.write((", " if number else "") + json.dumps(image | dates))
        file.write('], "licenses": [], "annotations": [')
        for number, text in enumerate(_annotations(proportions, random)):
            file.write((", " if number else "") + text)
        categories = [
            {"supercategory": "thing", "id": number, "name": f"thing {number}"}
            for number in CATEGORY_IDS
        ]
        file.write('], "categories": ' + json.dumps(categories) + "}")


def _annotations(proportions: Proportions, random: np.random.Generator) -> Iterator[str]:
    """Yield the annotations as text: every labelled image has one that is no crowd."""
    polygons = [json.dumps([_polygon(random)]) for _ in range(OUTLINES)]
    images = np.concatenate(
        [
            np.arange(proportions.labelled),
            random.integers(
                0, proportions.labelled, max(proportions.annotations - proportions.labelled, 0)
            ),
        ]
    )
    categories = random.choice(CATEGORY_IDS, len(images))
    crowds = (np.arange(len(images)) >= proportions.labelled) & (
        random.random(len(images)) < CROWD_SHARE
    )
    for number, (image, category, crowd) in enumerate(
        zip(images.tolist(), categories.tolist(), crowds.tolist(), strict=True)
    ):
        outline = (
            json.dumps(_run_lengths(SIZES[image % len(SIZES)], random))
            if crowd
            else polygons[number % OUTLINES]
        )
        yield (
            f'{{"segmentation": {outline}, "area": 2765.1486500000005,'
            f' "iscrowd": {int(crowd)}, "image_id": {image},'
            f' "bbox": [199.84, 200.46, 77.71, 70.88], "category_id": {category}, "id": {number}}}'
        )


def _polygon(random: np.random.Generator) -> list[float]:
    """Return a closed outline; a file of 604,907 of them has the size of COCO's, about 450 MB."""
    corners = int(random.integers(3, 72))
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    center, radius = random.uniform(120, 300, 2), random.uniform(10, 110)
    points = center + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    return [float(value) for value in points.round(2).reshape(-1)]


def _run_lengths(size: tuple[int, int], random: np.random.Generator) -> dict[str, Any]:
    width, height = size
    cuts = np.sort(random.choice(np.arange(1, width * height), 600, replace=False))
    return {"counts": np.diff([0, *cuts, width * height]).tolist(), "size": [height, width]}
