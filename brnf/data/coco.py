"""MS COCO 2014 as it is downloaded: labels from ``annotations/instances_<split>2014.json`` (``method.md`` section 1)."""

import mmap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from brnf.data.entries import Entry, Listing, is_safe_id
from brnf.data.images import MOST_PIXELS
from brnf.errors import UserError

__all__ = ["COCO_SPLITS", "CocoShape", "annotation_file", "list_coco", "read_shapes"]

COCO_SPLITS = ("train", "val")


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Label(msgspec.Struct, gc=False):
    """What of an annotation makes an image-level label; its outline, nearly all of the file, is skipped."""

    image_id: int
    category_id: int
    iscrowd: int = 0


class _Outline(_Label, gc=False, kw_only=True):
    """An annotation whose outline stays the bytes of the file until its image is drawn."""

    id: int
    segmentation: msgspec.Raw


class _Labelled(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Label]
    categories: list[_Category]


class _Outlined(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Outline]
    categories: list[_Category]


Content = TypeVar("Content", _Labelled, _Outlined)


@dataclass(frozen=True)
class CocoShape:
    """One annotation of an image.

    Attributes:
        id: of the annotation.
        value: of its class in masks, 1..C by rank of the category's id.
        crowd: whether it outlines a group that was not taken apart.
        outline: polygons, or a run-length code, as the file has them.
    """

    id: int
    value: int
    crowd: bool
    outline: Any


def annotation_file(root: Path, split: str) -> Path:
    """Return where the annotations of a split are.

    Raises:
        UserError: COCO 2014 has no such split.
    """
    if split not in COCO_SPLITS:
        raise UserError(f"split '{split}': COCO 2014 has instances of {' and '.join(COCO_SPLITS)} only; choose one of them")
    return root / "annotations" / f"instances_{split}2014.json"


def list_coco(root: Path, splits: Sequence[str] = ()) -> Listing:
    """List the images of COCO 2014 that carry a label, 82,081 in train and 40,137 in val.

    A group of objects (iscrowd 1) is no label: an image that has nothing else is left out and counted.

    Arguments:
        root: folder with ``annotations``, and with ``train2014`` and ``val2014`` or ``images/train2014`` and ``images/val2014``.
        splits: train, val or both; empty lists both.

    Raises:
        UserError: a file is missing or damaged, or the splits have different classes.
    """
    names = tuple(dict.fromkeys(splits)) or COCO_SPLITS
    classes: tuple[str, ...] = ()
    entries: list[Entry] = []
    sources: list[Path] = []
    unlabelled: dict[str, int] = {}
    for split in names:
        path = annotation_file(root, split)
        content = _read(path, _Labelled)
        own, values = _classes(path, content.categories)
        if classes and own != classes:
            raise UserError(f"{path}: its categories differ from those of {names[0]}; give both files of one data set")
        classes = own
        labelled = _entries(path, root, split, content, classes, values)
        unlabelled[split] = len(content.images) - len(labelled)
        entries += labelled
        sources.append(path)
    entries.sort(key=lambda entry: entry.id)
    if twice := [first.id for first, second in pairwise(entries) if first.id == second.id]:
        raise UserError(f"{sources[-1]}: image '{twice[0]}' has a namesake in {names[0]}; rename one of them")
    return Listing(classes, tuple(range(1, len(classes) + 1)), names, tuple(entries), tuple(sources), root, unlabelled)


def _entries(path: Path, root: Path, split: str, content: _Labelled, classes: tuple[str, ...], values: dict[int, int]) -> list[Entry]:
    """Return the images of a split that carry a label."""
    _check_images(path, content.images)
    labels: dict[int, set[int]] = {image.id: set() for image in content.images}
    for label in content.annotations:
        if label.image_id not in labels:
            raise UserError(f"{path}: an annotation belongs to image {label.image_id}, which is not listed; restore the file")
        if label.category_id not in values:
            raise UserError(f"{path}: an annotation has category {label.category_id}, which is not listed; restore the file")
        if not label.iscrowd:
            labels[label.image_id].add(values[label.category_id])
    folder = _image_folder(root, split)
    sets: dict[frozenset[int], frozenset[str]] = {}
    entries = []
    for image in content.images:
        if own := frozenset(labels[image.id]):
            named = sets.setdefault(own, frozenset(classes[value - 1] for value in own))
            size = (image.height, image.width)
            entries.append(Entry(Path(image.file_name).stem, folder / image.file_name, named, (split,), None, None, size))
    if not entries:
        raise UserError(f"{path}: no image has a label; restore the file")
    return entries


