"""Masks whose pixel values are class indices: reading, class subsets, PNGs.

They are read with PIL, which gives the indices of a palette PNG; readers that convert to colours
(OpenCV, imageio) do not.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brnf.data.entries import is_file
from brnf.data.images import MOST_PIXELS, ORIENTATION
from brnf.errors import UserError
from brnf.store.label_type import Labels, ignored_in, ignored_value, label_type

__all__ = [
    "colour_map",
    "read_mask",
    "read_values",
    "remap_table",
    "restore_table",
    "write_mask",
    "write_palette_png",
]

FORMATS = ("PNG", "GIF", "BMP", "TIFF")
"""What keeps indices as they are."""
BYTE = np.dtype(np.uint8)
TWO_BYTES = "I;16"
"""Mode of a gray PNG of 16 bits."""
PNG_ONLY = ("1", TWO_BYTES)
"""One bit of a PNG is an index, in other formats it is a picture of black and white; 16 bits are
written into PNGs.
"""
SCALES = {"L;2": 85, "L;4": 17}
"""Gray PNGs of 2 and 4 bits, which PIL stretches to 0..255 -> factor."""


def remap_table(mask_values: Sequence[int], kind: np.dtype[np.unsignedinteger] = BYTE) -> Labels:
    """Return the table from values in a file to class indices.

    Background 0 stays, ``mask_values[i]`` becomes ``i + 1``, and every other value is ignored: an
    object of a class that is not part of the experiment is neither background nor one of its
    classes.

    Arguments:
        mask_values: value in the file of each class, in class order.
        kind: type of the values in the file.

    Returns:
        [256] for files of one byte a pixel, [65536] for those of two, in the type of so many
        classes (:func:`brnf.store.label_type.label_type`).
    """
    values = 1 + max(ignored_in(kind), *mask_values)
    classes = len(mask_values)
    table: Labels = np.full(values, ignored_value(classes), label_type(classes))
    table[0] = 0
    table[np.asarray(mask_values, np.int64)] = np.arange(1, classes + 1)
    return table


def restore_table(mask_values: Sequence[int]) -> Labels:
    """Return the table that undoes :func:`remap_table`: class ``i`` has the value
    ``mask_values[i - 1]`` in the data set's own files, whose type follows from the largest.
    """
    indices = 1 + ignored_value(len(mask_values))
    largest = max(mask_values)
    table: Labels = np.full(indices, ignored_value(largest), label_type(largest))
    table[: len(mask_values) + 1] = (0, *mask_values)
    return table


def read_mask(
    path: Path, mask_values: Sequence[int], *, size: tuple[int, int] | None = None
) -> Labels:
    """Read a mask as class indices.

    Arguments:
        path: palette or gray image of class indices.
        mask_values: value in the file of each class, in class order (``Index.mask_values``).
        size: height and width that the mask must have, those of its image.

    Returns:
        [H, W]: 0 background, 1..C classes, and ignored pixels; uint8 with 255, or from 255 classes
        on uint16 with 65535.

    Raises:
        UserError: as :func:`read_values`.
    """
    values = read_values(path, size=size)[0]
    remapped: Labels = remap_table(mask_values, values.dtype)[values]
    return remapped


def read_values(
    path: Path, *, size: tuple[int, int] | None = None
) -> tuple[Labels, NDArray[np.uint8] | None]:
    """Read the values of a mask as they stand in its file.

    Arguments:
        path: palette image, gray of at most 8 bits, or gray PNG of 16.
        size: height and width that the mask must have, those of its image.

    Returns:
        Values [H, W] uint8, of 16 bits uint16, and the colours [n, 3] uint8 of a palette, or None.

    Raises:
        UserError: the file is missing, damaged, in colour, or of another size than its image.
    """
    if not is_file(path):
        raise UserError(f"{path}: mask is missing; restore the file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            # Before anything loads the image, which forgets how it was packed.
            packed = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
            _check(path, image, size)
            kind = np.uint16 if image.mode == TWO_BYTES else np.uint8
            values: Labels = np.array(image).astype(kind, copy=False)
            colours = image.getpalette() if image.mode == "P" else None
    except UserError:
        raise
    except Exception as error:  # the decoders meet damaged bytes with whatever they happen to cause
        raise UserError(
            f"{path}: mask cannot be read ({error or type(error).__name__}); restore the file"
        ) from error
    return (
        values // SCALES.get(packed, 1),
        None if colours is None else np.array(colours, np.uint8).reshape(-1, 3),
    )


def _check(path: Path, image: Image.Image, size: tuple[int, int] | None) -> None:
    """Refuse a mask that holds no indices, or whose size is wrong, by its header."""
    if image.mode not in ("P", "L") and not (image.mode in PNG_ONLY and image.format == "PNG"):
        raise UserError(
            f"{path}: a mask holds class indices (palette, 8-bit gray, or a PNG of 16-bit gray), "
            f"this is {image.mode}; convert it"
        )
    if image.getexif().get(ORIENTATION, 1) != 1:
        raise UserError(
            f"{path}: a mask must not carry an EXIF orientation, which programs follow or not; "
            "remove the tag and see that it lies on its upright photograph"
        )
    if size is not None and (image.height, image.width) != tuple(size):
        found, wanted = f"{image.width}x{image.height}", f"{size[1]}x{size[0]}"
        raise UserError(
            f"{path}: the mask is {found} pixels, its image {wanted}; give it the image's size"
        )
    if image.width * image.height > MOST_PIXELS:
        raise UserError(
            f"{path}: {image.width}x{image.height} pixels are too many; make image and mask smaller"
        )


def colour_map(count: int = 256) -> NDArray[np.uint8]:
    """Return VOC's colours, [count, 3] uint8 RGB: the bits of an index dealt to red, green and blue
    in turn, from the highest bit down; different ones up to 2 ** 24.
    """
    index = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = index >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours


def write_mask(path: Path, labels: Labels) -> None:
    """Write class indices [H, W] as a PNG whose pixel values they are: of one byte with VOC's
    palette, of two, which no palette has, as gray of 16 bits.
    """
    if labels.dtype == BYTE:
        write_palette_png(path, labels.astype(np.uint8, copy=False))
    else:
        Image.fromarray(np.ascontiguousarray(labels, np.uint16)).save(path, format="PNG")


def write_palette_png(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write class indices [H, W] uint8 as a PNG whose palette is VOC's; its pixel values are the
    indices.
    """
    image = Image.fromarray(np.ascontiguousarray(labels, np.uint8), mode="L")
    image.putpalette(colour_map().tobytes())
    image.save(path, format="PNG")
