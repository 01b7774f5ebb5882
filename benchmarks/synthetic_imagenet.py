"""A data set of ImageNet's size and layout: 1,000 classes, a folder and a label for each image."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from brnf.data.index import write_shared
from brnf.data.index_lists import ListWriter, MaskWriter

__all__ = ["CLASSES", "TRAIN", "VAL", "class_names", "write_imagenet", "write_index"]

CLASSES = 1000
TRAIN, VAL = 1_300_000, 50_000
LINKS = 60_000
"""Hard links of one file; ext4 allows 65,000."""
MASK = "0" * 32


def class_names(classes: int = CLASSES) -> tuple[str, ...]:
    """Return names of classes."""
    return tuple(f"class {number:04d}" for number in range(classes))


def names(count: int, classes: int = CLASSES) -> Iterator[tuple[str, int]]:
    """Yield the path of each image below the data set's folder, and its class from 0, by class."""
    for number in range(count):
        label = number * classes // count
        yield f"photographs/n{label:04d}/n{label:04d}_{number:07d}.jpg", label


def write_imagenet(root: Path, count: int, size: tuple[int, int] = (12, 16)) -> Path:
    """Write a table of links to a few drawn pictures, and return it.

    Arguments:
        root: a new folder.
        count: of images, all of the split train.
        size: height and width of the pictures.
    """
    random = np.random.default_rng(0)
    (root / "drawn").mkdir(parents=True)
    drawn = [root / "drawn" / f"{number}.jpg" for number in range(max(40, -(-count // LINKS)))]
    for path in drawn:
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(path)
    for label in range(CLASSES):
        (root / "photographs" / f"n{label:04d}").mkdir(parents=True)
    table, classes = root / "images.csv", class_names()
    with table.open("w") as file:
        file.write("image,labels,split\n")
        for number, (name, label) in enumerate(names(count)):
            (root / name).hardlink_to(drawn[number % len(drawn)])
            file.write(f"{name},{classes[label]},train\n")
    return table


def write_index(
    folder: Path, counts: dict[str, int], shards: int, size: tuple[int, int], masked: str
) -> None:
    """Write an image index of files that are nowhere, to plan by.

    Arguments:
        folder: of the index.
        counts: images of each split.
        shards: into which each is cut.
        size: height and width of every image.
        masked: split whose images have masks.
    """
    classes = class_names()
    write_shared(folder, classes, tuple(range(1, len(classes) + 1)), Path("data"))
    for split, count in counts.items():
        images = ListWriter(folder, split, Path("data"), shards)
        masks = MaskWriter(folder, split, Path("data"))
        for path, label in names(count):
            name = f"{split}_{Path(path).stem}"
            images.append(name, f"data/{split}/{path}", size, str(label + 1), MASK)
            truth = f"data/{split}/{path}.png" if split == masked else None
            masks.append(name, truth, None, MASK if truth else "")
        images.close()
        masks.close()
    (folder / "summary.md").write_text("")
