"""COCO's annotations, ``instances_<split>2014.json`` (docs/method.md section 1)."""

import codecs
import hashlib
import math
import mmap
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from brnf.data.images import MOST_PIXELS
from brnf.errors import UserError
from brnf.store.label_type import MOST_CLASSES

__all__ = [
    "COCO_SPLITS",
    "CocoShape",
    "Image",
    "Label",
    "Labelled",
    "Number",
    "Outline",
    "Outlined",
    "annotation_file",
    "class_ranks",
    "image_folder",
    "read_annotations",
    "read_shapes",
    "root_categories",
    "shapes_of",
]

COCO_SPLITS = ("train", "val")
YEARS = ("2014", "2017", "")
"""What may stand behind a split in the names of its files, the first that is there counts."""
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
NO_JSON = re.compile(rb"(?<=[\s:,\[])(?:NaN|-?Infinity)(?=[\s,\]}])")
"""What Python writes where JSON has no number."""
Number = int | float | str
"""Of an image or a category; tools write it as text, or with a point."""


def _number(value: Number) -> Number:
    """Return a number that is written as text as the number; other text stays as it is."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


class Category(msgspec.Struct, gc=False):
    """A class and its number in the file."""

    id: Number
    name: Number
    supercategory: Number | None = None

    def __post_init__(self) -> None:
        self.id, self.name = _number(self.id), str(self.name)


class Image(msgspec.Struct, gc=False):
    """A photograph as the file lists it; its ``stem`` is the id of the image elsewhere."""

    id: Number
    file_name: str
    width: Number | None = None
    height: Number | None = None
    stem: str = msgspec.field(default="", name="__stem")

    def __post_init__(self) -> None:
        self.id, self.file_name = _number(self.id), self.file_name.replace("\\", "/")

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width, 0 where the file has none."""
        try:
            return int(float(self.height or 0)), int(float(self.width or 0))
        except (ValueError, OverflowError):
            return 0, 0


class Label(msgspec.Struct, gc=False):
    """What of an annotation makes a label; its outline, nearly all of the file, is skipped."""

    image_id: Number
    category_id: Number
    iscrowd: bool | Number | None = 0

    def __post_init__(self) -> None:
        self.image_id, self.category_id = _number(self.image_id), _number(self.category_id)
        if isinstance(self.iscrowd, str):
            self.iscrowd = self.iscrowd.strip().lower() not in ("", "0", "false", "no", "none")


class Outline(Label, gc=False, kw_only=True):
    """An annotation whose outline stays the bytes of the file until its image is drawn."""

    id: Number | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    area: Number | None = None


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

    id: Number | None
    value: int
    crowd: bool
    outline: Any
    area: float | None = None


def annotation_file(root: Path, split: str) -> Path:
    """Return where the annotations of a split are.

    Raises:
        UserError: COCO 2014 has no such split.
    """
    return root / "annotations" / f"instances_{split}{_year(root, split)}.json"


def image_folder(root: Path, split: str) -> Path:
    """Return where the photographs of a split are.

    Raises:
        UserError: there is no such folder.
    """
    name = f"{split}{_year(root, split)}"
    for folder in (root / name, root / "images" / name):
        if folder.is_dir():
            return folder
    problem = f"no folder {name} or images/{name} here"
    raise UserError(f"{root}: {problem}; unpack the photographs of this split there")


def _year(root: Path, split: str) -> str:
    if split not in COCO_SPLITS:
        problem = f"COCO 2014 has instances of {' and '.join(COCO_SPLITS)} only"
        raise UserError(f"split '{split}': {problem}; choose one of them")
    names = {year: root / "annotations" / f"instances_{split}{year}.json" for year in YEARS}
    return next((year for year, path in names.items() if path.is_file()), YEARS[0])


def read_annotations(path: Path, kind: type[Content]) -> Content:
    """Decode a file of annotations into the fields of ``kind``, and nothing else of it.

    Raises:
        UserError: the file is missing or damaged, or lists images that cannot be.
    """
    try:
        with path.open("rb") as file:
            # Not closed here: outlines are slices of it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise UserError(f"{path}: is written in UTF-16; save it as UTF-8")
        text = memoryview(content)[len(codecs.BOM_UTF8) * (content[:3] == codecs.BOM_UTF8) :]
        try:
            found = msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            if not NO_JSON.search(text):
                raise
            found = msgspec.json.decode(NO_JSON.sub(b"null", text), type=kind)
    except FileNotFoundError as error:
        remedy = f"unpack annotations_trainval2014.zip into {path.parent.parent}"
        raise UserError(f"{path}: missing; {remedy}") from error
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        problem = f"annotations cannot be read ({error})"
        raise UserError(f"{path}: {problem}; restore the file") from error
    _check_images(path, found.images)
    return found


