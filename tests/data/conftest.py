"""A tiny data set in VOC layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data.masks import write_palette_png


def write_voc_image(root: Path, name: str, labels: tuple[str, ...], mask: np.ndarray | None, *, augmented: bool = False) -> None:
    """Write image, annotation and mask of one id."""
    height, width = (10, 12) if mask is None else mask.shape
    pixels = np.random.default_rng(len(name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
    objects = "".join(f"<object><name>{label}</name><part><name>head</name></part></object>" for label in labels)
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>")
    if mask is not None:
        write_palette_png(root / ("SegmentationClassAug" if augmented else "SegmentationClass") / f"{name}.png", mask)


@pytest.fixture
def voc_tree(tmp_path: Path) -> Path:
    """Return a root with VOCdevkit/VOC2012: train {a1, a2}, val {b1}, only SBD masks {c1}, test {t1}."""
    folder = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((10, 12), np.uint8)
    mask[2:6, 3:9], mask[7:, :4], mask[0] = 8, 12, 255
    write_voc_image(folder, "a1", ("cat", "dog", "cat"), mask)
    write_voc_image(folder, "a2", ("person",), np.full((8, 9), 15, np.uint8))
    write_voc_image(folder, "b1", ("dog", "person"), mask)
    write_voc_image(folder, "c1", ("cat",), np.full((6, 7), 8, np.uint8), augmented=True)
    write_voc_image(folder, "t1", (), None)
    (folder / "Annotations" / "t1.xml").unlink()
    for name in ("a1", "b1"):
        write_palette_png(folder / "SegmentationClassAug" / f"{name}.png", mask)
    for split, ids in {"train": ("a1", "a2"), "val": ("b1",), "test": ("t1",)}.items():
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(name + "\n" for name in ids))
    return tmp_path / "data"
