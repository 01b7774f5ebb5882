"""Photographs as RGB arrays: reading, sizes, resizing.

A picture that carries an EXIF orientation is turned upright everywhere, in its pixels as in its width and height.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from brnf.errors import UserError

__all__ = ["MOST_PIXELS", "image_size", "read_image", "resize_image", "resize_long_side", "scaled_size"]

ORIENTATION = 0x0112
TURNED_SIDEWAYS = (5, 6, 7, 8)
MOST_PIXELS = 100_000_000

# The limit above is checked here, with an error that names the file; PIL's own warning would only add a line without one.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture of any mode as [H, W, 3] uint8 RGB; what is transparent becomes white.

    Raises:
        UserError: the file is missing, damaged, truncated, no picture, or larger than ``MOST_PIXELS``.
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
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"{path}: {image.width}x{image.height} pixels are too many; make the image smaller")
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: image is missing; restore it or take it off the list") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: has too many pixels; make the image smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        reason = "no image format known" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise UserError(f"{path}: image cannot be read ({reason}); restore it or take it off the list") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray, which PIL would clip to 8
        high = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize [H, W, 3] uint8 to height and width ``size``.

    Shrinking averages over the area of each new pixel: a plain bilinear or bicubic resize of OpenCV skips pixels and aliases, and
    PIL's antialiased bicubic costs several times as much and overshoots at edges. Enlarging is bilinear.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return height and width times ``factor``, rounded, at least one pixel."""
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def resize_long_side(image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Resize [H, W, 3] uint8 so that its longer side has ``long_side`` pixels."""
    height, width = image.shape[:2]
    return resize_image(image, scaled_size((height, width), long_side / max(height, width)))
