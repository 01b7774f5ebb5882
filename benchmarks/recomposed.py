"""Photographs recomposed so that backgrounds come with classes: ``python -m benchmarks.recomposed
--photographs <folder with VOCdevkit> --output recomposed``.

An object is cut out by its true mask and pasted on the background of another class's photograph: a
rectangle of it that shows no object. A second one may lie below it, on whatever ground that is. The
context of a class is the background of the next one, cat on the ground of cows, cow on that of
dogs, and so on round. With the co-occurrence ρ an image has the context of its first object's
class, otherwise the background of one of the others. The masks make the data and measure; a
training sees image-level labels, as ever.

For every ρ a folder in VOC's layout is written, whose masks of contexts let the workflow measure
the bias (``docs/method.md`` section 12). Objects and backgrounds of val are from photographs of
val, which is always at chance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from brnf.data.images import read_image
from brnf.data.masks import read_values, write_palette_png
from brnf.data.voc import VOC_CLASSES, find_voc, read_split
from brnf.store.files import atomic_directory

CLASSES = ("cat", "cow", "dog", "horse", "sheep")
VALUES = tuple(VOC_CLASSES.index(name) + 1 for name in CLASSES)
CHANCE = 1 / (len(CLASSES) - 1)
"""The co-occurrence at which a class meets the backgrounds of all others equally often."""
SIZE = (240, 320)
SMALLEST_OBJECT = 0.03
"""Least share of its photograph that an object covers."""
SMALLEST_BACKGROUND = 160
"""Least width of a rectangle without objects, in pixels; it is enlarged to the image's."""
CELL = 8
"""Pixels of a cell of the grid on which rectangles are looked for."""
EXTENT = (0.45, 0.8)
"""Long side of a pasted object, as a share of the image's side in that direction."""
SECOND = 0.3
"""Probability of a second object, of another class, whose context is not asked for."""
BORDER = 2
"""An object this near to the border of its photograph is cut by it, and stays at the border."""


@dataclass(frozen=True)
class Cut:
    """An object cut out: its pixels [h, w, 3], where it is seen [h, w], and the borders that cut
    it (left, top, right, bottom).
    """

    pixels: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    at: tuple[bool, bool, bool, bool]


@dataclass(frozen=True)
class Parts:
    """What the images of a split are made of, both by class: objects, and backgrounds of SIZE."""

    objects: dict[int, list[Cut]]
    backgrounds: dict[int, list[NDArray[np.uint8]]]


def context_of(label: int) -> int:
    """Return the class whose background is the context of a class; both 0..4."""
    return (label + 1) % len(CLASSES)


def collect(voc: Path, ids: Iterable[str]) -> Parts:
    """Cut objects and backgrounds out of photographs."""
    parts = Parts({k: [] for k in range(len(CLASSES))}, {k: [] for k in range(len(CLASSES))})
    for name in ids:
        image = read_image(voc / "JPEGImages" / f"{name}.jpg")
        mask, _ = read_values(voc / "SegmentationClassAug" / f"{name}.png")
        present = [label for label, value in enumerate(VALUES) if (mask == value).any()]
        for label in present:
            parts.objects[label].extend(objects_in(image, mask == VALUES[label]))
        if len(present) == 1 and (ground := background_of(image, mask == 0)) is not None:
            parts.backgrounds[present[0]].append(ground)
    return parts


def objects_in(image: NDArray[np.uint8], of_class: NDArray[np.bool_]) -> list[Cut]:
    """Cut out the connected areas of a class, without small ones and without those that reach from
    one border to the opposite one.
    """
    height, width = of_class.shape
    count, areas, boxes, _ = cv2.connectedComponentsWithStats(of_class.astype(np.uint8))
    found = []
    for number in range(1, count):
        x, y, across, down, pixels = (int(value) for value in boxes[number])
        left, top = x <= BORDER, y <= BORDER
        right, bottom = x + across >= width - BORDER, y + down >= height - BORDER
        if pixels < SMALLEST_OBJECT * of_class.size or (left and right) or (top and bottom):
            continue
        box = np.s_[y : y + down, x : x + across]
        found.append(Cut(image[box], areas[box] == number, (left, top, right, bottom)))
    return found


