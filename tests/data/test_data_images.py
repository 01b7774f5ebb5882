"""Reading and resizing photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data import images
from brnf.data.images import image_size, read_image, resize_image, resize_long_side
from brnf.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)


def test_rgb_is_returned_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == PIXELS).all()
    assert image_size(tmp_path / "a.png") == (6, 9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_and_size_alike(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: np.rot90(PIXELS, 2).transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }[orientation]
    assert (read_image(path) == turned).all()
    assert image_size(path) == turned.shape[:2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    value = 255 if mode == "1" else 200
    gray = Image.fromarray(np.full((4, 5), value, np.uint8))
    image = (
        Image.fromarray(np.full((4, 5), value * 257, np.uint16))
        if mode == "I;16"
        else gray.convert(mode)
    )
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    pixels = read_image(path)
    assert pixels.shape == (4, 5, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - value).max() <= 1


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_bad_images_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)).save(path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:100], b"", b"no picture"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.jpg: image cannot be read [^\n]+; [^\n]+$"):
            read_image(path)
    with pytest.raises(UserError, match=r"gone\.jpg: image is missing; [^\n]+$"):
        image_size(tmp_path / "gone.jpg")
    path.write_bytes(whole)
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    with pytest.raises(UserError, match=r"a\.jpg: 180x120 pixels are too many; [^\n]+$"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"a\.jpg: has too many pixels; [^\n]+$"):
        read_image(path)


def test_shrinking_averages_and_does_not_alias() -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::4] = 200
    assert (
        resize_image(stripes, (2, 2)) == 50
    ).all()  # a bilinear resize looks at columns 1, 2, 5, 6 only and sees nothing
    blocks = PIXELS[:6, :8].astype(float).reshape(3, 2, 4, 2, 3).mean((1, 3))
    assert np.abs(resize_image(np.ascontiguousarray(PIXELS[:6, :8]), (3, 4)) - blocks).max() <= 1


def test_the_long_side_is_exact() -> None:
    assert resize_long_side(PIXELS, 18).shape == (12, 18, 3)
    assert resize_long_side(np.zeros((300, 7, 3), np.uint8), 10).shape == (10, 1, 3)
    assert resize_long_side(PIXELS, 9) is PIXELS
