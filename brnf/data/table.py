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
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
NO_NAMES = ("", ".", "..")
SHARED = 65_536
"""Texts whose meaning is kept."""


class _Image(NamedTuple):
    """What the rows of one image say; there may be millions.

    Attributes:
        line: of its first row.
        cell: that names it; None where the path is the table's folder and this cell.
        path: of the photograph.
        labels: as they come.
        splits: likewise.
        mask: its path, or None.
    """

    line: int
    cell: str | None
    path: str
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    mask: str | None

    @property
    def place(self) -> str:
        """Return where its first row is, such as ``line 7``."""
        return f"line {self.line}"


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
    own = Counter(image.splits for image in images)
    found = Counter[str]()
    for names_of_splits, count in own.items():
        found.update(dict.fromkeys(names_of_splits, count))
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
    ids = [_name(image.path) for image in images]
    shared = _shared(ids)
    if shared:
        renamed = 0
        for place, name in enumerate(ids):
            if name.casefold() in shared:
                ids[place], renamed = _own_id(name, images[place], path.parent), renamed + 1
        notes.append(f"{renamed} images share a name; a hash of the path was added to their ids")
    # Equal labels and splits of all images are kept once, and an image goes when its entry is made.
    labels_of = cache(frozenset[str])
    splits_of = cache(lambda own: tuple(split for split in wanted if split in own))
    images.reverse()
    entries = []
    for name in ids:
        image = images.pop()
        if used := splits_of(image.splits):
            unknown = not image.labels and set(image.splits) <= UNLABELLED_SPLITS
            labels = None if unknown else labels_of(image.labels)
            entries.append(Entry(name, image.path, labels, used, image.mask, None))
    del ids
    entries.sort(key=attrgetter("id"))
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
    faults, joined, written = [], 0, Counter[tuple[str, tuple[str, ...]]]()
    cells = _Cells(path.parent, tuple(splits or SPLITS), tuple(classes))
    for row in read_rows(path, COLUMNS, NEEDED):
        try:
            if row.fault:
                raise UserError(row.fault)
            image = cells.image(row)
            key = cells.key(image.path)
            if earlier := images.get(key):
                image, joined = _joined(earlier, image), joined + 1
            images[key] = image
        except UserError as error:
            files = (path.parent / row.cells[name] for name in ("image", "mask") if name in row)
            faults.append(Fault(row.place, UserError(f"{row}: {error}"), tuple(files)))
            continue
        written[row.cells.get("split", ""), image.splits] += 1
    renamed = Counter[str]()
    for (cell, own), count in written.items():
        for name, meant in zip(_several(cell), own, strict=False):
            if name != meant:
                renamed[f"'{name}' ({meant})"] += count
    notes = []
    if joined:
        notes.append(f"{joined} rows name an image of an earlier row; their labels were joined")
    if renamed:
        names = ", ".join(f"{count} of {name}" for name, count in sorted(renamed.items()))
        notes.append(f"splits written in another way: {names}")
    return list(images.values()), faults, notes


class _Cells:
    """What the cells of a table mean. A text that many rows share is looked at once.

    Arguments:
        folder: that paths are relative to.
        splits: that a cell may mean.
        classes: that there are; empty if any name may be one.
    """

    def __init__(self, folder: Path, splits: tuple[str, ...], classes: tuple[str, ...]) -> None:
        self._folder = folder
        self._lead = _lead(folder)
        self._lead_of = lru_cache(SHARED)(lambda above: _lead(folder / above))
        self._whole_lead_of = lru_cache(SHARED)(os.path.abspath)
        self._labels = lru_cache(SHARED)(
            lambda cell: tuple(map(sys.intern, read_labels(cell, classes)))
        )
        self._splits = lru_cache(SHARED)(lambda cell: _splits(cell, splits))

    def image(self, row: Row) -> _Image:
        """Read a row, checking all that can be checked without opening the image.

        Raises:
            UserError: the row has a fault.
        """
        cells = row.cells
        path = self._found(row, "image")
        if path is None:
            raise UserError("no image is named; write its path relative to the CSV")
        splits = self._splits(cells["split"]) if "split" in cells else TRAIN
        labels = self._labels(cells["labels"])
        mask = self._found(row, "mask") if cells.get("mask") else None
        cell: str | None = cells["image"]
        if path == f"{self._lead}{cell}":
            cell = None
        return _Image(row.line, cell, path, labels, splits, mask)

    def key(self, path: str) -> str:
        """Return what two paths of one file share; where it can be, the path itself."""
        above, separator, name = path.rpartition(os.sep)
        if not separator or name in NO_NAMES:
            return os.path.abspath(path)
        whole = self._whole_lead_of(above or separator)
        return path if whole == above else os.path.join(whole, name)

    def _found(self, row: Row, column: str) -> str | None:
        """Return the file that a cell names, None for an empty cell.

        Systems write accents and separators of folders differently, so those of others are tried,
        too.
        """
        cell = row.cells.get(column, "")
        if not cell:
            return None
        path = self._joined(cell)
        if os.path.isfile(path):
            return path
        for form in (cell, *(unicodedata.normalize(form, cell) for form in ("NFC", "NFD"))):
            for name in (form, form.replace("\\", "/")):
                if os.path.isfile(path := self._joined(name)):
                    return path
        raise UserError(f"{column} {self._folder / cell} is missing; paths are relative to the CSV")

    def _joined(self, cell: str) -> str:
        """Return a path below the table's folder as :class:`pathlib.Path` writes it."""
        name = cell.rpartition(os.sep)[2]
        if name in NO_NAMES:
            return str(self._folder / cell)
        return f"{self._lead_of(cell[: -len(name)])}{name}"


def _lead(folder: Path) -> str:
    """Return what stands before the names of files in a folder."""
    return str(folder / "x")[:-1]


def _splits(cell: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the splits that a cell names.

    Raises:
        UserError: it names none.
    """
    names = _several(cell)
    if not names or not all(map(is_safe_id, names)):
        raise UserError(f"split '{cell}' is no name of a split; write train, val or test")
    return tuple(map(sys.intern, dict.fromkeys(_split(name, wanted) for name in names)))


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
    return first._replace(labels=labels, mask=first.mask or second.mask)


def _shared(names: Sequence[str]) -> frozenset[str]:
    """Return the names that several images have, where capitals do not count."""
    keys = np.fromiter((hash(name.casefold()) for name in names), np.int64, len(names))
    ordered = np.sort(keys)
    again = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not again:
        return frozenset()
    found = Counter(
        folded for name in names if hash(folded := name.casefold()) in again
    )  # of names that share a hash only there is one each
    return frozenset(name for name, count in found.items() if count > 1)


def _own_id(name: str, image: _Image, folder: Path) -> str:
    """Return an id of its own for an image whose name others share."""
    cell = image.path.removeprefix(_lead(folder)) if image.cell is None else image.cell
    cell = unicodedata.normalize("NFC", cell).replace("\\", "/")
    return f"{name}_{hashlib.sha256(cell.encode()).hexdigest()[:8]}"


def _name(path: str) -> str:
    """Return a file name as an id, without what an id does not hold."""
    file = path.rpartition(os.sep)[2]
    ending = file.rfind(".")
    stem = file[:ending] if 0 < ending < len(file) - 1 else file
    if len(stem) <= LONGEST_NAME and is_safe_id(stem):
        return stem
    return re.sub(r"^[-.]", "_", UNSAFE.sub("_", unicodedata.normalize("NFC", stem)))[:LONGEST_NAME]


def _several(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in re.split(r"[;|]", cell) if part.strip()))
