"""The image index: what every later stage knows about the data set.

Each file of its folder holds what one kind of stage reads, so that a change of the data reaches
those stages and no other:

- ``classes.csv``: the classes.
- ``splits/<split>.csv``: the images of a split, for what is trained or measured on it.
- ``shards/<split>/<number>.csv``: the same images cut into shards, for stages over images; a shard
  without an image has no file.
- ``masks/<split>.csv``: ground truth, for evaluation and figures only.
- ``root.txt``: where the files lie. No rule depends on it: the others hold digests of the contents,
  so a data set may move. What reads packs (:mod:`brnf.data.packs`) does without it.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from brnf.cache import FileState, file_state
from brnf.data.entries import is_safe_id
from brnf.data.index_lists import (
    IMAGE_COLUMNS,
    MASK_COLUMNS,
    ImageRecord,
    ListWriter,
    MaskRecord,
    MaskWriter,
    shard_of,
)
from brnf.data.packs import Kind, unpacked
from brnf.errors import DamagedProduct, UserError

__all__ = [
    "ImageRecord",
    "Index",
    "MaskRecord",
    "has_images",
    "has_masks",
    "read_classes",
    "read_masks",
    "shard_of",
    "write_masks",
    "write_shared",
]

TRUTH: tuple[Kind, Kind] = ("mask", "context")
"""Columns of a list of masks that name files."""


@dataclass(frozen=True)
class Index:
    """The classes of the data set and some of its images: a split, or a shard of one.

    Attributes:
        classes: names of the foreground classes; class ``i`` of every label and map is ``classes[i
            - 1]``.
        mask_values: value of each class in the data set's own mask files, same order.
        images: sorted by id.
        root: paths below it are written relative to it.
    """

    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    images: tuple[ImageRecord, ...] = field(repr=False)
    root: Path = Path()

    def select(self, ids: Iterable[str]) -> tuple[ImageRecord, ...]:
        """Return the images of these ids, in their order.

        Raises:
            UserError: an id is not among the images.
        """
        by_id = {image.id: image for image in self.images}
        try:
            return tuple(by_id[name] for name in ids)
        except KeyError as error:
            raise UserError(
                f"{error.args[0]}: not among the images of this split; choose another one"
            ) from error

    def write(self, folder: Path, split: str, shards: int = 1) -> None:
        """Write the images as a split, whole and cut into shards, and what all splits share.

        Arguments:
            folder: of the index.
            split: name of the split.
            shards: number of shards; see :func:`shard_of`.
        """
        write_shared(folder, self.classes, self.mask_values, self.root)
        writer = ListWriter(folder, split, self.root, shards)
        for image in sorted(self.images, key=lambda image: image.id):
            writer.add(image)
        writer.close()

    @classmethod
    def of_split(cls, folder: Path, split: str, packed: tuple[Path, ...] = ()) -> "Index":
        """Read the images of a split.

        Arguments:
            folder: of the index.
            split: its name.
            packed: packs that hold its images; none where they lie in the data set's folder.

        Raises:
            UserError: the split is unknown, or a file is damaged.
        """
        path = folder / "splits" / f"{split}.csv"
        if not path.exists() and (
            known := sorted(other.stem for other in path.parent.glob("*.csv"))
        ):
            raise UserError(f"split '{split}' holds no image; the data set has: {', '.join(known)}")
        return cls.of_list(folder, path, packed)

    @classmethod
    def of_list(cls, folder: Path, images: Path, packed: tuple[Path, ...] = ()) -> "Index":
        """Read the images of one list.

        Arguments:
            folder: of the index.
            images: file of a split or of a shard in it.
            packed: packs that hold its images; none where they lie in the data set's folder.

        Raises:
            UserError: a file is missing or damaged.
        """
        root = unpacked(packed) if packed else _root(folder)
        classes, mask_values = read_classes(folder)
        records = []
        try:
            for name, path, across, down, shown, digest in _read(folder, images, IMAGE_COLUMNS):
                labels = tuple(int(label) for label in shown.split(";") if label)
                width, height = int(across), int(down)
                named = all(1 <= label <= len(classes) for label in labels)
                if not is_safe_id(name) or min(width, height) < 1 or not named:
                    raise ValueError(f"{name}: no id, no size, or a label of no class")
                place = _place(root, "image", name, path, packed)
                records.append(ImageRecord(name, place, width, height, labels, digest))
        except ValueError as error:
            raise _damaged(folder, images, error) from error
        return cls(classes, mask_values, tuple(records), root)


def read_classes(folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of the classes and their values in the data set's mask files.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "classes.csv"
    rows = list(_read(folder, path, ("name", "mask_value")))
    try:
        return tuple(name for name, _ in rows), tuple(int(value) for _, value in rows)
    except ValueError as error:
        raise _damaged(folder, path, error) from error


def write_shared(
    folder: Path, classes: Sequence[str], mask_values: Sequence[int], root: Path
) -> None:
    """Write what all splits share: the classes, and where the files lie."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "name", "mask_value"))
        pairs = zip(classes, mask_values, strict=True)
        writer.writerows((i, *values) for i, values in enumerate(pairs, 1))
    (folder / "root.txt").write_bytes(os.fsencode(f"{root}\n"))


