"""Masks of class indices."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brnf.data.masks import colour_map, read_mask, remap_table, write_palette_png
from brnf.errors import UserError

LABELS = np.array([[0, 1, 2], [20, 255, 15]], np.uint8)


def test_a_palette_png_keeps_its_indices_which_opencv_does_not_see(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_palette_png(path, LABELS)
    assert (read_mask(path, range(1, 21)) == LABELS).all()
    seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert seen.ndim == 3 and (seen[..., ::-1] == colour_map()[LABELS]).all()


def test_a_gray_mask_is_read_like_a_palette(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(LABELS).save(path)
    assert (read_mask(path, range(1, 21), size=(2, 3)) == LABELS).all()


def test_a_palette_of_few_colours_keeps_its_indices(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 7, 0])
    image.save(path, bits=2)
    assert read_mask(path, (1, 2)).tolist() == [[0, 1], [2, 1]]


def test_the_colours_are_those_of_voc() -> None:
    colours = colour_map()
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {index: tuple(colours[index].tolist()) for index in known} == known
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


@given(st.lists(st.integers(1, 254), min_size=1, max_size=30, unique=True))
def test_a_subset_is_renumbered_and_the_rest_ignored(values: list[int]) -> None:
    table = remap_table(values)
    assert table[0] == 0 and table[255] == 255
    assert [table[value] for value in values] == list(range(1, len(values) + 1))
    assert all(table[value] == 255 for value in range(1, 255) if value not in values)


def test_bad_masks_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_palette_png(path, LABELS)
    with pytest.raises(
        UserError, match=r"mask\.png: the mask is 3x2 pixels, its image 4x2; [^\n]+$"
    ):
        read_mask(path, (1,), size=(2, 4))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"mask\.png: mask cannot be read [^\n]+$"):
        read_mask(path, (1,))
    with pytest.raises(UserError, match=r"gone\.png: mask is missing; [^\n]+$"):
        read_mask(tmp_path / "gone.png", (1,))
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path)
    with pytest.raises(UserError, match=r"mask\.png: a mask holds class indices [^\n]+RGB[^\n]+$"):
        read_mask(path, (1,))
