"""The image index: what every later stage knows about the data set."""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from brnf.errors import UserError

__all__ = ["ImageRecord", "Index", "MaskRecord", "read_ids", "shard_of"]


@dataclass(frozen=True)
class ImageRecord:
    """One image of the data set.

    Attributes:
        id: unique name, used for every file written about this image.
        path: the photograph.
        width: in pixels.
        height: in pixels.
        labels: class indices 1..C present in the image, ascending.
        splits: names of the splits that contain it.
    """

    id: str
    path: Path
    width: int
    height: int
    labels: tuple[int, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class MaskRecord:
    """The ground truth of one image, known to evaluation only.

    Attributes:
        id: of the image.
        mask: index PNG of the objects, or None.
        context: index PNG of the context textures (rendered scenes only), or None.
    """

    id: str
    mask: Path | None
    context: Path | None


@dataclass(frozen=True)
class Index:
    """The data set as later stages see it.

    Attributes:
        classes: names of the foreground classes; class ``i`` of every label and map is ``classes[i - 1]``.
        mask_values: value of each class in the data set's own mask files, same order.
        images: all images, sorted by id.
    """

    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    images: tuple[ImageRecord, ...]

    def split(self, name: str) -> tuple[ImageRecord, ...]:
        """Return the images of one split.

        Raises:
            UserError: the split is unknown or empty.
        """
        images = tuple(image for image in self.images if name in image.splits)
        if not images:
            known = sorted({split for image in self.images for split in image.splits})
            raise UserError(f"split '{name}' holds no image; the data set has: {', '.join(known) or 'none'}")
        return images

    def select(self, ids: Iterable[str]) -> tuple[ImageRecord, ...]:
        """Return the images of these ids, in their order.

        Raises:
            UserError: an id is not in the index.
        """
        by_id = {image.id: image for image in self.images}
        try:
            return tuple(by_id[name] for name in ids)
        except KeyError as error:
            raise UserError(f"{error.args[0]}: not in the image index; run index_images again") from error

    def write(self, folder: Path) -> None:
        """Write ``classes.csv`` and ``images.csv`` into ``folder``."""
        with (folder / "classes.csv").open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["index", "name", "mask_value"])
            rows.writerows((i, name, value) for i, (name, value) in enumerate(zip(self.classes, self.mask_values, strict=True), 1))
        with (folder / "images.csv").open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["id", "path", "width", "height", "labels", "splits"])
            for image in self.images:
                labels = ";".join(map(str, image.labels))
                rows.writerow([image.id, image.path, image.width, image.height, labels, ";".join(image.splits)])

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """Read what :meth:`write` wrote.

        Raises:
            UserError: a file is missing or damaged.
        """
        try:
            with (folder / "classes.csv").open(newline="") as file:
                classes = [(row["name"], int(row["mask_value"])) for row in csv.DictReader(file)]
            with (folder / "images.csv").open(newline="") as file:
                images = tuple(_image(row) for row in csv.DictReader(file))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{folder}: missing or damaged image index ({error}); remove it and run index_images again") from error
        return cls(tuple(name for name, _ in classes), tuple(value for _, value in classes), images)


def _image(row: dict[str, str]) -> ImageRecord:
    labels = tuple(int(label) for label in row["labels"].split(";") if label)
    return ImageRecord(row["id"], Path(row["path"]), int(row["width"]), int(row["height"]), labels, tuple(row["splits"].split(";")))


def shard_of(image: str, shards: int) -> int:
    """Return the shard of an image: a hash of its id, so that adding images moves no other."""
    return int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % shards


def read_ids(path: Path) -> list[str]:
    """Read a list of image ids, one a line."""
    try:
        return path.read_text().split()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run index_images again") from error
