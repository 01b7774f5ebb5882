"""Photographs and masks."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brnf.data.images import image_size, read_image
from brnf.data.masks import read_mask
from tests.fuzz.runner import Kind
from tests.fuzz.sources import index_own, spoilt_bytes

__all__ = ["JPEG", "MASK", "picture_kinds"]

HEIGHT, WIDTH = 20, 24
VALUES = (1, 2)


def encoded(pixels: np.ndarray, form: str, mode: str | None = None, **settings: Any) -> bytes:
    """Return a picture's file."""
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **settings)
    return file.getvalue()


RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
CLASSES = RANDOM.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6
JPEG = encoded(COLOURS, "JPEG")
MASK = encoded(CLASSES, "PNG")
PHOTOGRAPHS = (
    JPEG,
    encoded(COLOURS, "JPEG", progressive=True, exif=TURNED),
    encoded(COLOURS, "JPEG", "CMYK"),
    encoded(COLOURS, "JPEG", "L", quality=10),
    encoded(COLOURS, "PNG"),
    encoded(COLOURS, "PNG", "RGBA"),
    encoded(COLOURS, "PNG", "P"),
    encoded(CLASSES.astype(np.uint16) * 9000, "PNG"),
    encoded(COLOURS, "GIF"),
    encoded(COLOURS, "BMP"),
    encoded(COLOURS, "WEBP"),
    encoded(COLOURS, "TIFF"),
    encoded(COLOURS, "TIFF", compression="tiff_lzw"),
    encoded(COLOURS, "PPM"),
)
MASKS = (
    MASK,
    encoded(CLASSES, "PNG", "P"),
    encoded(CLASSES, "PNG", bits=2),
    encoded(CLASSES, "GIF"),
    encoded(CLASSES, "BMP"),
    encoded(CLASSES, "TIFF", compression="packbits"),
    encoded(COLOURS, "PNG"),
)


def read_photograph(path: Path, number: int) -> None:
    """Read a picture alone or, every fourth, by indexing it."""
    if number % 4 == 1:
        index_own(path.parent, {}, f"image,labels\n{path.name},cat\n".encode())
        return
    pixels, size = read_image(path), image_size(path)
    assert pixels.dtype == np.uint8 and pixels.shape == (*size, 3)


def read_ground_truth(path: Path, number: int) -> None:
    """Read a mask alone, with and without a size to check, or, every fourth, by indexing it."""
    if number % 4 == 1:
        index_own(
            path.parent,
            {"photo.jpg": JPEG},
            f"image,labels,mask\nphoto.jpg,cat;dog,{path.name}\n".encode(),
        )
        return
    mask = read_mask(path, VALUES, size=(HEIGHT, WIDTH) if number % 2 else None)
    assert mask.dtype == np.uint8 and mask.ndim == 2 and set(np.unique(mask)) <= {0, *VALUES, 255}


def picture_kinds() -> list[Kind]:
    """Return the kinds of pictures."""
    return [
        Kind("image", 2500, JPEG, spoilt_bytes(PHOTOGRAPHS), read_photograph, "photograph.jpg"),
        Kind("mask", 1500, MASK, spoilt_bytes(MASKS), read_ground_truth, "mask.png"),
    ]
