"""What every kind of data set is turned into before it is indexed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brnf.errors import UserError
from brnf.store.label_type import MOST_CLASSES, ignored_value

__all__ = [
    "Entry",
    "Fault",
    "Listing",
    "is_file",
    "is_no_class",
    "is_safe_id",
    "select_classes",
    "told",
]

SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MOST_NAMED = 20
"""Faults that one line names."""
NO_CLASS = {"background", "bg", "void", "ignore"}
"""What class lists of other programs call the background and ignored pixels."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image as its data set lists it.

    Paths are text: a million objects of :class:`pathlib.Path` take half a gigabyte.

    Attributes:
        id: unique name.
        image: the photograph.
        labels: names of the classes in it; none for a negative image, which shows none of them;
            None where they are not known (a test split).
        splits: that contain it.
        mask: ground truth, or None.
        context: mask of the context textures (rendered scenes), or None.
        size: height and width that the image must have, where its data set tells them.
    """

    id: str
    image: str
    labels: frozenset[str] | None
    splits: tuple[str, ...]
    mask: str | None
    context: str | None
    size: tuple[int, int] | None = None

    @property
    def masks(self) -> tuple[str, ...]:
        """Return the masks that the image has."""
        if self.mask is None and self.context is None:
            return ()
        return tuple(path for path in (self.mask, self.context) if path is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the photograph and its masks."""
        return self.image, *self.masks


@dataclass(frozen=True)
class Fault:
    """Why an image is left out.

    Attributes:
        name: tells it from others, such as its id or ``line 7``.
        error: what is wrong.
        files: whose change may mend it.
    """

    name: str
    error: UserError
    files: tuple[Path, ...] = ()


def told(faults: Sequence[Fault]) -> UserError:
    """Return one line that says the first fault, and how many there are and where."""
    if len(faults) == 1:
        return faults[0].error
    names = ", ".join(fault.name for fault in faults[:MOST_NAMED])
    more = " ..." if len(faults) > MOST_NAMED else ""
    return UserError(f"{faults[0].error} ({len(faults)} bad images in all: {names}{more})")


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
        faults: of images that are left out.
        notes: what was corrected or left out, one line each.
    """

    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    splits: tuple[str, ...]
    entries: tuple[Entry, ...]
    sources: tuple[Path, ...]
    root: Path
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


def is_safe_id(name: str) -> bool:
    """Return whether a name can stand in file names, HDF5 groups and lists.

    It is at most 200 letters, digits, ``_ - .``, with no ``-`` or ``.`` in front: no id holds a
    separator or leads out of a folder.
    """
    return SAFE_ID.fullmatch(name) is not None


def is_no_class(name: str) -> bool:
    """Return whether a name is what other programs call the background or ignored pixels."""
    return name.casefold().strip("_- ") in NO_CLASS


def is_file(path: Path) -> bool:
    """Return whether a path is an ordinary file, or a link to one; false also where it cannot even
    be asked for.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def select_classes(
    listing: Listing, classes: Sequence[str], negatives: bool = True
) -> tuple[Listing, Counter[str]]:
    """Keep some of the classes, and the images that carry one of them, carry no label at all or
    whose labels are not known.

    Arguments:
        listing: the whole data set.
        classes: names in the order of the new indices 1..C; empty keeps all.
        negatives: whether images without a label stay.

    Returns:
        The smaller listing, and the number of images left out of each split since they carry other
        classes only.

    Raises:
        UserError: a name is no class of the data set, is given twice or cannot be printed, there
            are more than 65,534, or a split is left without an image that carries one.
    """
    chosen = tuple(classes) or listing.classes
    _check_names(chosen, listing)
    value_of = dict(zip(listing.classes, listing.mask_values, strict=True))
    entries, left_out, unlabelled = [], Counter[str](), Counter(listing.unlabelled)
    wanted = frozenset(chosen)
    for entry in listing.entries:
        whole = entry.labels is None or entry.labels <= wanted
        labels = entry.labels if whole or entry.labels is None else entry.labels & wanted
        if entry.labels and not labels:
            left_out.update(entry.splits)
        elif labels is not None and not labels and not negatives:
            unlabelled.update(entry.splits)
        else:
            # Most often whole; a copy would take its memory twice.
            entries.append(entry if whole else replace(entry, labels=labels))
    kept = {split for entry in entries if entry.labels != frozenset() for split in entry.splits}
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
        unlabelled=unlabelled,
    ), left_out


def _check_names(chosen: Sequence[str], listing: Listing) -> None:
    """Refuse class names that this data set cannot have."""
    value_of = dict(zip(listing.classes, listing.mask_values, strict=True))
    if unknown := [name for name in chosen if name not in value_of]:
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
    largest = max((value_of[name] for name in chosen), default=0)
    if largest > MOST_CLASSES:
        raise UserError(
            f"dataset.classes: {len(listing.classes)} classes, and masks of two bytes hold "
            f"{MOST_CLASSES}; merge some"
        )
    shown = {label for entry in listing.entries for label in entry.labels or ()}
    for name in chosen:
        if name not in shown and is_no_class(name):
            raise UserError(
                f"dataset.classes: '{name}' labels no image; leave it out, since background is "
                f"always value 0 of a mask, ignored pixels are {ignored_value(largest)}, and the "
                "first class named is 1"
            )
