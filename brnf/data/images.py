"""Photographs as RGB arrays: reading, sizes, resizing.

A picture that carries an EXIF orientation is turned upright everywhere, in its pixels as in its
width and height.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
    "Interpolation",
    "image_size",
    "read_image",
    "resize_image",
    "resize_long_side",
    "scaled_size",
]

Interpolation: TypeAlias = Literal["area", "bilinear", "bicubic"]
"""How an image is resized, see :func:`resize_image`."""
Pixel = TypeVar("Pixel", np.uint8, np.float32)

ORIENTATION = 0x0112
TURNED_SIDEWAYS = (5, 6, 7, 8)
MOST_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What photographs come in. PIL knows many more, some of which it hands to other programs."""

# The limit above is checked here, with an error that names the file; PIL's own warning would only
# add a line without one.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture of any mode as [H, W, 3] uint8 RGB; what is transparent becomes white.

    Raises:
        UserError: the file is missing, damaged, truncated, no picture, or larger than
            ``MOST_PIXELS``.
    """
    with _opened(path) as image:
        return np.array(_as_rgb(ImageOps.exif_transpose(image)))


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture from its header, without decoding it.

    Raises:
        UserError: the file is missing, no picture, or larger than ``MOST_PIXELS``.
    """
    with _opened(path) as image:
        width, height = image.size
        sideways = image.getexif().get(ORIENTATION) in TURNED_SIDEWAYS
        return (width, height) if sideways else (height, width)


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
    if image.mode.startswith("I"):  # 16 bits of gray, which PIL would clip to 8
        high = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


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