def write_masks(folder: Path, split: str, masks: Iterable[MaskRecord], root: Path = Path()) -> None:
    """Write which masks belong to the images of a split, apart from what training may know.

    Arguments:
        folder: of the index.
        split: name of the split.
        masks: of its images.
        root: paths below it are written relative to it.
    """
    writer = MaskWriter(folder, split, root)
    for mask in masks:
        writer.add(mask)
    writer.close()


def read_masks(folder: Path, split: str, packed: tuple[Path, ...] = ()) -> dict[str, MaskRecord]:
    """Return the masks of a split by image id.

    Arguments:
        folder: of the index.
        split: its name.
        packed: packs that hold its masks; none where they lie in the data set's folder.

    Raises:
        UserError: the file is missing or damaged.
    """
    root = unpacked(packed) if packed else _root(folder)
    found = {}
    for name, *paths, digest in _read(folder, folder / "masks" / f"{split}.csv", MASK_COLUMNS):
        mask, context = (
            _place(root, kind, name, path, packed) if path else None
            for kind, path in zip(TRUTH, paths, strict=True)
        )
        found[name] = MaskRecord(name, mask, context, digest)
    return found


def has_images(folder: Path, split: str) -> bool:
    """Return whether the index holds a split: one for validation may be missing."""
    return (folder / "splits" / f"{split}.csv").is_file()


def has_masks(folder: Path, split: str) -> bool:
    """Return whether an image of a split has ground truth, read no further than needed.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "masks" / f"{split}.csv"
    try:
        return _has_digest(path, file_state(path.stat()))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise _damaged(folder, path, error) from error


@cache
def _has_digest(path: Path, state: FileState) -> bool:
    """Return whether a row of a list of masks has a digest. Every rule that measures asks; a list
    without masks is read whole, and may have a million rows, so a list in one state is read once.
    """
    with path.open(newline="") as file:
        rows = csv.reader(file)
        place = next(rows, []).index("digest")
        return any(row[place] for row in rows if row)


def _read(folder: Path, path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the cells of certain columns, which a table must have, in their order."""
    try:
        with path.open(newline="") as file:
            reader = csv.reader(file)
            titles = next(reader, [])
            places = [titles.index(name) for name in columns]
            for row in reader:
                if row:
                    yield [row[place] for place in places]
    except (ValueError, IndexError) as error:
        if not isinstance(error, UnicodeDecodeError):
            error = ValueError("columns or cells are missing")
        raise _damaged(folder, path, error) from error
    except (OSError, csv.Error) as error:
        raise _damaged(folder, path, error) from error


def _place(root: Path, kind: Kind, name: str, path: str, packed: Sequence[Path]) -> Path:
    """Return where a file lies, whose path a list tells: in the data set, or unpacked."""
    return root / kind / name if packed else root / path


def _root(folder: Path) -> Path:
    try:
        return Path(os.fsdecode((folder / "root.txt").read_bytes().removesuffix(b"\n")))
    except OSError as error:
        raise _damaged(folder, folder / "root.txt", error) from error


def _damaged(folder: Path, path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError) and not folder.exists():
        return UserError(f"{path}: no such file; run index_images first")
    return DamagedProduct(
        folder, f"missing or damaged part {path.name} of the image index ({error})", "index_images"
    )
