"""The image index: what every later stage knows about the data set.

Each file of its folder holds what one kind of stage reads, so that a change of the data reaches
those stages and no other:

- ``classes.csv``: the classes.
- ``splits/<split>.csv``: the images of a split, for what is trained or measured on it.
- ``shards/<split>/<number>.csv``: the same images cut into shards, for stages over images; a shard
  without an image has no file.
- ``masks/<split>.csv``: ground truth, for evaluation and figures only.
- ``root.txt``: where the files lie. No rule depends on it: the others hold digests of the contents,
  so a data set may move.
"""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brnf.data.entries import is_safe_id
from brnf.errors import DamagedProduct, UserError

__all__ = [
    "ImageRecord",
    "Index",
    "MaskRecord",
    "read_classes",
    "read_masks",
    "shard_of",
    "write_masks",
]

IMAGE_COLUMNS = ("id", "path", "width", "height", "labels", "digest")
MASK_COLUMNS = ("id", "mask", "context", "digest")


@dataclass(frozen=True)
class ImageRecord:
    """One image of the data set.

    Attributes:
        id: unique name, used for every file written about this image.
        path: the photograph.
        width: in pixels.
        height: in pixels.
        labels: class indices 1..C present in the image, ascending.
        digest: of the photograph's bytes.
    """

    id: str
    path: Path
    width: int
    height: int
    labels: tuple[int, ...]
    digest: str = ""


@dataclass(frozen=True)
class MaskRecord:
    """The ground truth of one image, known to evaluation only.

    Attributes:
        id: of the image.
        mask: index PNG of the objects, or None.
        context: index PNG of the context textures (rendered scenes only), or None.
        digest: of both files' bytes.
    """

    id: str
    mask: Path | None
    context: Path | None
    digest: str = ""


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
        classes = zip(self.classes, self.mask_values, strict=True)
        _write(
            folder / "classes.csv",
            ("index", "name", "mask_value"),
            ((i, *values) for i, values in enumerate(classes, 1)),
        )
        (folder / "root.txt").write_text(f"{self.root}\n")
        lists: dict[int, list[Sequence[object]]] = {}
        for image in self.images:
            labels = ";".join(map(str, image.labels))
            row = (
                image.id,
                _below(image.path, self.root),
                image.width,
                image.height,
                labels,
                image.digest,
            )
            lists.setdefault(shard_of(image.id, shards), []).append(row)
        for shard, rows in lists.items():
            _write(folder / "shards" / split / f"{shard}.csv", IMAGE_COLUMNS, rows)
        _write(
            folder / "splits" / f"{split}.csv",
            IMAGE_COLUMNS,
            sorted((row for rows in lists.values() for row in rows), key=_id),
        )

    @classmethod
    def of_split(cls, folder: Path, split: str) -> "Index":
        """Read the images of a split.

        Raises:
            UserError: the split is unknown, or a file is damaged.
        """
        path = folder / "splits" / f"{split}.csv"
        if not path.exists() and (
            known := sorted(other.stem for other in path.parent.glob("*.csv"))
        ):
            raise UserError(f"split '{split}' holds no image; the data set has: {', '.join(known)}")
        return cls.of_list(folder, path)

    @classmethod
    def of_list(cls, folder: Path, images: Path) -> "Index":
        """Read the images of one list.

        Arguments:
            folder: of the index.
            images: file of a split or of a shard in it.

        Raises:
            UserError: a file is missing or damaged.
        """
        root = _root(folder)
        classes, mask_values = read_classes(folder)
        records = []
        try:
            for row in _read(folder, images, IMAGE_COLUMNS):
                labels = tuple(int(label) for label in row["labels"].split(";") if label)
                width, height = int(row["width"]), int(row["height"])
                if (
                    not is_safe_id(row["id"])
                    or min(width, height) < 1
                    or not set(labels) <= set(range(1, len(classes) + 1))
                ):
                    raise ValueError(f"{row['id']}: no id, no size, or a label of no class")
                records.append(
                    ImageRecord(row["id"], root / row["path"], width, height, labels, row["digest"])
                )
        except ValueError as error:
            raise _damaged(folder, images, error) from error
        return cls(classes, mask_values, tuple(records), root)


def read_classes(folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of the classes and their values in the data set's mask files.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "classes.csv"
    rows = _read(folder, path, ("name", "mask_value"))
    try:
        return tuple(row["name"] for row in rows), tuple(int(row["mask_value"]) for row in rows)
    except ValueError as error:
        raise _damaged(folder, path, error) from error


def write_masks(folder: Path, split: str, masks: Iterable[MaskRecord], root: Path = Path()) -> None:
    """Write which masks belong to the images of a split, apart from what training may know.

    Arguments:
        folder: of the index.
        split: name of the split.
        masks: of its images.
        root: paths below it are written relative to it.
    """
    rows = (
        (one.id, *(path and _below(path, root) for path in (one.mask, one.context)), one.digest)
        for one in masks
    )
    _write(folder / "masks" / f"{split}.csv", MASK_COLUMNS, rows)


def read_masks(folder: Path, split: str) -> dict[str, MaskRecord]:
    """Return the masks of a split by image id.

    Raises:
        UserError: the file is missing or damaged.
    """
    root = _root(folder)
    found = {}
    for row in _read(folder, folder / "masks" / f"{split}.csv", MASK_COLUMNS):
        mask, context = (root / row[name] if row[name] else None for name in ("mask", "context"))
        found[row["id"]] = MaskRecord(row["id"], mask, context, row["digest"])
    return found


def shard_of(image: str, shards: int) -> int:
    """Return the shard of an image: a hash of its id, so that adding images moves no other."""
    return int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % shards


def _below(path: Path, root: Path) -> Path:
    """Return a path relative to ``root`` if it lies in it; ``root / path`` leads back."""
    return path.relative_to(root) if path.is_relative_to(root) else path.absolute()


def _id(row: Sequence[object]) -> str:
    return str(row[0])


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _read(folder: Path, path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a table that must have certain columns."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows, found = list(reader), set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(folder, path, error) from error
    if not set(columns) <= found or any(row[name] is None for row in rows for name in columns):
        raise _damaged(folder, path, ValueError("columns or cells are missing"))
    return rows


def _root(folder: Path) -> Path:
    try:
        return Path((folder / "root.txt").read_text().removesuffix("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(folder, folder / "root.txt", error) from error


def _damaged(folder: Path, path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError) and not folder.exists():
        return UserError(f"{path}: no such file; run index_images first")
    return DamagedProduct(
        folder, f"missing or damaged part {path.name} of the image index ({error})", "index_images"
    )
