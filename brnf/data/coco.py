"""MS COCO 2014 as it is downloaded: its images and their labels (docs/method.md section 1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from brnf.config.sections.data import CocoLabels, Masks
from brnf.data.coco_file import (
    COCO_SPLITS,
    Image,
    Label,
    Labelled,
    Number,
    Outlined,
    annotation_file,
    class_ranks,
    image_folder,
    read_annotations,
    root_categories,
    shapes_of,
)
from brnf.data.coco_masks import visible_values
from brnf.data.entries import Entry, Listing
from brnf.errors import UserError

__all__ = ["list_coco"]

Labels = Iterator[tuple[Image, frozenset[int]]]
Values = Mapping[Number, int]
"""Of a category's id, the class in masks."""
Watch = Callable[[Sequence[Image]], Iterable[Image]]
Kind = TypeVar("Kind", bound=Label)


def list_coco(
    root: Path,
    splits: Sequence[str] = (),
    options: CocoLabels | None = None,
    watch: Watch = iter,
) -> Listing:
    """List the images of COCO 2014, also those without a label.

    Arguments:
        root: folder with ``annotations``, and with ``train2014`` and ``val2014`` or
            ``images/train2014`` and ``images/val2014``.
        splits: train, val or both; empty lists both.
        options: what labels an image, and how masks are drawn; None: the defaults.
        watch: goes through the images of a split whose masks are drawn, such as to show progress.

    Raises:
        UserError: a file is missing or damaged, or the splits have different classes.
    """
    names = tuple(dict.fromkeys(splits)) or COCO_SPLITS
    options = options or CocoLabels()
    classes: tuple[str, ...] = ()
    entries: list[Entry] = []
    sources: list[Path] = []
    notes: list[str] = []
    for split in names:
        path = annotation_file(root, split)
        own, found, roots = _list_split(path, root, split, options, watch)
        if classes and own != classes:
            problem = f"its categories differ from those of {names[0]}"
            raise UserError(f"{path}: {problem}; give both files of one data set")
        classes = own
        if not any(entry.labels for entry in found):
            raise UserError(f"{path}: no image has a label; restore the file")
        if roots:
            notes.append(f"{path}: without annotations and above others, so no class: {roots}")
        entries += found
        sources.append(path)
    entries.sort(key=lambda entry: entry.id)
    if twice := [first.id for first, second in pairwise(entries) if first.id == second.id]:
        problem = f"image '{twice[0]}' has a namesake in {names[0]}"
        raise UserError(f"{sources[-1]}: {problem}; rename one of them")
    mask_values = tuple(range(1, len(classes) + 1))
    return Listing(
        classes, mask_values, names, tuple(entries), tuple(sources), root, notes=tuple(notes)
    )


def _list_split(
    path: Path,
    root: Path,
    split: str,
    options: CocoLabels,
    watch: Watch,
) -> tuple[tuple[str, ...], list[Entry], str]:
    """Return the classes and all images of a split, and its root categories in words; its file is
    out of memory afterwards.
    """
    drawn = options.labels_from == "masks"
    content: Labelled | Outlined
    content = read_annotations(path, Outlined) if drawn else read_annotations(path, Labelled)
    classes, values = class_ranks(path, content)
    if isinstance(content, Outlined):
        labels = _visible(path, content, values, options, watch)
    else:
        labels = _annotated(path, content, values, options)
    roots = ", ".join(sorted(root_categories(content).values()))
    return classes, _entries(root, split, labels, classes), roots


def _annotated(path: Path, content: Labelled, values: Values, masks: Masks) -> Labels:
    """Return every image with the classes of its annotations."""
    grouped = _by_image(path, content.images, content.annotations, values)
    for image in content.images:
        drawn = (one for one in grouped[image.id] if not one.iscrowd or masks.crowds == "object")
        yield image, frozenset(values[one.category_id] for one in drawn)


def _visible(
    path: Path,
    content: Outlined,
    values: Values,
    masks: Masks,
    watch: Watch,
) -> Labels:
    """Return every image with the classes that can be seen in its mask."""
    grouped = _by_image(path, content.images, content.annotations, values)
    for image in watch(content.images):
        shapes = shapes_of(path, grouped[image.id], values)
        try:
            seen = visible_values(shapes, image.size, masks)
        except ValueError as error:
            raise UserError(f"{path}: {image.stem}: {error}; restore the file") from error
        yield image, seen


def _by_image(
    path: Path,
    images: Sequence[Image],
    annotations: Sequence[Kind],
    values: Values,
) -> dict[Number, list[Kind]]:
    """Return the annotations of each image; refuse those of an image or category not listed."""
    grouped: dict[Number, list[Kind]] = {image.id: [] for image in images}
    for one in annotations:
        if one.image_id not in grouped:
            problem = f"an annotation belongs to image {one.image_id}, which is not listed"
            raise UserError(f"{path}: {problem}; restore the file")
        if one.category_id not in values:
            problem = f"an annotation has category {one.category_id}, which is not listed"
            raise UserError(f"{path}: {problem}; restore the file")
        grouped[one.image_id].append(one)
    return grouped


def _entries(
    root: Path,
    split: str,
    labels: Labels,
    classes: tuple[str, ...],
) -> list[Entry]:
    """Return the images of a split with the names of their labels, possibly none."""
    folder = image_folder(root, split)
    sets: dict[frozenset[int], frozenset[str]] = {}
    entries = []
    for image, own in labels:
        named = sets.setdefault(own, frozenset(classes[value - 1] for value in own))
        photograph = str(folder / image.file_name)
        entries.append(Entry(image.stem, photograph, named, (split,), None, None, image.size))
    return entries
