"""One byte a class as long as they fit, two from 255 classes on: masks, maps, pixel stores."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import DTypeLike
from PIL import Image

from brnf.data.masks import (
    colour_map,
    read_mask,
    remap_table,
    restore_table,
    write_mask,
)
from brnf.store.label_type import MOST_CLASSES, as_labels, ignored, ignored_value, label_type
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelRows, PixelStore, write_pixels

NUMBERS = [
    pytest.param(20, np.uint8, 255, id="20"),
    pytest.param(254, np.uint8, 255, id="254"),
    pytest.param(255, np.uint16, 65535, id="255"),
    pytest.param(300, np.uint16, 65535, id="300"),
    pytest.param(MOST_CLASSES, np.uint16, 65535, id="most"),
]
"""Classes, and how they are stored; what is one byte never changes."""


@pytest.mark.parametrize(("classes", "kind", "nothing"), NUMBERS)
def test_masks_come_back(tmp_path: Path, classes: int, kind: DTypeLike, nothing: int) -> None:
    labels = np.array([[0, 1, 2], [classes - 1, classes, nothing]], kind)
    write_mask(tmp_path / "mask.png", labels)
    found = read_mask(tmp_path / "mask.png", range(1, classes + 1), size=(2, 3))
    assert found.dtype == label_type(classes) == kind
    np.testing.assert_array_equal(found, labels)
    assert ignored(found).tolist() == [[False] * 3, [False, False, True]]
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == ("P" if kind == np.uint8 else "I;16")


def test_a_mask_of_one_byte_has_the_bytes_of_a_palette_image(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(labels, mode="L")
    image.putpalette(colour_map().tobytes())
    image.save(tmp_path / "plain.png", format="PNG")
    write_mask(tmp_path / "mask.png", labels)
    assert (tmp_path / "mask.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


@pytest.mark.parametrize(("classes", "kind", "nothing"), NUMBERS)
def test_maps_come_back(tmp_path: Path, classes: int, kind: DTypeLike, nothing: int) -> None:
    values = np.zeros((3, 1, 2), np.float32)
    values[1, 0, 0] = values[2, 0, 1] = 1
    with write_maps(tmp_path / "maps.h5", classes) as writer:
        writer.write("image", (1, classes), {"product": values})
    found = MapReader([tmp_path / "maps.h5"], "product")["image"]
    assert found.classes.dtype == found.labels().dtype == kind
    assert found.labels().tolist() == [[1, classes]]
    with h5py.File(tmp_path / "maps.h5") as file:
        assert file["image"].attrs["classes"].dtype == kind
    with pytest.raises(ValueError, match="classes"), write_maps(tmp_path / "m", classes) as writer:
        writer.write("image", (classes + 1,), {"product": values[:2]})


@pytest.mark.parametrize(("classes", "kind", "nothing"), NUMBERS[:-1])
def test_pixels_come_back(tmp_path: Path, classes: int, kind: DTypeLike, nothing: int) -> None:
    present = np.zeros(classes + 1, np.bool_)
    present[[0, 1, classes]] = True
    half = np.full(2, 0.5, np.float16)
    label = np.array([1, classes])
    rows = PixelRows("image", (1, 2), present, np.ones((2, 4)), half, half, label, np.arange(2))
    with write_pixels(tmp_path / "pixels.h5", 4, classes + 1) as writer:
        writer.append(rows)
    store = PixelStore([tmp_path / "pixels.h5"])
    (block,) = store.blocks()
    (batch,) = store.shuffled_batches(2, 0, epochs=1)
    for found in (store.image_rows("image").label, block.label, np.sort(batch.label)):
        assert found.dtype == kind
        assert found.tolist() == [1, classes]
    np.testing.assert_array_equal(store.present[0], present)


def test_some_classes_of_many_are_read_as_bytes(tmp_path: Path) -> None:
    values = np.array([[0, 7, 255, 900, 65535]], np.uint16)
    write_mask(tmp_path / "mask.png", values)
    few = read_mask(tmp_path / "mask.png", (900, 7))
    assert few.dtype == np.uint8
    assert few.tolist() == [[0, 2, 255, 1, 255]]
    # What is not chosen cannot be told from what is ignored, and all else comes back.
    assert restore_table((900, 7))[few].tolist() == [[0, 7, 65535, 900, 65535]]
    many = read_mask(tmp_path / "mask.png", range(1, 1000))
    np.testing.assert_array_equal(many, values)


def test_a_file_of_bytes_among_many_classes_holds_class_255(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.array([[0, 255]], np.uint8))
    assert read_mask(tmp_path / "mask.png", range(1, 301)).tolist() == [[0, 255]]
    assert read_mask(tmp_path / "mask.png", range(1, 21)).tolist() == [[0, 255]]
    assert remap_table(range(1, 301))[255] == 255 != ignored_value(300)


def test_what_two_bytes_do_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="65534"):
        label_type(MOST_CLASSES + 1)
    with pytest.raises(ValueError, match="300"):
        as_labels(np.array([300]), 299)
    with pytest.raises(TypeError, match="int64"):
        ignored(np.array([255]))  # type: ignore[arg-type]
