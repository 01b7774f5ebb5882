"""Photographs as RGB arrays: reading, sizes, resizing.

A picture that carries an EXIF orientation is turned upright everywhere, in its pixels as in its
width and height. One of more than 8 bits is brought to 8: gray by the fewest of 8, 10, 12, 14 or 16
bits that hold its largest value, floating point from 0..1 or 0..255.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from brnf.data.entries import is_file
from brnf.errors import UserError

__all__ = [
    "MOST_PIXELS",
    "Header",
    "Interpolation",
    "checked_header",
    "image_header",
    "image_size",
    "read_image",
    "read_sized",
    "resize_image",
    "resize_long_side",
    "scaled_size",
]

Interpolation: TypeAlias = Literal["area", "bilinear", "bicubic"]
"""How an image is resized, see :func:`resize_image`."""
Pixel = TypeVar("Pixel", np.uint8, np.float32)

ORIENTATION = 0x0112
TURNED = range(2, 9)
TURNED_SIDEWAYS = (5, 6, 7, 8)
DEPTHS = (8, 10, 12, 14, 16)
DARK = 63
"""Largest of the upper 8 bits where a picture uses 14 of 16 bits."""
MOST_PIXELS = 100_000_000
PLAIN = ("L", "RGB")
"""Modes of 8 bits, which are turned into RGB as they are."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What photographs come in. PIL knows many more, some of which it hands to other programs."""

# The limit above is checked here, with an error that names the file; PIL's own warning would only
# add a line without one.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture of any mode as [H, W, 3] uint8 RGB; what is transparent becomes white.

    Raises:
        UserError: the file is missing, damaged, truncated, no picture, larger than
            ``MOST_PIXELS``, or has more than 8 bits and a range that is not clear.
    """
    with _opened(path) as image:
        return np.array(_decoded(path, image, _is_deep(image)))


def read_sized(path: Path, long_side: int | None) -> NDArray[np.uint8]:
    """Read a picture as :func:`read_image`, and resize it to a long side if one is given."""
    pixels = read_image(path)
    return pixels if long_side is None else resize_long_side(pixels, long_side)


@dataclass(frozen=True)
class Header:
    """What a picture's header tells.

    Attributes:
        size: height and width of the upright picture.
        orientation: EXIF's, 1 where it needs no turning.
        deep: whether it has more than 8 bits a channel.
    """

    size: tuple[int, int]
    orientation: int
    deep: bool

    @property
    def changes_size(self) -> bool:
        """Whether turning the picture upright changes its size."""
        return self.orientation in TURNED_SIDEWAYS and self.size[0] != self.size[1]


def image_header(path: Path) -> Header:
    """Read a picture's header, decoding it only where it must be.

    Raises:
        UserError: the file is missing, no picture, or larger than ``MOST_PIXELS``.
    """
    with _opened(path) as image:
        return _header(image)


def checked_header(path: Path) -> Header:
    """Decode a picture, and return what its header tells, opening the file once.

    Raises:
        UserError: as :func:`read_image`.
    """
    with _opened(path) as image:
        header, plain = _header(image), image.mode in PLAIN and image.format != "TIFF"
        if plain and header.orientation == 1 and "transparency" not in image.info:
            image.load()  # what is done to its pixels behind this cannot fail
        else:
            _decoded(path, image, header.deep)
        return header


def _header(image: Image.Image) -> Header:
    """Return what the header of a picture tells that is not yet loaded."""
    deep = _is_deep(image)
    orientation = image.getexif().get(ORIENTATION, 1)
    if image.format == "TIFF" and orientation != 1:
        # PIL turns a TIFF when it opens or when it loads it, by its version and by the tag
        width, height = ImageOps.exif_transpose(image).size
    else:
        width, height = image.size[::-1] if orientation in TURNED_SIDEWAYS else image.size
    return Header((height, width), orientation if orientation in TURNED else 1, deep)


def _decoded(path: Path, image: Image.Image, deep: bool) -> Image.Image:
    """Return a picture upright, in 8 bits of RGB."""
    upright = ImageOps.exif_transpose(image)
    return _as_rgb(_of_8_bits(path, upright) if deep else upright)


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture, see :func:`image_header`."""
    return image_header(path).size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture, and turn whatever PIL raises in the block into one line for the user."""
    if not is_file(path):
        raise UserError(f"{path}: image is missing; restore it or take it off the list")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(
                    f"{path}: {image.width}x{image.height} pixels are too many; make the image "
                    "smaller"
                )
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: has too many pixels; make the image smaller") from error
    except Exception as error:  # the decoders meet damaged bytes with whatever they happen to cause
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"none of {', '.join(FORMATS)}" if unknown else str(error) or type(error).__name__
        raise UserError(
            f"{path}: image cannot be read ({reason}); restore it or take it off the list"
        ) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Return whether a picture that is not yet loaded has more than 8 bits a channel."""
    encoded = " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode.startswith(("I", "F")) or ";16" in encoded


def _of_8_bits(path: Path, image: Image.Image) -> Image.Image:
    """Bring a picture of more than 8 bits to 8; of colours PIL has kept the upper 8 already.

    Raises:
        UserError: its range is not clear, or too small for those.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if values.dtype == np.uint8:
        if values[..., :3].max() > DARK:
            return image
    elif values.dtype.kind == "f":
        if low >= 0 and high <= 255:
            return Image.fromarray(np.round(values * (255 if high <= 1 else 1)).astype(np.uint8))
    elif low >= 0 and high < 1 << DEPTHS[-1]:
        depth = next(depth for depth in DEPTHS if high < 1 << depth)
        return Image.fromarray((values.astype(np.int64) >> (depth - 8)).astype(np.uint8))
    raise UserError(
        f"{path}: its values go from {low:g} to {high:g}, which is no range of 8 or 16 bits; save "
        "it with 8 bits a channel"
    )


def resize_image(
    image: NDArray[Pixel],
    size: tuple[int, int],
    interpolation: Interpolation = "area",
) -> NDArray[Pixel]:
    """Resize [H, W, 3] to height and width ``size``.

    Arguments:
        image: uint8, or float32, whose values may then overshoot.
        size: height and width.
        interpolation: ``area`` averages over the area of each new pixel when it shrinks, and is
            bilinear when it enlarges. OpenCV's plain ``bilinear`` and ``bicubic`` skip pixels when
            they shrink, and alias: what the code bases of the segmentation do.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    how = {
        "area": cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
    }
    resized = cv2.resize(image, (width, height), interpolation=how[interpolation])
    return np.asarray(resized, image.dtype)


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return height and width times ``factor``, rounded, at least one pixel."""
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def resize_long_side(image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Resize [H, W, 3] uint8 so that its longer side has ``long_side`` pixels."""
    height, width = image.shape[:2]
    return resize_image(image, scaled_size((height, width), long_side / max(height, width)))
