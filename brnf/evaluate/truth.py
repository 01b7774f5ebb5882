"""Ground truth, and maps at its size: read by evaluation and figures, by nothing else."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from brnf.data.index import ImageRecord, Index, read_masks
from brnf.data.masks import read_mask, read_values
from brnf.errors import DamagedProduct, UserError
from brnf.store.label_type import Labels
from brnf.store.maps import CamMaps

__all__ = ["GroundTruth", "MaskFolders", "at_image_size"]


class GroundTruth:
    """The masks of a split, by image.

    Arguments:
        index: the image index.
        folder: where it was read from; holds the masks apart.
        split: whose masks are wanted.
        drawn: folders of masks ``<id>.png`` that the workflow drew because the data set has no
            files of them.
        packed: packs that hold its masks; none where they lie in the data set's folder.

    Raises:
        UserError: the list of masks is missing or damaged.
    """

    def __init__(
        self,
        index: Index,
        folder: Path,
        split: str,
        drawn: Iterable[Path] = (),
        packed: tuple[Path, ...] = (),
    ) -> None:
        self._values = index.mask_values
        self._records = read_masks(folder, split, packed)
        self._drawn = _masks_in(drawn)

    def objects(self, image: ImageRecord) -> Labels | None:
        """Return the true classes, [H, W] with 0..C and ignored, or None without a mask."""
        record = self._records.get(image.id)
        return self._read(record.mask or self._drawn.get(image.id), image) if record else None

    def context(self, image: ImageRecord) -> Labels | None:
        """Return the class of the context at each pixel, [H, W], 0 for none, or None."""
        record = self._records.get(image.id)
        return self._read(record.context, image) if record else None

    def _read(self, path: Path | None, image: ImageRecord) -> Labels | None:
        return (
            None
            if path is None
            else read_mask(path, self._values, size=(image.height, image.width))
        )


class MaskFolders:
    """Masks that the workflow wrote, one PNG an image in the folders of its shards.

    Arguments:
        folders: the shards of one product.

    Raises:
        UserError: two of the folders hold a mask of the same image.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._paths = _masks_in(folders)

    def __contains__(self, image: str) -> bool:
        return image in self._paths

    def read(self, image: ImageRecord) -> Labels:
        """Return the mask of one image, [H, W] class indices.

        Raises:
            UserError: there is none, or it is damaged.
        """
        if image.id not in self._paths:
            raise UserError(
                f"{image.id}: no mask of this image in the given folders; run the stage that "
                "writes them again"
            )
        path = self._paths[image.id]
        try:
            return read_values(path, size=(image.height, image.width))[0]
        except UserError as error:
            raise DamagedProduct(
                path.parent,
                f"its mask of {image.id} cannot be used ({error})",
                "the stage that writes it",
            ) from error


def _masks_in(folders: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        for path in folder.glob("*.png"):
            if other := found.get(path.stem):
                raise UserError(
                    f"{path}: {other} is a mask of the same image; give only one of their folders"
                )
            found[path.stem] = path
    return found


def at_image_size(maps: CamMaps, image: ImageRecord) -> CamMaps:
    """Enlarge maps bilinearly to the size of their image."""
    if maps.values.shape[1:] == (image.height, image.width):
        return maps
    enlarged = [
        cv2.resize(channel, (image.width, image.height), interpolation=cv2.INTER_LINEAR)
        for channel in maps.values
    ]
    return CamMaps(maps.classes, np.stack(enlarged))
