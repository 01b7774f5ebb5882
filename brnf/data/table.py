"""Own images: a CSV with one row an image.

Columns ``image`` and ``labels`` are needed, ``mask`` and ``split`` may be there. Paths are relative
to the CSV. Several labels (and several splits) are separated by ``;`` or ``|``; rows of one image
are joined. Without a ``split`` column every image is in ``train``. An image without a label shows
none of the classes; in the split ``test`` its labels are not known. Masks hold 0 for background,
1..C for the classes in their order, 255 for ignored.

A table is its owner's own: its paths may lead anywhere, also up and absolutely. An image's id is
its file name without the ending, with ``_`` for what is neither an ASCII letter, digit nor ``_ -
.``, so that what is written about it stays in the results. Where several images would share an id,
a hash of the path is added to each.
"""

import hashlib
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brnf.data.entries import Entry, Fault, Listing, is_safe_id, told
from brnf.data.labels import as_mask_values, check_labels, read_labels
from brnf.data.spreadsheet import Row, read_rows
from brnf.errors import UserError

__all__ = ["COLUMNS", "NEEDED", "list_table"]

COLUMNS = ("image", "labels", "mask", "split")
NEEDED = COLUMNS[:2]
SPLITS = ("train", "val", "test")
TRAIN = ("train",)
UNLABELLED_SPLITS = {"test"}
OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
"""Cameras and people write blanks, brackets and accents, which an id does not hold."""
LONGEST_NAME = 180


@dataclass(frozen=True, slots=True)
class _Image:
    """What the rows of one image say; there may be millions.

    Attributes:
        place: of its first row, such as ``line 7``.
        cell: that names it.
        path: of the photograph.
        labels: as they come.
        splits: likewise.
        mask: its path, or None.
    """

    place: str
    cell: str
    path: str
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    mask: str | None


