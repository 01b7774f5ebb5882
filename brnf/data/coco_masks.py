"""From outlines of COCO, polygons and run-length codes, to masks of class indices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from brnf.data.coco import CocoShape
from brnf.data.masks import IGNORE

__all__ = ["draw_mask", "draw_outline", "run_lengths"]

FARTHEST = 10.0
"""Polygons may leave the image by this many image sizes; what is farther is damage, and would cost memory in proportion."""


def draw_mask(shapes: Sequence[CocoShape], size: tuple[int, int], *, ignore_crowds: bool = False) -> NDArray[np.uint8]:
    """Draw the annotations of one image over each other, later ones on top.

    Arguments:
        shapes: in the order of the file.
        size: height and width of the image.
        ignore_crowds: make groups of objects (iscrowd 1) 255 wherever no object lies on them; otherwise they are not drawn.

    Returns:
        [H, W] uint8: 0 background, the values of the shapes, 255 ignored.

    Raises:
        ValueError: an outline is damaged; names the annotation.
    """
    mask = np.zeros(size, np.uint8)
    crowds = [shape for shape in shapes if shape.crowd] if ignore_crowds else []
    for shape in [*crowds, *(shape for shape in shapes if not shape.crowd)]:
        try:
            mask[draw_outline(shape.outline, size)] = IGNORE if shape.crowd else shape.value
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise ValueError(f"annotation {shape.id} is damaged ({error})") from error
    return mask


def draw_outline(outline: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw one outline.

    Arguments:
        outline: polygons, each a list x, y, x, y ... in pixels; or a mapping with ``size`` and ``counts``, a run-length code as
            numbers or as COCO's string.
        size: height and width of the image.

    Returns:
        [H, W] bool.

    Raises:
        ValueError: the outline does not fit the image.
    """
    height, width = size
    if isinstance(outline, dict):
        if tuple(outline["size"]) != size:
            raise ValueError(f"its run lengths are of {outline['size'][1]}x{outline['size'][0]} pixels, its image has {width}x{height}")
        counts = outline["counts"]
        lengths = run_lengths(counts) if isinstance(counts, str) else counts
        if any(not isinstance(length, int) or length < 0 for length in lengths) or sum(lengths) != height * width:
            raise ValueError("its run lengths do not add up to the image")
        # Codes go to the library as numbers only: it trusts a string, and fills what that leaves out with whatever was in memory.
        code = pycocotools.mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
        return pycocotools.mask.decode(code).astype(bool)
    polygons = [_checked(polygon, FARTHEST * max(size)) for polygon in outline]
    # A polygon of four numbers would be taken for a box; two points enclose nothing.
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return np.zeros(size, bool)
    return pycocotools.mask.decode(pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, height, width))).astype(bool)


def _checked(polygon: Sequence[float], farthest: float) -> list[float]:
    if len(polygon) % 2:
        raise ValueError("a polygon has an odd number of coordinates")
    if any(not math.isfinite(value) or abs(value) > farthest for value in polygon):
        raise ValueError("a polygon leads far out of its image")
    return list(polygon)


def run_lengths(text: str) -> list[int]:
    """Return the run lengths that a string of COCO's compressed code stands for.

    Each character carries five bits of a number, lowest first, and a sixth that tells whether more follow; the highest bit of
    the last is the sign. From the third number on, the difference to the number before the last one is stored.

    Raises:
        ValueError: the string ends within a number.
    """
    lengths: list[int] = []
    number = place = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError("its run lengths have an unknown character")
        number |= (bits & 31) << place
        place += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << place
        lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
        number = place = 0
    if place:
        raise ValueError("its run lengths end within a number")
    return lengths
