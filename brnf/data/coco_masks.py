"""From COCO's polygons and run-length codes to masks of classes (docs/method.md section 1)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from brnf.config.sections.data import Masks
from brnf.data.coco_file import CocoShape
from brnf.store.label_type import MOST_IN_A_BYTE, Labels, ignored_value, label_type

__all__ = [
    "draw_mask",
    "draw_outline",
    "run_lengths",
    "visible_values",
]

Code = dict[str, Any]
"""A run-length code of pycocotools."""

FARTHEST = 10.0
"""Polygons may leave the image by this many image sizes; farther ones are damage and cost memory.
"""


def draw_mask(
    shapes: Sequence[CocoShape],
    size: tuple[int, int],
    masks: Masks,
    largest: int = MOST_IN_A_BYTE,
) -> Labels:
    """Draw the annotations of one image over each other.

    Arguments:
        shapes: in the order of the file.
        size: height and width of the image.
        masks: what lies on top, and what groups are.
        largest: value of a class that is read from the mask; where larger ones do not fit into the
            type of labels that holds it, they are ignored.

    Returns:
        [H, W]: 0 background, the values of the shapes, and the ignored one.

    Raises:
        ValueError: an outline is damaged; names the annotation.
    """
    mask: Labels = np.zeros(size, label_type(largest))
    ignored = ignored_value(largest)
    for shape in _bottom_to_top(shapes, size, masks):
        with _named(shape):
            value = ignored if _is_ignored(shape, masks) else min(shape.value, ignored)
            mask[draw_outline(shape.outline, size)] = value
    return mask


def visible_values(
    shapes: Sequence[CocoShape],
    size: tuple[int, int],
    masks: Masks,
) -> frozenset[int]:
    """Return the values that :func:`draw_mask` leaves visible, without drawing a pixel.

    From the top down, an annotation is visible where it adds to the area of those above it; areas
    of unions come from run-length codes, which takes a small part of the time of drawing.

    Raises:
        ValueError: as :func:`draw_mask`.
    """
    seen: set[int] = set()
    above: Code | None = None
    covered = 0
    for shape in reversed(_bottom_to_top(shapes, size, masks)):
        with _named(shape):
            code = _encoded(shape.outline, size)
            if code is None:
                continue
            above = code if above is None else pycocotools.mask.merge([above, code])
            area = int(pycocotools.mask.area(above))
            if area > covered and not _is_ignored(shape, masks):
                seen.add(shape.value)
            covered = area
    return frozenset(seen)


@contextmanager
def _named(shape: CocoShape) -> Iterator[None]:
    """Let errors of damaged outlines name the annotation."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"annotation {shape.id} is damaged ({error})") from error


def _is_ignored(shape: CocoShape, masks: Masks) -> bool:
    return shape.crowd and masks.crowds == "ignore"


def _bottom_to_top(
    shapes: Sequence[CocoShape], size: tuple[int, int], masks: Masks
) -> list[CocoShape]:
    """Return the shapes in the order of drawing; of equal areas the first of the file is on top."""
    crowds = [shape for shape in shapes if shape.crowd] if masks.crowds == "ignore" else []
    drawn = [shape for shape in shapes if not shape.crowd or masks.crowds == "object"]
    if masks.overlap == "smallest_on_top":
        drawn = sorted(drawn, key=partial(_area, size=size))[::-1]
    return [*crowds, *drawn]


def _area(shape: CocoShape, size: tuple[int, int]) -> float:
    """Return the area that the file says, or else that of the outline within the image."""
    if shape.area is not None:
        return shape.area
    with _named(shape):
        code = _encoded(shape.outline, size)
    return 0.0 if code is None else float(pycocotools.mask.area(code))


def draw_outline(outline: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw one outline.

    Arguments:
        outline: polygons, each a list x, y, x, y ... in pixels; or a mapping with ``size`` and
            ``counts``, a run-length code as numbers or as COCO's string.
        size: height and width of the image.

    Returns:
        [H, W] bool.

    Raises:
        ValueError: the outline does not fit the image.
    """
    code = _encoded(outline, size)
    return np.zeros(size, bool) if code is None else pycocotools.mask.decode(code).astype(bool)


def _encoded(outline: Any, size: tuple[int, int]) -> Code | None:
    """Return the run-length code of an outline, None for one without a polygon."""
    height, width = size
    if isinstance(outline, dict):
        if tuple(map(int, outline["size"])) != size:
            raise ValueError(
                f"its run lengths are of {outline['size'][1]}x{outline['size'][0]} pixels, its "
                f"image has {width}x{height}"
            )
        counts = outline["counts"]
        lengths = run_lengths(counts) if isinstance(counts, str) else counts
        if (
            any(not isinstance(length, int) or length < 0 for length in lengths)
            or sum(lengths) != height * width
        ):
            raise ValueError("its run lengths do not add up to the image")
        # Codes go to the library as numbers only: it trusts a string, and fills what that leaves
        # out with whatever was in memory.
        code: Code = pycocotools.mask.frPyObjects(
            {"size": [height, width], "counts": lengths}, height, width
        )
        return code
    polygons = [_checked(polygon, FARTHEST * max(size)) for polygon in outline]
    if len(polygons) > 1 and all(len(polygon) == 2 for polygon in polygons):
        raise ValueError("its points are pairs; write x, y, x, y, ... of a polygon in one list")
    # A polygon of four numbers would be taken for a box; two points enclose nothing.
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return None
    merged: Code = pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, height, width))
    return merged


def _checked(polygon: Sequence[float], farthest: float) -> list[float]:
    if len(polygon) % 2:
        raise ValueError("a polygon has an odd number of coordinates")
    if not all(map(math.isfinite, polygon)) or max(map(abs, polygon), default=0) > farthest:
        raise ValueError("a polygon leads far out of its image")
    return list(polygon)


def run_lengths(text: str) -> list[int]:
    """Return the run lengths that a string of COCO's compressed code stands for.

    Each character carries five bits of a number, lowest first, and a sixth that tells whether more
    follow; the highest bit of the last is the sign. From the third number on, the difference to the
    number before the last one is stored.

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
