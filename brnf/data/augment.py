"""Random views of training images (``docs/method.md`` sections 2 and 9).

A :class:`Sample` bundles an image with what must move along with it; every transformation returns a
new one. Randomness comes from the generator that is passed in, and from nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from brnf.data.images import Interpolation, resize_image, scaled_size
from brnf.store.label_type import Labels, ignored_in

__all__ = [
    "Padding",
    "Sample",
    "flip",
    "hsv_jitter",
    "random_crop_or_pad",
    "random_flip",
    "random_resize",
    "random_scale",
    "resize",
    "resize_long_side",
    "resize_maps",
]

IMAGENET_MEAN = (124, 116, 104)
Padding: TypeAlias = Literal["random", "after"]
"""Where an image lies in a window that is too large: at a random place, or above and left."""


@dataclass(frozen=True)
class Sample:
    """An image and all that shares its geometry.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        maps: [k, H, W] float32 soft maps, or None.
        mask: [H, W] class indices, or None.
        valid: [H, W] bool, false where a crop was padded.
    """

    image: NDArray[np.uint8]
    maps: NDArray[np.float32] | None
    mask: Labels | None
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse parts of different sizes."""
        for name, shape in (
            ("maps", None if self.maps is None else self.maps.shape[1:]),
            ("mask", None if self.mask is None else self.mask.shape),
        ):
            if shape is not None and shape != self.size:
                raise ValueError(
                    f"{name} of {shape} beside an image of {self.size}: resize them first"
                )
        if self.valid.shape != self.size:
            raise ValueError(f"valid of {self.valid.shape} beside an image of {self.size}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]

    @classmethod
    def of(
        cls,
        image: NDArray[np.uint8],
        *,
        maps: NDArray[np.float32] | None = None,
        mask: Labels | None = None,
    ) -> "Sample":
        """Bundle an image, valid everywhere, with its maps (enlarged to its size when they are
        coarser) and its mask.
        """
        size = (image.shape[0], image.shape[1])
        return cls(
            image, None if maps is None else resize_maps(maps, size), mask, np.ones(size, bool)
        )


def resize_maps(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize soft maps [k, h, w] float32 bilinearly to height and width ``size``."""
    if maps.shape[1:] == tuple(size) or not len(maps):
        return maps if len(maps) else np.zeros((0, *size), np.float32)
    height, width = size
    return np.stack(
        [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in maps]
    ).astype(np.float32, copy=False)


def resize(sample: Sample, size: tuple[int, int], interpolation: Interpolation = "area") -> Sample:
    """Resize to height and width.

    Arguments:
        sample: what to resize: maps bilinearly, mask and valid by the nearest pixel.
        size: height and width.
        interpolation: of the image, see ``brnf.data.images.resize_image``.
    """
    if size == sample.size:
        return sample
    return Sample(
        image=resize_image(sample.image, size, interpolation),
        maps=None if sample.maps is None else resize_maps(sample.maps, size),
        mask=None if sample.mask is None else _nearest(sample.mask, size),
        valid=_nearest(sample.valid.astype(np.uint8), size).astype(bool),
    )


def _nearest(values: Labels, size: tuple[int, int]) -> Labels:
    # INTER_NEAREST takes the pixel left of and above the centre; only the exact variant stays
    # aligned with bilinear maps.
    return np.asarray(
        cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT), values.dtype
    )


def resize_long_side(sample: Sample, long_side: int) -> Sample:
    """Resize so that the longer side has ``long_side`` pixels."""
    return resize(sample, scaled_size(sample.size, long_side / max(sample.size)))


def random_resize(sample: Sample, rng: Generator, low: int, high: int) -> Sample:
    """Resize to a long side drawn from ``low`` .. ``high`` pixels, both included."""
    return resize_long_side(sample, int(rng.integers(low, high + 1)))


def random_scale(
    sample: Sample,
    rng: Generator,
    low: float,
    high: float,
    choices: Sequence[float] = (),
    interpolation: Interpolation = "area",
) -> Sample:
    """Resize by a random factor.

    Arguments:
        sample: what to resize.
        rng: draws the factor.
        low: the smallest one.
        high: the largest one.
        choices: to draw from instead of the range, when there are any.
        interpolation: of the image, see ``brnf.data.images.resize_image``.
    """
    factor = choices[int(rng.integers(len(choices)))] if len(choices) else rng.uniform(low, high)
    return resize(sample, scaled_size(sample.size, float(factor)), interpolation)


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    return Sample(
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        maps=None if sample.maps is None else np.ascontiguousarray(sample.maps[:, :, ::-1]),
        mask=None if sample.mask is None else np.ascontiguousarray(sample.mask[:, ::-1]),
        valid=np.ascontiguousarray(sample.valid[:, ::-1]),
    )


def random_flip(sample: Sample, rng: Generator) -> Sample:
    """Mirror with probability one half."""
    return flip(sample) if rng.random() < 0.5 else sample


def random_crop_or_pad(
    sample: Sample,
    rng: Generator,
    size: int,
    fill: tuple[int, int, int] = IMAGENET_MEAN,
    padding: Padding = "random",
) -> Sample:
    """Cut a random ``size`` × ``size`` window; an axis that is too short is padded.

    Arguments:
        sample: what to cut.
        rng: draws the place, rows first.
        size: of the window in pixels.
        fill: RGB of padded pixels; about 0 once the network's mean is subtracted.
        padding: where a short axis lies in the window: at a random place, or at its start.

    Returns:
        The window; where padded, maps are 0, the mask is ignored and valid is false.
    """
    placed = (_window(length, size, rng, padding) for length in sample.size)
    (rows, to_rows), (columns, to_columns) = placed
    image = np.empty((size, size, 3), np.uint8)
    image[:] = fill
    image[to_rows, to_columns] = sample.image[rows, columns]
    valid = np.zeros((size, size), bool)
    valid[to_rows, to_columns] = sample.valid[rows, columns]
    maps = mask = None
    if sample.maps is not None:
        maps = np.zeros((len(sample.maps), size, size), np.float32)
        maps[:, to_rows, to_columns] = sample.maps[:, rows, columns]
    if sample.mask is not None:
        kind = sample.mask.dtype
        mask = np.full((size, size), ignored_in(kind), kind)
        mask[to_rows, to_columns] = sample.mask[rows, columns]
    return Sample(image, maps, mask, valid)


def _window(length: int, size: int, rng: Generator, padding: Padding) -> tuple[slice, slice]:
    """Draw where an axis is cut from and where it lands in the window."""
    start = int(rng.integers(abs(length - size) + 1))
    if length >= size:
        return slice(start, start + size), slice(0, size)
    if padding == "after":
        start = 0
    return slice(0, length), slice(start, start + length)


def hsv_jitter(sample: Sample, rng: Generator, amount: float = 10.0) -> Sample:
    """Shift hue, saturation and value by one random number each in ± ``amount``.

    Units are OpenCV's of 8 bits: hue 0..179 (wraps around), saturation and value 0..255 (clipped).
    """
    shifted = np.arange(256, dtype=np.float32)[:, None] + rng.uniform(-amount, amount, 3).astype(
        np.float32
    )
    shifted[:, 0] = np.round(shifted[:, 0]) % 180
    table = np.clip(np.round(shifted), 0, 255).astype(np.uint8)  # of every value a channel can have
    hsv = cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV), table[None])
    return replace(sample, image=np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8))
