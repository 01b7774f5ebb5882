"""Own images: a CSV with one row an image.

Columns ``image`` and ``labels`` are needed, ``mask`` and ``split`` may be there. Paths are relative
to the CSV. Several labels (and several splits) are separated by ``;`` or ``|``. Without a ``split``
column every image is in ``train``; only images of the split ``test`` may go without labels. Masks
hold 0 for background, 1..C for the classes in their order, 255 for ignored.

A table is its owner's own: its paths may lead anywhere, also up and absolutely. An image's id is
its file name without the ending, with ``_`` for what is neither an ASCII letter, digit nor ``_ -
.``, so that what is written about it stays in the results.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brnf.data.entries import Entry, Listing, is_file, is_safe_id
from brnf.errors import UserError

__all__ = ["list_table"]

NEEDED = ("image", "labels")
OPTIONAL = ("mask", "split")
UNLABELLED_SPLITS = {"test"}
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
"""Cameras and people write blanks, brackets and accents, which an id does not hold."""


@dataclass(frozen=True)
class _Row:
    where: str
    cells: dict[str, str]


def list_table(path: Path, splits: Sequence[str] = (), classes: Sequence[str] = ()) -> Listing:
    """List the images of a CSV.

    Arguments:
        path: the CSV.
        splits: to list; empty lists all.
        classes: all classes in the order of their mask values 1..C; empty takes the labels of the
            CSV, sorted.

    Raises:
        UserError: the CSV is missing or has an unknown column, or a row has a missing file, an id
            seen before, an unknown label or none; the message names the CSV and the line.
    """
    entries: dict[str, Entry] = {}
    for row in _read(path):
        entry = _entry(path.parent, row, frozenset(classes))
        if entry.id in entries:
            raise UserError(
                f"{row.where}: id '{entry.id}' (of the file name) was used before; rename one of "
                "the images"
            )
        entries[entry.id] = entry
    names = tuple(classes) or tuple(
        sorted({label for entry in entries.values() for label in entry.labels or ()})
    )
    known = sorted({split for entry in entries.values() for split in entry.splits})
    wanted = tuple(dict.fromkeys(splits)) or tuple(known)
    if missing := [split for split in wanted if split not in known]:
        raise UserError(
            f"{path}: split '{missing[0]}' holds no image; the table has: "
            f"{', '.join(known) or 'none'}"
        )
    listed = []
    for name in sorted(entries):
        own = tuple(split for split in wanted if split in entries[name].splits)
        if own:
            entry = entries[name]
            listed.append(Entry(entry.id, entry.image, entry.labels, own, entry.mask, None))
    return Listing(
        names, tuple(range(1, len(names) + 1)), wanted, tuple(listed), (path,), path.parent
    )


def _read(path: Path) -> list[_Row]:
    """Read the rows, checking the header and the number of cells."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            rows = []
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{where}: {len(cells)} cells under {len(header)} columns; separate "
                        "several labels by ;"
                    )
                rows.append(
                    _Row(where, dict(zip(header, (cell.strip() for cell in cells), strict=True)))
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as a CSV ({error}); give a UTF-8 file with the columns "
            "image,labels[,mask][,split]"
        ) from error
    if not rows:
        raise UserError(f"{path}: holds no image; add one row an image")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    if missing := [name for name in NEEDED if name not in header]:
        raise UserError(
            f"{path}, line 1: column '{missing[0]}' is missing; the header is "
            "image,labels[,mask][,split]"
        )
    if unknown := [name for name in header if name not in NEEDED + OPTIONAL]:
        raise UserError(
            f"{path}, line 1: unknown column '{unknown[0]}'; the header is "
            "image,labels[,mask][,split]"
        )
    if len(set(header)) < len(header):
        raise UserError(
            f"{path}, line 1: a column is there twice; the header is image,labels[,mask][,split]"
        )


def _entry(folder: Path, row: _Row, classes: frozenset[str]) -> Entry:
    """Turn a row into an entry, checking all that can be checked without opening the image."""
    image = folder / row.cells["image"]
    if not row.cells["image"] or not is_file(image):
        raise UserError(f"{row.where}: image {image} is missing; paths are relative to the CSV")
    name = UNSAFE.sub("_", image.stem)
    if not is_safe_id(name):
        raise UserError(
            f"{row.where}: file name '{image.stem}' cannot be an id; start it with a letter or "
            "digit, and have at most 200 of them"
        )
    mask = folder / row.cells["mask"] if row.cells.get("mask") else None
    if mask is not None and not is_file(mask):
        raise UserError(f"{row.where}: mask {mask} is missing; paths are relative to the CSV")
    splits = _several(row.cells["split"]) if "split" in row.cells else ("train",)
    if not splits or not all(map(is_safe_id, splits)):
        raise UserError(
            f"{row.where}: split '{row.cells['split']}' is no name of a split; write train, val or "
            "test"
        )
    labels = frozenset(_several(row.cells["labels"]))
    if classes and (unknown := sorted(labels - classes)):
        raise UserError(
            f"{row.where}: label '{unknown[0]}' is not in dataset.classes; add it there or correct "
            "the row"
        )
    if not labels and not set(splits) <= UNLABELLED_SPLITS:
        raise UserError(
            f"{row.where}: no label; name at least one class, or put the image into the split test"
        )
    return Entry(name, image, labels or None, splits, mask, None)


def _several(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in re.split(r"[;|]", cell) if part.strip()))