def background_of(image: NDArray[np.uint8], free: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """Return the largest rectangle of SIZE's proportions without an object, enlarged or reduced to
    SIZE; None where all are small.
    """
    rows, columns = (side // CELL for side in free.shape)
    cells = free[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).all((1, 3))
    taken = np.pad((~cells).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for down in range(rows, 0, -1):
        across = round(down * SIZE[1] / SIZE[0])
        if across > columns:
            continue
        if across * CELL < SMALLEST_BACKGROUND:
            return None
        inside = (
            taken[down:, across:]
            - taken[:-down, across:]
            - taken[down:, :-across]
            + taken[:-down, :-across]
        )
        empty = np.argwhere(inside == 0)
        if len(empty):
            y, x = (int(value) * CELL for value in empty[len(empty) // 2])
            part = image[y : y + down * CELL, x : x + across * CELL]
            return resized(part, SIZE)
    return None


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize by area where the image is reduced, else bicubically."""
    reduced = image.shape[0] >= size[0]
    way = cv2.INTER_AREA if reduced else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=way), np.uint8)


@dataclass(frozen=True)
class Recomposed:
    """An image [240, 320, 3] with the values of its objects and of its context, [240, 320]."""

    image: NDArray[np.uint8]
    objects: NDArray[np.uint8]
    context: NDArray[np.uint8]


def recompose(parts: Parts, rho: float, rng: Generator) -> Recomposed:
    """Paste one or two objects on a background."""
    first, second = (int(label) for label in rng.permutation(len(CLASSES))[:2])
    beside = rng.random() < rho
    others = [k for k in range(len(CLASSES)) if k not in (first, context_of(first))]
    ground = context_of(first) if beside else int(rng.choice(others))
    grounds = parts.backgrounds[ground]
    canvas = grounds[int(rng.integers(len(grounds)))].copy()
    if rng.random() < 0.5:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
    objects = np.zeros(SIZE, np.uint8)
    for label in (second, first) if rng.random() < SECOND else (first,):  # the first is on top
        cuts = parts.objects[label]
        paste(cuts[int(rng.integers(len(cuts)))], VALUES[label], canvas, objects, rng)
    owner = next(k for k in range(len(CLASSES)) if context_of(k) == ground)
    context = np.where(objects == 0, np.uint8(VALUES[owner]), np.uint8(0))
    return Recomposed(canvas, objects, context)


def paste(
    cut: Cut, value: int, canvas: NDArray[np.uint8], objects: NDArray[np.uint8], rng: Generator
) -> None:
    """Paste an object at a random size and place, mirrored or not, with a soft edge."""
    pixels, seen, (left, top, right, bottom) = cut.pixels, cut.seen, cut.at
    if rng.random() < 0.5:
        pixels, seen, left, right = pixels[:, ::-1], seen[:, ::-1], right, left
    height, width = SIZE
    scale = rng.uniform(*EXTENT) * min(height / seen.shape[0], width / seen.shape[1])
    down, across = (max(round(side * scale), 1) for side in seen.shape)
    y = 0 if top else height - down if bottom else int(rng.integers(height - down + 1))
    x = 0 if left else width - across if right else int(rng.integers(width - across + 1))
    soft = cv2.resize(
        np.ascontiguousarray(seen, np.float32), (across, down), interpolation=cv2.INTER_AREA
    )
    soft = np.asarray(cv2.GaussianBlur(soft, (3, 3), 0), np.float32)
    part = resized(np.ascontiguousarray(pixels), (down, across))
    box = np.s_[y : y + down, x : x + across]
    blend = canvas[box] + soft[:, :, None] * (part.astype(np.float32) - canvas[box])
    canvas[box] = np.clip(blend.round(), 0, 255).astype(np.uint8)
    objects[box][soft > 0.5] = value


def write(
    folder: Path, parts: dict[str, Parts], rhos: dict[str, float], counts: dict[str, int]
) -> None:
    """Write a data set in VOC's layout.

    Arguments:
        folder: new; gets VOC2012.
        parts: by split.
        rhos: co-occurrence by split.
        counts: images by split.
    """
    root = folder / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ContextClass", "Annotations"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for salt, (split, count) in enumerate(counts.items()):
        names = [f"{split}_{number:05d}" for number in range(count)]
        for number, name in enumerate(names):
            rng = np.random.default_rng([salt, number])
            drawn = recompose(parts[split], rhos[split], rng)
            Image.fromarray(drawn.image).save(
                root / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0
            )
            write_palette_png(root / "SegmentationClass" / f"{name}.png", drawn.objects)
            write_palette_png(root / "ContextClass" / f"{name}.png", drawn.context)
            shown = (CLASSES[VALUES.index(value)] for value in np.unique(drawn.objects) if value)
            things = "".join(f"<object><name>{label}</name></object>" for label in shown)
            size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></size>"
            text = f"<annotation><filename>{name}.jpg</filename>{size}{things}</annotation>\n"
            (root / "Annotations" / f"{name}.xml").write_text(text)
        lines = "".join(f"{name}\n" for name in names)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(lines)


def main(
    photographs: Path,
    output: Path,
    rho: tuple[float, ...] = (CHANCE, 0.6, 0.95),
    train: int = 300,
    val: int = 100,
) -> None:
    """Write the recomposed photographs, a folder for every co-occurrence.

    Arguments:
        photographs: folder that holds VOCdevkit, with SegmentationClassAug.
        output: gets a folder rho-<value> each.
        rho: co-occurrences of the training images; 0.25 is chance.
        train: images to train on.
        val: images of val, at chance.
    """
    voc = find_voc(photographs)
    parts = {
        split: collect(voc, read_split(voc, source))
        for split, source in (("train", "train_aug"), ("val", "val"))
    }
    for split, of in parts.items():
        for label, name in enumerate(CLASSES):
            objects, grounds = len(of.objects[label]), len(of.backgrounds[label])
            print(f"{split}: {name}: {objects} objects, {grounds} backgrounds")
    for value in rho:
        with atomic_directory(output / f"rho-{value:g}") as folder:
            write(folder, parts, {"train": value, "val": CHANCE}, {"train": train, "val": val})


if __name__ == "__main__":
    tyro.cli(main)
