"""Augmentation: image, mask and maps move together."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brnf.data.augment import (
    Sample,
    flip,
    hsv_jitter,
    random_crop_or_pad,
    random_flip,
    random_resize,
    random_scale,
    resize,
    resize_long_side,
    resize_maps,
)

FILL = (1, 2, 250)


def disc(height: int = 120, width: int = 160) -> Sample:
    """Return a white disc off the centre, in image, mask (class 3) and map alike."""
    row, column = np.mgrid[:height, :width]
    inside = np.hypot(row - 52.0, column - 61.0) < 38
    image = np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
    return Sample.of(image, maps=inside[None].astype(np.float32), mask=inside * np.uint8(3))


def coordinates(height: int, width: int) -> Sample:
    """Return pixels that know their row (red), column (green) and are recognisable (blue 7)."""
    row, column = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([row, column, np.full_like(row, 7)], 2)
    return Sample.of(
        image, maps=np.stack([row, column]).astype(np.float32) + 1, mask=(row % 5).astype(np.uint8)
    )


def assert_aligned(sample: Sample) -> None:
    parts = {
        "image": sample.image[..., 0] / 255.0,
        "mask": np.isin(sample.mask, [3]).astype(float),
        "maps": sample.maps[0].astype(float),
    }
    rows, columns = np.mgrid[: sample.size[0], : sample.size[1]]
    centres = {
        name: ((part * rows).sum() / part.sum(), (part * columns).sum() / part.sum())
        for name, part in parts.items()
    }
    areas = {name: part.sum() for name, part in parts.items()}
    for name in ("mask", "maps"):
        assert centres[name] == pytest.approx(centres["image"], abs=0.3), name
        assert areas[name] == pytest.approx(areas["image"], rel=0.02), name


@pytest.mark.parametrize(
    "transform",
    [
        lambda sample, rng: resize(sample, (90, 120)),
        lambda sample, rng: resize(sample, (210, 180)),
        lambda sample, rng: resize_long_side(sample, 96),
        lambda sample, rng: random_resize(sample, rng, 100, 300),
        lambda sample, rng: random_scale(sample, rng, 0.5, 1.5),
        lambda sample, rng: flip(sample),
        lambda sample, rng: random_flip(sample, rng),
        lambda sample, rng: random_crop_or_pad(
            random_scale(random_flip(sample, rng), rng, 0.8, 1.4), rng, 224, (0, 0, 0)
        ),
    ],
)
def test_parts_stay_aligned(transform: Callable[[Sample, np.random.Generator], Sample]) -> None:
    for seed in range(5):
        assert_aligned(transform(disc(), np.random.default_rng(seed)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99), st.booleans()
)
def test_a_crop_moves_every_pixel_alike_and_knows_its_padding(
    height: int, width: int, size: int, seed: int, mirrored: bool
) -> None:
    sample = coordinates(height, width)
    crop = random_crop_or_pad(
        flip(sample) if mirrored else sample, np.random.default_rng(seed), size, FILL
    )
    assert crop.size == (size, size)
    assert (crop.valid == (crop.image[..., 2] == 7)).all()
    assert crop.valid.sum() == min(height, size) * min(width, size)
    row, column = crop.image[..., 0].astype(int), crop.image[..., 1].astype(int)
    assert (crop.maps[0][crop.valid] == row[crop.valid] + 1).all() and (
        crop.maps[1][crop.valid] == column[crop.valid] + 1
    ).all()
    assert (crop.mask[crop.valid] == row[crop.valid] % 5).all()
    assert (
        (crop.mask[~crop.valid] == 255).all()
        and (crop.maps[:, ~crop.valid] == 0).all()
        and (crop.image[~crop.valid] == FILL).all()
    )
    i, j = np.nonzero(crop.valid)
    assert (
        len(set(row[i, j] - i)) == 1
        and len(set(column[i, j] + j if mirrored else column[i, j] - j)) == 1
    )


def test_crops_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    cut = {tuple(random_crop_or_pad(coordinates(4, 3), rng, 2).image[0, 0, :2]) for _ in range(200)}
    assert cut == {(row, column) for row in range(3) for column in range(2)}
    padded = {
        tuple(np.argwhere(random_crop_or_pad(coordinates(1, 2), rng, 3).valid)[0])
        for _ in range(200)
    }
    assert padded == {(row, column) for row in range(3) for column in range(2)}


def test_resized_maps_are_bilinear_with_pixel_centres() -> None:
    # 2 -> 4 pixels: new centres at -.25, .25, .75, 1.25 of the old grid, clamped at the ends.
    assert resize_maps(np.array([[[0.0, 1.0]]], np.float32), (1, 4))[0, 0].tolist() == [
        0.0,
        0.25,
        0.75,
        1.0,
    ]
    assert resize_maps(np.zeros((0, 2, 2), np.float32), (5, 6)).shape == (0, 5, 6)
    assert Sample.of(
        np.zeros((8, 6, 3), np.uint8), maps=np.ones((7, 4, 3), np.float32)
    ).maps.shape == (7, 8, 6)


def test_masks_get_no_new_values() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 3, 255], np.uint8), (40, 50))
    sample = Sample.of(np.zeros((40, 50, 3), np.uint8), mask=mask)
    assert set(np.unique(resize(sample, (57, 33)).mask)) <= {0, 3, 255}


def test_sizes_are_drawn_from_the_whole_range_and_the_list() -> None:
    rng = np.random.default_rng(0)
    assert {max(random_resize(disc(), rng, 10, 12).size) for _ in range(60)} == {10, 11, 12}
    assert {random_scale(disc(), rng, 0, 0, choices=(0.5, 0.75)).size for _ in range(30)} == {
        (60, 80),
        (90, 120),
    }
    heights = [random_scale(disc(), rng, 0.5, 1.5).size[0] for _ in range(60)]
    assert 60 <= min(heights) < 75 and 165 < max(heights) <= 180


def test_flip_is_its_own_inverse_and_even_handed() -> None:
    sample = coordinates(5, 8)
    assert (flip(flip(sample)).image == sample.image).all()
    rng = np.random.default_rng(0)
    flipped = sum(random_flip(sample, rng).image[0, 0, 1] != 0 for _ in range(400))
    assert 150 < flipped < 250


class _Fixed(np.random.Generator):
    """A generator whose uniform numbers are given."""

    def __init__(self, *values: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._values = np.array(values)

    def uniform(self, *_: object, **__: object) -> np.ndarray:
        return self._values


def test_hsv_units_are_those_of_opencv() -> None:
    red = Sample.of(np.full((1, 1, 3), (200, 0, 0), np.uint8))
    assert hsv_jitter(red, _Fixed(60.0, 0.0, 0.0)).image[0, 0].tolist() == [
        0,
        200,
        0,
    ]  # 60 of 180 is a third of the circle
    assert hsv_jitter(red, _Fixed(-60.0, 0.0, 0.0)).image[0, 0].tolist() == [0, 0, 200]  # hue wraps
    assert hsv_jitter(red, _Fixed(0.0, 10.0, 10.0)).image[0, 0].tolist() == [
        210,
        0,
        0,
    ]  # saturation is clipped at 255
    rng = np.random.default_rng(0)
    values = [int(hsv_jitter(red, rng).image.max()) for _ in range(80)]
    assert 190 <= min(values) < 195 and 205 < max(values) <= 210


def test_parts_of_different_size_are_refused() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="mask"):
        Sample.of(image, mask=np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="maps"):
        Sample(image, np.zeros((1, 2, 2), np.float32), None, np.ones((4, 4), bool))