def list_table(
    path: Path,
    splits: Sequence[str] = (),
    classes: Sequence[str] = (),
    skip_bad: bool = False,
    optional: str | None = None,
) -> Listing:
    """List the images of a CSV.

    Arguments:
        path: the CSV.
        splits: to list; empty lists all.
        classes: all classes in the order of their mask values 1..C; empty takes the labels of the
            CSV, sorted: by their value in masks where all are numbers, else by name.
        skip_bad: whether images whose rows have a fault are left out.
        optional: one of the splits, which may be missing where the CSV names no split that is not
            among them (but ``test``), for then none is misspelt.

    Raises:
        UserError: the CSV is missing or has an unknown column, labels are in doubt, or a row has a
            fault, such as a missing file; the message names the CSV and the line.
    """
    images, faults, notes = _read(path, splits, classes)
    if faults and not (skip_bad and images):
        raise told(faults)
    names, values = tuple(classes), tuple(range(1, len(classes) + 1))
    if not classes:
        places: dict[str, str] = {}
        for image in images:
            for label in image.labels:
                places.setdefault(label, f"{path}, {image.place}")
        numbers = as_mask_values(places) or {}
        check_labels(places)
        names = tuple(numbers or sorted(places))
        values = tuple(numbers.values()) or tuple(range(1, len(names) + 1))
    if not names:
        raise UserError(f"{path}: no row has a label; write the classes that an image shows")
    found = Counter(split for image in images for split in image.splits)
    wanted = tuple(dict.fromkeys(splits)) or tuple(sorted(found))
    if optional not in found and set(found) <= {*wanted, *UNLABELLED_SPLITS}:
        wanted = tuple(split for split in wanted if split != optional)
    if missing := [split for split in wanted if split not in found]:
        raise UserError(
            f"{path}: split '{missing[0]}' holds no image; the table has: "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    if others := [f"{found[split]} of '{split}'" for split in sorted(found.keys() - set(wanted))]:
        notes.append(f"images of splits that are not used: {', '.join(others)}")
    shared = _shared(images)
    if renamed := shared and sum(_name(image).casefold() in shared for image in images):
        notes.append(f"{renamed} images share a name; a hash of the path was added to their ids")
    entries = []
    known: dict[Any, Any] = {}  # equal labels and splits of all images are kept once
    for image in images:
        unknown = not image.labels and set(image.splits) <= UNLABELLED_SPLITS
        labels = None if unknown else frozenset(image.labels)
        own = tuple(split for split in wanted if split in image.splits)
        if own:
            labels, own = known.setdefault(labels, labels), known.setdefault(own, own)
            entries.append(Entry(_id(image, shared), image.path, labels, own, image.mask, None))
    entries.sort(key=lambda entry: entry.id)
    return Listing(
        names,
        values,
        wanted,
        tuple(entries),
        (path,),
        path.parent,
        faults=tuple(faults),
        notes=tuple(f"{path}: {note}" for note in notes),
    )


def _read(
    path: Path, splits: Sequence[str], classes: Sequence[str]
) -> tuple[list[_Image], list[Fault], list[str]]:
    """Read the rows and join those of one image; return the images, faults and remarks."""
    images: dict[str, _Image] = {}
    faults, joined, renamed = [], 0, Counter[str]()
    for row in read_rows(path, COLUMNS, NEEDED):
        try:
            if row.fault:
                raise UserError(row.fault)
            image = _image(path.parent, row, splits or SPLITS, classes)
            key = os.path.abspath(image.path)
            key = image.path if key == image.path else key
            if earlier := images.get(key):
                image, joined = _joined(earlier, image), joined + 1
            images[key] = image
        except UserError as error:
            files = (path.parent / row.cells[name] for name in ("image", "mask") if name in row)
            faults.append(Fault(row.place, UserError(f"{row}: {error}"), tuple(files)))
            continue
        renamed.update(
            f"'{name}' ({own})"
            for name, own in zip(_several(row.cells.get("split", "")), image.splits, strict=False)
            if name != own
        )
    notes = []
    if joined:
        notes.append(f"{joined} rows name an image of an earlier row; their labels were joined")
    if renamed:
        names = ", ".join(f"{count} of {name}" for name, count in sorted(renamed.items()))
        notes.append(f"splits written in another way: {names}")
    return list(images.values()), faults, notes


def _image(folder: Path, row: Row, splits: Sequence[str], classes: Sequence[str]) -> _Image:
    """Read a row, checking all that can be checked without opening the image."""
    image = _found(folder, row, "image")
    if image is None:
        raise UserError("no image is named; write its path relative to the CSV")
    names = _several(row.cells["split"]) if "split" in row.cells else TRAIN
    if not names or not all(map(is_safe_id, names)):
        raise UserError(
            f"split '{row.cells['split']}' is no name of a split; write train, val or test"
        )
    own = tuple(dict.fromkeys(_split(name, splits) for name in names))
    labels = tuple(map(sys.intern, read_labels(row.cells["labels"], classes)))
    mask = _found(folder, row, "mask")
    return _Image(row.place, row.cells["image"], image, labels, tuple(map(sys.intern, own)), mask)


def _found(folder: Path, row: Row, column: str) -> str | None:
    """Return the file that a cell names, None for an empty cell.

    Systems write accents and separators of folders differently, so those of others are tried, too.
    """
    cell = row.cells.get(column, "")
    if not cell:
        return None
    for form in (cell, *(unicodedata.normalize(form, cell) for form in ("NFC", "NFD"))):
        for name in (form, form.replace("\\", "/")):
            path = str(folder / name)
            if os.path.isfile(path):
                return path
    raise UserError(f"{column} {folder / cell} is missing; paths are relative to the CSV")


def _split(name: str, wanted: Iterable[str]) -> str:
    """Return which of the wanted splits a name means: ``Train`` and ``validation`` are clear."""
    folded = name.casefold()
    meant = (name, folded, OTHER_NAMES.get(folded, name))
    return next((one for one in meant if one in wanted), name)


def _joined(first: _Image, second: _Image) -> _Image:
    """Join two rows of one image."""
    if set(first.splits) != set(second.splits) or (
        first.mask and second.mask and first.mask != second.mask
    ):
        raise UserError(
            f"image {second.path} has another split or mask in {first.place}; give it once"
        )
    labels = tuple(dict.fromkeys((*first.labels, *second.labels)))
    return replace(first, labels=labels, mask=first.mask or second.mask)


def _shared(images: Iterable[_Image]) -> frozenset[str]:
    """Return the names that several images have, where capitals do not count."""
    once, again = set[str](), set[str]()
    for image in images:
        name = _name(image).casefold()
        (again if name in once else once).add(name)
    return frozenset(again)


def _id(image: _Image, shared: Container[str]) -> str:
    """Return an image's name, or one of its own where others share it."""
    name = _name(image)
    if name.casefold() not in shared:
        return name
    cell = unicodedata.normalize("NFC", image.cell).replace("\\", "/")
    return f"{name}_{hashlib.sha256(cell.encode()).hexdigest()[:8]}"


def _name(image: _Image) -> str:
    """Return a file name as an id, without what an id does not hold."""
    file = image.path.rpartition(os.sep)[2]
    ending = file.rfind(".")
    stem = file[:ending] if 0 < ending < len(file) - 1 else file
    return re.sub(r"^[-.]", "_", UNSAFE.sub("_", unicodedata.normalize("NFC", stem)))[:LONGEST_NAME]


def _several(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in re.split(r"[;|]", cell) if part.strip()))
