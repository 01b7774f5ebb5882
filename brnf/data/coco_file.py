"""COCO's annotations, ``instances_<split>2014.json`` (docs/method.md section 1)."""

import mmap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from brnf.data.entries import MOST_CLASSES, is_safe_id
from brnf.data.images import MOST_PIXELS
from brnf.errors import UserError

__all__ = [
    "COCO_SPLITS",
    "CocoShape",
    "Image",
    "Label",
    "Labelled",
    "Outline",
    "Outlined",
    "annotation_file",
    "class_ranks",
    "read_annotations",
    "read_shapes",
    "shapes_of",
]

COCO_SPLITS = ("train", "val")


class Category(msgspec.Struct, gc=False):
    """A class and its number in the file."""

    id: int
    name: str


class Image(msgspec.Struct, gc=False):
    """A photograph as the file lists it."""

    id: int
    file_name: str
    width: int
    height: int

    @property
    def stem(self) -> str:
        """Return the name without its ending, which is the id of the image elsewhere."""
        return Path(self.file_name).stem


class Label(msgspec.Struct, gc=False):
    """What of an annotation makes a label; its outline, nearly all of the file, is skipped."""

    image_id: int
    category_id: int
    iscrowd: int = 0


class Outline(Label, gc=False, kw_only=True):
    """An annotation whose outline stays the bytes of the file until its image is drawn."""

    id: int
    segmentation: msgspec.Raw
    area: float | None = None


class Labelled(msgspec.Struct):
    """The file without outlines."""

    images: list[Image]
    annotations: list[Label]
    categories: list[Category]


class Outlined(msgspec.Struct):
    """The file with outlines."""

    images: list[Image]
    annotations: list[Outline]
    categories: list[Category]


Content = TypeVar("Content", Labelled, Outlined)


@dataclass(frozen=True)
class CocoShape:
    """One annotation of an image.

    Attributes:
        id: of the annotation.
        value: of its class in masks, 1..C by rank of the category's id.
        crowd: whether it outlines a group that was not taken apart.
        outline: polygons, or a run-length code, as the file has them.
        area: in pixels, as the file says it; None where it does not.
    """

    id: int
    value: int
    crowd: bool
    outline: Any
    area: float | None = None


def annotation_file(root: Path, split: str) -> Path:
    """Return where the annotations of a split are.

    Raises:
        UserError: COCO 2014 has no such split.
    """
    if split not in COCO_SPLITS:
        problem = f"COCO 2014 has instances of {' and '.join(COCO_SPLITS)} only"
        raise UserError(f"split '{split}': {problem}; choose one of them")
    return root / "annotations" / f"instances_{split}2014.json"


def read_annotations(path: Path, kind: type[Content]) -> Content:
    """Decode a file of annotations into the fields of ``kind``, and nothing else of it.

    Raises:
        UserError: the file is missing or damaged, or lists images that cannot be.
    """
    try:
        with path.open("rb") as file:
            # Not closed here: outlines are slices of it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = msgspec.json.decode(content, type=kind)
    except FileNotFoundError as error:
        remedy = f"unpack annotations_trainval2014.zip into {path.parent.parent}"
        raise UserError(f"{path}: missing; {remedy}") from error
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        problem = f"annotations cannot be read ({error})"
        raise UserError(f"{path}: {problem}; restore the file") from error
    _check_images(path, found.images)
    return found


def _check_images(path: Path, images: Sequence[Image]) -> None:
    """Refuse names that could lead out of the folder, impossible sizes and repeated images."""
    for image in images:
        if min(image.width, image.height) < 1 or image.width * image.height > MOST_PIXELS:
            problem = f"'{image.file_name}' cannot have {image.width}x{image.height} pixels"
            raise UserError(f"{path}: {problem}; restore the file")
        if Path(image.file_name).name != image.file_name or not is_safe_id(image.stem):
            problem = "is no name of an image; use letters, digits, _ - and . only"
            raise UserError(f"{path}: '{image.file_name}' {problem}")
    ids, names = {image.id for image in images}, {image.stem for image in images}
    if min(len(ids), len(names)) < len(images):
        raise UserError(f"{path}: an image is listed twice; restore the file")


def class_ranks(
    path: Path,
    categories: Sequence[Category],
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the names of the categories by rank of their id, and the rank, from 1, of each id.

    Raises:
        UserError: there is none, or one is there twice.
    """
    ordered = sorted(categories, key=lambda category: category.id)
    names = tuple(category.name for category in ordered)
    ids = {category.id: rank for rank, category in enumerate(ordered, 1)}
    if not names or len(set(names)) < len(names) or len(ids) < len(ordered):
        raise UserError(f"{path}: its categories are missing or not unique; restore the file")
    return names, ids


def read_shapes(
    root: Path,
    split: str,
    images: Collection[str],
) -> Iterator[tuple[str, tuple[int, int], list[CocoShape]]]:
    """Read the annotations of some images of a split, an image at a time.

    Arguments:
        root: folder with ``annotations``.
        split: train or val.
        images: their ids.

    Yields:
        id, height and width of an image, and its annotations in the order of the file.

    Raises:
        UserError: the file is missing or damaged, or lacks one of the images.
    """
    path = annotation_file(root, split)
    content = read_annotations(path, Outlined)
    wanted = frozenset(images)
    found = {image.id: image for image in content.images if image.stem in wanted}
    if missing := sorted(wanted - {image.stem for image in found.values()}):
        raise UserError(f"{path}: image '{missing[0]}' is not listed; run index_images again")
    _, values = class_ranks(path, content.categories)
    outlines: dict[int, list[Outline]] = {number: [] for number in found}
    for annotation in content.annotations:
        if annotation.image_id in found:
            outlines[annotation.image_id].append(annotation)
    for number, image in found.items():
        yield image.stem, (image.height, image.width), shapes_of(path, outlines[number], values)


def shapes_of(
    path: Path,
    outlines: Sequence[Outline],
    values: Mapping[int, int],
) -> list[CocoShape]:
    """Decode the outlines of an image.

    Arguments:
        path: of the file, for messages.
        outlines: of one image.
        values: of the categories, see :func:`class_ranks`.

    Raises:
        UserError: an outline cannot be read, its category is not listed, or a mask cannot hold it.
    """
    if len(values) > MOST_CLASSES:
        problem = f"holds {len(values)} categories, and masks of one byte hold {MOST_CLASSES}"
        raise UserError(f"{path}: {problem}; merge some")
    shapes = []
    for one in outlines:
        value = values.get(one.category_id)
        if value is None:
            problem = f"annotation {one.id} has category {one.category_id}, which is not listed"
            raise UserError(f"{path}: {problem}; restore the file")
        try:
            outline = msgspec.json.decode(one.segmentation)
        except (RecursionError, msgspec.MsgspecError) as error:
            problem = f"annotation {one.id} cannot be read ({error})"
            raise UserError(f"{path}: {problem}; restore the file") from error
        shapes.append(CocoShape(one.id, value, bool(one.iscrowd), outline, one.area))
    return shapes