def _check_images(path: Path, images: Sequence[Image]) -> None:
    """Refuse names that could lead out of the folder, impossible sizes and repeated images; give
    every image its id.
    """
    for image in images:
        height, width = image.size
        if image.width is None or image.height is None:
            raise UserError(f"{path}: '{image.file_name}' has no width and height; add them")
        if min(width, height) < 1 or width * height > MOST_PIXELS:
            problem = f"'{image.file_name}' cannot have {image.width}x{image.height} pixels"
            raise UserError(f"{path}: {problem}; correct its width and height")
        parts = image.file_name.split("/")
        image.stem = re.sub(r"^[-.]", "_", UNSAFE.sub("_", Path(parts[-1]).stem))[:180]
        if not image.file_name.isprintable() or {"", ".", ".."} & {*parts} or ":" in parts[0]:
            problem = "is no name of an image; write its path below the folder of the split"
            raise UserError(f"{path}: '{image.file_name}' {problem}")
    ids, names = {image.id for image in images}, {image.file_name for image in images}
    if min(len(ids), len(names)) < len(images):
        raise UserError(f"{path}: an image is listed twice; restore the file")
    shared = Counter(image.stem.casefold() for image in images)
    for image in images:
        if shared[image.stem.casefold()] > 1:
            mark = hashlib.sha256(image.file_name.encode()).hexdigest()[:8]
            image.stem = f"{image.stem}_{mark}"


def class_ranks(
    path: Path,
    content: Labelled | Outlined,
) -> tuple[tuple[str, ...], dict[Number, int]]:
    """Return the names of the categories by rank of their id, and the rank, from 1, of each id.

    Those of :func:`root_categories` are no classes.

    Raises:
        UserError: there is none, or one is there twice.
    """
    roots = root_categories(content)
    listed = [one for one in content.categories if one.id not in roots]
    if len({type(one.id) is str for one in listed}) > 1:
        raise UserError(f"{path}: ids of categories are numbers and text; use one of them")
    ordered = sorted(listed, key=lambda category: category.id)
    names = tuple(str(category.name) for category in ordered)
    ids = {category.id: rank for rank, category in enumerate(ordered, 1)}
    if not names or len(set(names)) < len(names) or len(ids) < len(ordered):
        raise UserError(f"{path}: its categories are missing or not unique; restore the file")
    return names, ids


def root_categories(content: Labelled | Outlined) -> dict[Number, str]:
    """Return ids and names of categories that others name as theirs above and that no annotation
    has: labelling tools write such a root.
    """
    above = {str(one.supercategory) for one in content.categories if one.supercategory != one.name}
    used = {one.category_id for one in content.annotations}
    return {
        one.id: str(one.name)
        for one in content.categories
        if str(one.name) in above and one.id not in used
    }


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
    _, values = class_ranks(path, content)
    outlines: dict[Number, list[Outline]] = {number: [] for number in found}
    for annotation in content.annotations:
        if annotation.image_id in found:
            outlines[annotation.image_id].append(annotation)
    for number, image in found.items():
        yield image.stem, image.size, shapes_of(path, outlines[number], values)


def shapes_of(
    path: Path,
    outlines: Sequence[Outline],
    values: Mapping[Number, int],
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
        problem = f"holds {len(values)} categories, and masks of two bytes hold {MOST_CLASSES}"
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
        if outline in (None, [], [[]], ""):
            problem = f"annotation {one.id} has no outline, only a box or nothing"
            raise UserError(f"{path}: {problem}; draw it, or take the annotation out of the file")
        area = None if one.area is None else _area(one.area)
        shapes.append(CocoShape(one.id, value, bool(one.iscrowd), outline, area))
    return shapes


def _area(value: Number) -> float | None:
    """Return the area of an annotation, None where it is no finite number above 0."""
    with suppress(ValueError, OverflowError):
        if math.isfinite(found := float(value)) and found > 0:
            return found
    return None
