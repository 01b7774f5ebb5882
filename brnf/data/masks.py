"""Masks whose pixel values are class indices: reading, class subsets, palette PNGs.

They are read with PIL, which gives the indices of a palette PNG; readers that convert to colours
(OpenCV, imageio) do not.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brnf.data.entries import is_file
from brnf.data.images import MOST_PIXELS
from brnf.errors import UserError

__all__ = ["IGNORE", "colour_map", "read_mask", "remap_table", "write_palette_png"]

IGNORE = 255
FORMATS = ("PNG", "GIF", "BMP", "TIFF")
"""What keeps indices as they are."""


def remap_table(mask_values: Sequence[int]) -> NDArray[np.uint8]:
    """Return the table [256] uint8 from values in a file to class indices.

    Background 0 and ignore 255 stay, ``mask_values[i]`` becomes ``i + 1``, and every other value is
    ignored: an object of a class that is not part of the experiment is neither background nor one
        of its classes.
    """
    table = np.full(256, IGNORE, np.uint8)
    table[0] = 0
    table[np.asarray(mask_values, np.int64)] = np.arange(1, len(mask_values) + 1)
    return table


def read_mask(
    path: Path, mask_values: Sequence[int], *, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Read a mask as class indices.

    Arguments:
        path: palette or 8-bit gray image of class indices.
        mask_values: value in the file of each class, in class order (``Index.mask_values``).
        size: height and width that the mask must have, those of its image.

    Returns:
        [H, W] uint8: 0 background, 1..C classes, 255 ignored.

    Raises:
        UserError: the file is missing, damaged, in colour, or of another size than its image.
    """
    if not is_file(path):
        raise UserError(f"{path}: mask is missing; restore the file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in ("P", "L"):
                raise UserError(
                    f"{path}: a mask holds class indices (palette or 8-bit gray), this is "
                    f"{image.mode}; convert it"
                )
            if size is not None and (image.height, image.width) != tuple(size):
                found, wanted = f"{image.width}x{image.height}", f"{size[1]}x{size[0]}"
                raise UserError(
                    f"{path}: the mask is {found} pixels, its image {wanted}; give it the image's "
                    "size"
                )
            if image.width * image.height > MOST_PIXELS:
                raise UserError(
                    f"{path}: {image.width}x{image.height} pixels are too many; make image and "
                    "mask smaller"
                )
            values = np.array(image)
    except UserError:
        raise
    except Exception as error:  # the decoders meet damaged bytes with whatever they happen to cause
        raise UserError(
            f"{path}: mask cannot be read ({error or type(error).__name__}); restore the file"
        ) from error
    remapped: NDArray[np.uint8] = remap_table(mask_values)[values]
    return remapped


def colour_map() -> NDArray[np.uint8]:
    """Return VOC's colours, [256, 3] uint8 RGB: the bits of an index dealt to red, green and blue
    in turn, from the highest bit down.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = index >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours


def write_palette_png(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write class indices [H, W] uint8 as a PNG whose palette is VOC's; its pixel values are the
    indices.
    """
    image = Image.fromarray(np.ascontiguousarray(labels, np.uint8), mode="L")
    image.putpalette(colour_map().tobytes())
    image.save(path, format="PNG")