def _check_images(path: Path, images: Sequence[_Image]) -> None:
    """Refuse names that could lead out of the folder, sizes that are none, and images that are there twice."""
    for image in images:
        if min(image.width, image.height) < 1 or image.width * image.height > MOST_PIXELS:
            raise UserError(f"{path}: '{image.file_name}' cannot have {image.width}x{image.height} pixels; restore the file")
        if Path(image.file_name).name != image.file_name or not is_safe_id(Path(image.file_name).stem):
            raise UserError(f"{path}: '{image.file_name}' is no name of an image; use letters, digits, _ - and . only")
    if len({image.id for image in images}) < len(images) or len({Path(image.file_name).stem for image in images}) < len(images):
        raise UserError(f"{path}: an image is listed twice; restore the file")


def _image_folder(root: Path, split: str) -> Path:
    folders = [folder for folder in (root / f"{split}2014", root / "images" / f"{split}2014") if folder.is_dir()]
    if not folders:
        raise UserError(f"{root}: no folder {split}2014 or images/{split}2014 here; unpack the photographs of this split there")
    return folders[0]


def _classes(path: Path, categories: Sequence[_Category]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the names of the categories by rank of their id, and the rank, from 1, of each id."""
    ordered = sorted(categories, key=lambda category: category.id)
    names = tuple(category.name for category in ordered)
    if not names or len(set(names)) < len(names) or len({category.id for category in ordered}) < len(ordered):
        raise UserError(f"{path}: its categories are missing or not unique; restore the file")
    return names, {category.id: rank for rank, category in enumerate(ordered, 1)}


def read_shapes(root: Path, split: str, images: Collection[str]) -> dict[str, tuple[tuple[int, int], list[CocoShape]]]:
    """Read the annotations of some images of a split.

    Arguments:
        root: as in :func:`list_coco`.
        split: train or val.
        images: their ids.

    Returns:
        height and width of each image, and its annotations in the order of the file.

    Raises:
        UserError: the file is missing or damaged, or lacks one of the images.
    """
    path = annotation_file(root, split)
    content = _read(path, _Outlined)
    wanted = frozenset(images)
    found = {image.id: image for image in content.images if Path(image.file_name).stem in wanted}
    if missing := sorted(wanted - {Path(image.file_name).stem for image in found.values()}):
        raise UserError(f"{path}: image '{missing[0]}' is not listed; run index_images again")
    _, values = _classes(path, content.categories)
    shapes: dict[int, list[CocoShape]] = {image: [] for image in found}
    for annotation in content.annotations:
        if annotation.image_id in found:
            value = values.get(annotation.category_id)
            if value is None:
                raise UserError(
                    f"{path}: annotation {annotation.id} has category {annotation.category_id}, which is not listed; restore the file"
                )
            outline = _outline(path, annotation)
            shapes[annotation.image_id].append(CocoShape(annotation.id, value, bool(annotation.iscrowd), outline))
    return {Path(image.file_name).stem: ((image.height, image.width), shapes[image.id]) for image in found.values()}


def _outline(path: Path, annotation: _Outline) -> Any:
    try:
        return msgspec.json.decode(annotation.segmentation)
    except (RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"{path}: annotation {annotation.id} cannot be read ({error}); restore the file") from error


def _read(path: Path, kind: type[Content]) -> Content:
    """Decode a file of annotations into the fields of ``kind``; nothing else of it is ever an object in memory."""
    try:
        with path.open("rb") as file:
            # Not closed here: outlines are slices of it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return msgspec.json.decode(content, type=kind)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; unpack annotations_trainval2014.zip into {path.parent.parent}") from error
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"{path}: annotations cannot be read ({error}); restore the file") from error
