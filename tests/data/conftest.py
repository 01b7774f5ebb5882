"""A tiny data set in VOC layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data.masks import write_palette_png


def write_voc_image(
    root: Path,
    name: str,
    labels: tuple[str, ...],
    mask: np.ndarray | None,
    *,
    augmented: bool = False,
) -> None:
    """Write image, annotation and mask of one id."""
    height, width = (10, 12) if mask is None else mask.shape
    pixels = np.random.default_rng(len(name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
    objects = "".join(
        f"<object><name>{label}</name><part><name>head</name></part></object>" for label in labels
    )
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
    )
    if mask is not None:
        write_palette_png(
            root / ("SegmentationClassAug" if augmented else "SegmentationClass") / f"{name}.png",
            mask,
        )


@pytest.fixture
def voc_tree(tmp_path: Path) -> Path:
    """Return a VOC 2012 root: train {a1, a2}, val {b1}, only SBD masks {c1}, test {t1}."""
    folder = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    for name in (
        "JPEGImages",
        "Annotations",
        "SegmentationClass",
        "SegmentationClassAug",
        "ImageSets/Segmentation",
    ):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((10, 12), np.uint8)
    mask[2:6, 3:9], mask[7:, :4], mask[0] = 8, 12, 255
    write_voc_image(folder, "a1", ("cat", "dog", "cat"), mask)
    write_voc_image(folder, "a2", ("person",), np.full((8, 9), 15, np.uint8))
    other = np.where(mask == 8, 15, mask).astype(np.uint8)
    write_voc_image(folder, "b1", ("dog", "person"), other)
    write_voc_image(folder, "c1", ("cat",), np.full((6, 7), 8, np.uint8), augmented=True)
    write_voc_image(folder, "t1", (), None)
    (folder / "Annotations" / "t1.xml").unlink()
    for name, values in (("a1", mask), ("b1", other)):
        write_palette_png(folder / "SegmentationClassAug" / f"{name}.png", values)
    for split, ids in {"train": ("a1", "a2"), "val": ("b1",), "test": ("t1",)}.items():
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
            "".join(name + "\n" for name in ids)
        )
    return tmp_path / "data"


@pytest.fixture
def coco_tree(tmp_path: Path) -> Path:
    """Return COCO with train {a, b, c: a crowd only, d: nothing} and val {e}.

    Ids 1, 10 and 90 are person, traffic light and toothbrush. In the fifth column a larger
    annotation
    that comes later overlaps the person: in a the toothbrush, in e a crowd of traffic lights.
    """
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    box = [[1, 1, 5, 1, 5, 4, 1, 4]]
    categories = [
        {"id": 90, "name": "toothbrush"},
        {"id": 1, "name": "person"},
        {"id": 10, "name": "traffic light"},
    ]
    sizes = {"a": (6, 8), "b": (4, 4), "c": (4, 5), "d": (3, 3), "e": (6, 8)}
    annotations = {
        "a": [(1, 0, 12, box), (90, 0, 24, [[4, 0, 8, 0, 8, 6, 4, 6]])],
        "b": [(10, 0, 4, {"size": [4, 4], "counts": [4, 4, 8]})],
        "c": [(1, 1, 4, {"size": [4, 5], "counts": [0, 4, 16]})],
        "d": [],
        "e": [(1, 0, 12, box), (10, 1, 24, {"size": [6, 8], "counts": [24, 24]})],
    }
    for split, names in (("train", "abcd"), ("val", "e")):
        (root / f"{split}2014").mkdir()
        listed, drawn = [], []
        for name in names:
            height, width = sizes[name]
            Image.new("RGB", (width, height)).save(root / f"{split}2014" / f"{name}.jpg")
            number = ord(name) - ord("a") + 1
            listed.append(
                {"id": number, "file_name": f"{name}.jpg", "width": width, "height": height}
            )
            for category, crowd, area, outline in annotations[name]:
                one = {"image_id": number, "category_id": category, "iscrowd": crowd, "area": area}
                drawn.append({**one, "segmentation": outline, "id": len(drawn) + 1})
        content = {"images": listed, "annotations": drawn, "categories": categories}
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))
    return root
