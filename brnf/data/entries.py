"""What every kind of data set is turned into before it is indexed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brnf.errors import UserError

__all__ = ["Entry", "Listing", "is_file", "is_safe_id", "select_classes"]

SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MOST_CLASSES = 254
"""Class indices are bytes, 0 is background and 255 ignored."""


@dataclass(frozen=True)
class Entry:
    """One image as its data set lists it.

    Attributes:
        id: unique name.
        image: the photograph.
        labels: names of the classes in it, or None where they are not known (a test split).
        splits: that contain it.
        mask: ground truth, or None.
        context: mask of the context textures (rendered scenes), or None.
        size: height and width that the image must have, where its data set tells them.
    """

    id: str
    image: Path
    labels: frozenset[str] | None
    splits: tuple[str, ...]
    mask: Path | None
    context: Path | None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Listing:
    """A data set before its images were opened.

    Attributes:
        classes: names of its classes.
        mask_values: value of each class in its mask files, same order.
        splits: names of the splits it was asked for.
        entries: sorted by id.
        sources: files and folders beside images and masks whose contents or names this listing
            follows from.
        root: folder that the paths lie in.
        unlabelled: number of images that each split leaves out since they carry no label.
    """

    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    splits: tuple[str, ...]
    entries: tuple[Entry, ...]
    sources: tuple[Path, ...]
    root: Path
    unlabelled: Mapping[str, int] = field(default_factory=dict)


def is_safe_id(name: str) -> bool:
    """Return whether a name can stand in file names, HDF5 groups and lists.

    It is at most 200 letters, digits, ``_ - .``, with no ``-`` or ``.`` in front: no id holds a
    separator or leads out of a folder.
    """
    return SAFE_ID.fullmatch(name) is not None


def is_file(path: Path) -> bool:
    """Return whether a path is an ordinary file, or a link to one; false also where it cannot even
    be asked for.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def select_classes(listing: Listing, classes: Sequence[str]) -> tuple[Listing, Counter[str]]:
    """Keep some of the classes, and the images that carry one of them or whose labels are not
    known.

    Arguments:
        listing: the whole data set.
        classes: names in the order of the new indices 1..C; empty keeps all.

    Returns:
        The smaller listing, and the number of images left out of each split.

    Raises:
        UserError: a name is no class of the data set, is given twice or cannot be printed, there
            are more than 254, or a split is left without an image.
    """
    chosen = tuple(classes) or listing.classes
    if unknown := [name for name in chosen if name not in listing.classes]:
        raise UserError(
            f"dataset.classes: '{unknown[0]}' is no class of this data set; it has: "
            f"{', '.join(listing.classes)}"
        )
    if repeated := [name for name, count in Counter(chosen).items() if count > 1]:
        raise UserError(
            f"dataset.classes: '{repeated[0]}' is given more than once; name each class once"
        )
    if unprintable := [name for name in chosen if not name.isprintable()]:
        raise UserError(
            f"class '{unprintable[0]}': holds control characters; use a name that can be printed"
        )
    value_of = dict(zip(listing.classes, listing.mask_values, strict=True))
    if max((value_of[name] for name in chosen), default=0) > MOST_CLASSES:
        raise UserError(
            f"dataset.classes: {len(listing.classes)} classes, and masks of one byte hold "
            f"{MOST_CLASSES}; merge some"
        )
    entries, left_out = [], Counter[str]()
    for entry in listing.entries:
        labels = entry.labels if entry.labels is None else entry.labels & set(chosen)
        if labels is not None and not labels:
            left_out.update(entry.splits)
        else:
            entries.append(replace(entry, labels=labels))
    kept = {split for entry in entries for split in entry.splits}
    if empty := [split for split in listing.splits if split not in kept]:
        raise UserError(
            f"split '{empty[0]}': holds no image with a label of {', '.join(chosen)}; choose other "
            "classes or another split"
        )
    return replace(
        listing,
        classes=chosen,
        mask_values=tuple(value_of[name] for name in chosen),
        entries=tuple(entries),
    ), left_out
