"""Masks that are valid pictures, and mean other classes than the index takes them for."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data.index import Index
from brnf.data.masks import colour_map
from brnf.evaluate.truth import GroundTruth
from brnf.stages.index_images import Inputs
from tests.fuzz.meant import NAMES, chosen, indexed, meant_kind, png, warned
from tests.fuzz.pictures import JPEG
from tests.fuzz.runner import Kind

__all__ = ["mask_kinds"]

HEIGHT, WIDTH = 20, 24
MIXED = 6
"""Images with several classes, beside one with each class alone."""
WRITTEN = ("palette", "few bits", "gray bits", "BMP", "TIFF", "GIF", "any palette", "frame")
"""Other files of the same values: these must be read as they are."""
OTHERWISE = (
    *("numbered otherwise", "one more", "one less", "0 and 255", "0 and 1", "stretched"),
    *("palette rebuilt", "colours", "gray of colours", "16 bits", "one otherwise", "exchanged"),
    *("half the size", "ignored background", "half the labels", "empty", "named otherwise"),
)


def labelled(random: np.random.Generator, count: int) -> list[list[int]]:
    """Return the classes of each image: each alone, so that no numbering fits another, and some
    together.
    """
    mixed = [random.permutation(count)[: random.integers(1, count + 1)] + 1 for _ in range(MIXED)]
    return [[number] for number in range(1, count + 1)] + [sorted(one.tolist()) for one in mixed]


def drawn(random: np.random.Generator, labels: list[int]) -> np.ndarray:
    """Return a mask with a rectangle of each class."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, number in enumerate(labels):
        top, left = random.integers(0, 8), 4 * place + random.integers(0, 2)
        mask[top : top + random.integers(3, 12), left : left + 3] = number
    return mask


def renumbered(change: str, masks: list[np.ndarray], count: int, random: Any) -> list[np.ndarray]:
    """Return masks whose values are others than they should be."""
    table = np.arange(256).astype(np.uint8)
    if change in ("numbered otherwise", "one otherwise"):
        table[1 : count + 1] = np.roll(table[1 : count + 1], random.integers(1, count))
    elif change == "one more":
        table[: count + 1] += 1
    elif change == "one less":
        table[: count + 1] -= 1
    elif change in ("0 and 255", "0 and 1", "empty"):
        table[1 : count + 1] = {"0 and 255": 255, "0 and 1": 1, "empty": 0}[change]
    elif change == "stretched":
        table[: count + 1] *= np.uint8(255 // count)
    elif change == "ignored background":
        table[0] = 255
    elif change == "gray of colours":
        table = np.array(Image.fromarray(colour_map()[None]).convert("L"))[0]
    which = slice(1 if change == "one otherwise" else None)
    masks = [*(table[mask] for mask in masks[which]), *masks[len(masks[which]) :]]
    if change == "exchanged":
        masks[0], masks[1] = masks[1], masks[0]
    if change == "half the size":
        masks = [mask[::2, ::2] for mask in masks]
    return masks


def encoded(change: str, values: np.ndarray, random: np.random.Generator) -> bytes:
    """Return the file of a mask."""
    image, file, form, settings = Image.fromarray(values), io.BytesIO(), "PNG", {}
    if change == "gray bits":
        return png(
            values, int(random.choice([bits for bits in (2, 4) if values.max() < 1 << bits]))
        )
    if change == "16 bits":
        return png(values.astype(np.uint16), 16)
    if change in ("palette", "few bits", "palette rebuilt", "colours"):
        image.putpalette(colour_map().tobytes())
    if change == "any palette":
        image.putpalette(random.integers(0, 256, 768, dtype=np.uint8).tobytes())
    if change == "few bits":
        settings = {"bits": 4}
    if change in ("palette rebuilt", "colours"):
        image = image.convert("RGB")
    if change == "palette rebuilt":
        image = image.quantize(int(random.integers(8, 256)), method=Image.Quantize.FASTOCTREE)
    if change in ("BMP", "TIFF", "GIF"):
        form, settings = change, {"optimize": False} if change == "GIF" else {}
    image.save(file, form, **settings)
    return file.getvalue()


def read(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Index own images with masks and labels, and compare every pixel of the truth."""
    names = chosen(random, NAMES, int(random.integers(2, 6)))
    named = bool(random.integers(2))
    order = names if named or change == "named otherwise" else sorted(names)
    labels = labelled(random, len(names))
    right = [drawn(random, own) for own in labels]
    if change == "frame":
        for mask in right:
            mask[0] = 255
    written = renumbered(change, right, len(names), random)
    if change == "ignored background":
        right = written  # as the file says: 255 is ignored
    rows = ["image,labels,mask"]
    for place, (own, mask) in enumerate(zip(labels, written, strict=True)):
        (folder / f"{place}.jpg").write_bytes(JPEG)
        (folder / f"{place}.mask").write_bytes(encoded(change, mask, random))
        shown = own[: -(-len(own) // 2)] if change == "half the labels" else own
        cell = ";".join(order[number - 1] for number in shown)
        rows.append(f"{place}.jpg,{cell},{place}.mask")
    (folder / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = IndexedImages(
        kind="table",
        classes=tuple(names) if named and change != "named otherwise" else (),
        mask_contradictions=float(random.choice([0.2, 1.0])),
    )
    folder = indexed(folder, dataset, Inputs(table=folder / "table.csv"))
    index = Index.of_split(folder, "train")
    truth = GroundTruth(index, folder, "train")
    read = {image.id: truth.objects(image) for image in index.images}
    table = np.arange(256)
    table[1 : len(order) + 1] = [index.classes.index(name) + 1 for name in order]
    same = all(
        np.array_equal(read[f"{place}"], table[mask]) for place, mask in enumerate(right)
    ) and all(
        {index.classes[label - 1] for label in image.labels}
        == {order[number - 1] for number in labels[int(image.id)]}
        for image in index.images
    )
    assert same or change not in WRITTEN
    told = warned(folder, "masks and labels: ")
    assert same or told, "wrong without a word"
    return told


def mask_kinds() -> list[Kind]:
    """Return the one kind."""
    return [meant_kind("meant masks", 500, WRITTEN, (*OTHERWISE, *OTHERWISE), read)]
