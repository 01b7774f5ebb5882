"""The lists of an image index, written image by image: a data set may have millions."""

import csv
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "IMAGE_COLUMNS",
    "MASK_COLUMNS",
    "ImageRecord",
    "ListWriter",
    "MaskRecord",
    "MaskWriter",
    "labels_text",
    "shard_of",
]

IMAGE_COLUMNS = ("id", "path", "width", "height", "labels", "digest")
MASK_COLUMNS = ("id", "mask", "context", "digest")
BUFFERED = 20_000
"""Rows of shards that are kept until each shard's are appended to its list at once."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of the data set.

    Its text, which counts among what a training depends on, has the digest and not the path: a data
    set may move.

    Attributes:
        id: unique name, used for every file written about this image.
        path: the photograph.
        width: in pixels.
        height: in pixels.
        labels: class indices 1..C present in the image, ascending.
        digest: of the photograph's bytes.
    """

    id: str
    path: Path = field(repr=False)
    width: int
    height: int
    labels: tuple[int, ...]
    digest: str = ""


@dataclass(frozen=True, slots=True)
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


def shard_of(image: str, shards: int) -> int:
    """Return the shard of an image: a hash of its id, so that adding images moves no other."""
    return int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % shards


class _Table:
    """A table that grows row by row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        if self._file.tell() == 0:
            self._rows.writerow(columns)
        self.extend = self._rows.writerows

    def close(self) -> None:
        self._file.close()


class ListWriter:
    """Write the images of a split, whole and cut into shards.

    Arguments:
        folder: of the index; holds no list of this split yet.
        split: name of the split.
        root: paths below it are written relative to it.
        shards: number of shards; see :func:`shard_of`.
    """

    def __init__(self, folder: Path, split: str, root: Path, shards: int) -> None:
        self._whole = _Table(folder / "splits" / f"{split}.csv", IMAGE_COLUMNS)
        self._folder, self._root, self._count = folder / "shards" / split, str(root), shards
        self._rows: list[tuple[str, str, int, int, str, str]] = []

    def add(self, image: ImageRecord) -> None:
        """Append an image; those of a split come in the order of their ids."""
        size = (image.height, image.width)
        self.append(image.id, str(image.path), size, labels_text(image.labels), image.digest)

    def append(self, name: str, path: str, size: tuple[int, int], labels: str, digest: str) -> None:
        """Append an image as :meth:`add`, without an object of it.

        Arguments:
            name: its id.
            path: of the photograph.
            size: height and width.
            labels: see :func:`labels_text`.
            digest: of the photograph's bytes.
        """
        self._rows.append((name, _below(path, self._root), size[1], size[0], labels, digest))
        if len(self._rows) == BUFFERED:
            self._write()

    def close(self) -> None:
        """End the lists."""
        self._write()
        self._whole.close()

    def _write(self) -> None:
        self._whole.extend(self._rows)
        shards: dict[int, list[Sequence[object]]] = {}
        for row in self._rows:
            shards.setdefault(shard_of(row[0], self._count), []).append(row)
        for shard, rows in shards.items():
            table = _Table(self._folder / f"{shard}.csv", IMAGE_COLUMNS)
            table.extend(rows)
            table.close()
        self._rows = []


class MaskWriter:
    """Write which masks belong to the images of a split, apart from what training may know.

    Arguments:
        folder: of the index; holds no such list of this split yet.
        split: name of the split.
        root: paths below it are written relative to it.
    """

    def __init__(self, folder: Path, split: str, root: Path) -> None:
        self._table = _Table(folder / "masks" / f"{split}.csv", MASK_COLUMNS)
        self._root = str(root)
        self._rows: list[tuple[str, str | None, str | None, str]] = []

    def add(self, record: MaskRecord) -> None:
        """Append the masks of an image."""
        mask, context = (
            None if path is None else str(path) for path in (record.mask, record.context)
        )
        self.append(record.id, mask, context, record.digest)

    def append(self, name: str, mask: str | None, context: str | None, digest: str) -> None:
        """Append the masks of an image as :meth:`add`, without an object of them."""
        if mask is not None:
            mask = _below(mask, self._root)
        if context is not None:
            context = _below(context, self._root)
        self._rows.append((name, mask, context, digest))
        if len(self._rows) == BUFFERED:
            self._write()

    def close(self) -> None:
        """End the list."""
        self._write()
        self._table.close()

    def _write(self) -> None:
        self._table.extend(self._rows)
        self._rows = []


def labels_text(labels: Iterable[int]) -> str:
    """Return class indices as a list holds them."""
    return ";".join(map(str, labels))


def _below(text: str, root: str) -> str:
    """Return a path relative to ``root`` if it lies in it; ``root / path`` leads back."""
    above = f"{root}{os.sep}"
    if text.startswith(above):  # as nearly always, and ten times faster than comparing parts
        return text[len(above) :]
    path = Path(text)
    return str(path.relative_to(root) if path.is_relative_to(root) else path.absolute())
