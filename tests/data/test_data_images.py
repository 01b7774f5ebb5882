"""Reading and resizing photographs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from brnf.data import images
from brnf.data.images import (
    checked_header,
    image_header,
    image_size,
    read_image,
    resize_image,
    resize_long_side,
)
from brnf.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)


def test_rgb_is_returned_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == PIXELS).all()
    assert image_size(tmp_path / "a.png") == (6, 9)


XMP = (
    "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf="
    "'http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description xmlns:tiff="
    "'http://ns.adobe.com/tiff/1.0/' tiff:Orientation=\"{}\"/></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg", "xmp.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_and_size_alike(
    tmp_path: Path, orientation: int, name: str, square: bool
) -> None:
    pixels = PIXELS[:, :6] if square else PIXELS
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    path = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    if name == "xmp.tif":
        options["tiffinfo"] = {700: XMP.format(orientation).encode()}
    else:
        options["exif"] = exif
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    assert name == "a.jpg" or (read_image(path) == turned).all()
    assert image_size(path) == read_image(path).shape[:2] == turned.shape[:2]
    assert checked_header(path) == image_header(path)
    header = image_header(path)
    assert header.orientation == orientation
    assert header.changes_size == (orientation > 4 and not square)


RAMP = np.tile(np.linspace(0, 1, 60), (4, 1))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_gray_of_16_bits_is_brought_to_8_by_those_it_uses(
    tmp_path: Path, bits: int, name: str
) -> None:
    values = np.round(RAMP * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    assert image_header(tmp_path / name).deep
    found = read_image(tmp_path / name)
    assert found.min() == 0 and found.max() == 255
    assert np.abs(found[..., 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize("largest", [1, 255])
def test_floating_point_goes_to_1_or_255(tmp_path: Path, largest: int) -> None:
    Image.fromarray((RAMP * largest).astype(np.float32)).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif")[..., 0] == np.round(RAMP * 255)).all()


@pytest.mark.parametrize(
    "values",
    [
        RAMP * 2000,
        RAMP - 0.5,
        np.full((4, 5), np.nan),
        (RAMP * 100_000).astype(np.int32),
        (RAMP * 100 - 50).astype(np.int32),
    ],
)
def test_a_range_that_is_not_clear_is_one_line(tmp_path: Path, values: np.ndarray) -> None:
    kind = np.float32 if values.dtype == np.float64 else np.int32
    Image.fromarray(values.astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: its values go from [^\n]+; save it with 8 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colours_of_12_bits_in_16_are_one_line_and_no_black_picture(
    tmp_path: Path, name: str
) -> None:
    values = np.repeat(RAMP[..., None], 3, 2)
    cv2.imwrite(str(tmp_path / name), np.round(values * 65535).astype(np.uint16))
    assert np.abs(read_image(tmp_path / name) - values * 255).max() <= 1
    for bits in (12, 14):
        cv2.imwrite(str(tmp_path / name), np.round(values * (2**bits - 1)).astype(np.uint16))
        with pytest.raises(UserError, match=r"its values go from 0 to [0-9]+, [^\n]+; save it"):
            read_image(tmp_path / name)


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (40, 200)]
    for name in ("a.gif", "a.tif", "a.webp"):
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], **options)
        assert (read_image(tmp_path / name) == 40).all()


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
    assert checked_header(path) == image_header(path)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_bad_images_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)).save(path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:100], b"", b"no picture"):
        path.write_bytes(data)
        for read in (read_image, checked_header):
            with pytest.raises(UserError, match=r"a\.jpg: image cannot be read [^\n]+; [^\n]+$"):
                read(path)
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
