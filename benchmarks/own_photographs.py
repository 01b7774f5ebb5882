"""Thirty photographs of VOC as somebody's own: other names, a table, masks with numbers of its own
classes.
"""

import shutil
from pathlib import Path

import numpy as np

from brnf.data.masks import read_values, write_palette_png
from brnf.data.voc import VOC_CLASSES, find_voc, read_split

__all__ = ["CLASSES", "write_own"]

CLASSES = ("cat", "dog", "person", "sheep")
VALUES = tuple(VOC_CLASSES.index(name) + 1 for name in CLASSES)
COUNTS = {"train": 20, "val": 10}


def write_own(photographs: Path, folder: Path) -> Path:
    """Write the photographs, their masks and ``images.csv``, and return the table.

    Arguments:
        photographs: folder that holds VOCdevkit.
        folder: new or empty.
    """
    voc = find_voc(photographs)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    lines = ["image,labels,mask,split"]
    for split, count in COUNTS.items():
        for name in _evenly(voc, split, count):
            number = len(lines) - 1
            image = f"IMG {number:04d}.jpg" if number % 3 == 0 else f"IMG_{number:04d}.JPG"
            shutil.copyfile(voc / "JPEGImages" / f"{name}.jpg", folder / image)
            mask, _ = read_values(voc / "SegmentationClass" / f"{name}.png")
            own = np.where(mask == 255, 255, 0).astype(np.uint8)
            for label, value in enumerate(VALUES, 1):
                own[mask == value] = label
            write_palette_png(folder / "masks" / f"{number:04d}.png", own)
            shown = ";".join(CLASSES[label - 1] for label in np.unique(own) if 0 < label < 255)
            lines.append(f"{image},{shown},masks/{number:04d}.png,{split}")
    table = folder / "images.csv"
    table.write_text("".join(f"{line}\n" for line in lines))
    return table


def _evenly(voc: Path, split: str, count: int) -> list[str]:
    """Return images that show nothing but the classes, each class's first ones in turn."""
    of_class: dict[int, list[str]] = {value: [] for value in VALUES}
    for name in read_split(voc, split):
        mask, _ = read_values(voc / "SegmentationClass" / f"{name}.png")
        shown = set(np.unique(mask).tolist()) - {0, 255}
        if shown and shown <= set(VALUES):
            of_class[min(shown)].append(name)
    turns = (names[turn] for turn in range(count) for names in of_class.values() if names[turn:])
    return sorted({name: None for name, _ in zip(dict.fromkeys(turns), range(count), strict=False)})
