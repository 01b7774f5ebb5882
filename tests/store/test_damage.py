"""Damaged or useless shards are reported before use, with the file's name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brnf.errors import DamagedProduct, UserError
from brnf.store.hdf5 import FORMAT
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelRows, PixelStore, write_pixels


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    with write_maps(tmp_path / "maps.h5", 20) as writer:
        for number in range(5):
            writer.write(
                f"image{number}",
                np.array([2, 5]),
                {"seeds": random.random((3, 20, 30)).astype(np.float32)},
            )
    return tmp_path / "maps.h5"


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    with write_pixels(tmp_path / "pixels.h5", 8, 3) as writer:
        for number in range(5):
            score, present = random.random(12), np.array([True, True, False])
            rows = PixelRows(
                f"image{number}",
                (3, 4),
                present,
                random.random((12, 8)),
                score,
                1 - score,
                np.ones(12),
                np.arange(12),
            )
            writer.append(rows)
    return tmp_path / "pixels.h5"


def read_maps(path: Path) -> None:
    reader = MapReader([path], "seeds")
    for image in reader.images:
        reader[image]


def read_blocks(path: Path) -> None:
    for _ in PixelStore([path]).blocks():
        pass


def read_images(path: Path) -> None:
    store = PixelStore([path])
    for image in store.images:
        store.image_rows(image)


def edit(path: Path, change: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "r+", libver=FORMAT) as file:
        change(file)


def put(name: str, value: Any) -> Callable[[h5py.File], Any]:
    """Return what writes a value into the middle of a dataset."""

    def change(file: h5py.File) -> None:
        file[name][tuple(side // 2 for side in file[name].shape)] = value

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("store", "read", "column"),
    [
        ("maps", read_maps, "image3/seeds"),
        ("pixels", read_blocks, "feature"),
        ("pixels", read_images, "feature"),
        ("pixels", read_blocks, "score"),
        ("pixels", read_images, "background"),
    ],
)
def test_values_that_are_not_finite(
    store: str,
    read: Callable[[Path], None],
    column: str,
    value: float,
    request: pytest.FixtureRequest,
) -> None:
    path = request.getfixturevalue(store)
    read(path)
    edit(path, put(column, value))
    with pytest.raises(
        DamagedProduct,
        match=rf"{store}\.h5: [^\n]*{column.split('/')[-1]}[^\n]*not finite; [^\n]+$",
    ) as error:
        read(path)
    assert error.value.path == path


@pytest.mark.parametrize("store", ["maps", "pixels"])
def test_every_flipped_bit_of_the_description_is_noticed(
    store: str, request: pytest.FixtureRequest
) -> None:
    """The structures carry checksums; a bit of the numbers themselves is noticed in maps, and may
    pass in the pixel store.
    """
    path = request.getfixturevalue(store)
    read = read_maps if store == "maps" else read_images
    content = path.read_bytes()
    random = np.random.default_rng(0)
    unnoticed = 0
    for place in random.choice(len(content), 150, replace=False):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << int(random.integers(8))
        path.write_bytes(spoilt)
        try:
            read(path)
            unnoticed += 1
        except DamagedProduct:
            pass
    # What may pass in the pixel store are the numbers, half of so small a file.
    assert unnoticed <= (0 if store == "maps" else 50)


def replace(name: str, **how: Any) -> Callable[[h5py.File], Any]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def link(name: str, to: Any) -> Callable[[h5py.File], Any]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = to

    return change


@pytest.mark.parametrize(
    ("store", "change"),
    [
        (
            "maps",
            replace(
                "image1/seeds", shape=(3, 2**20, 2**20), dtype=np.float16, chunks=(3, 2**10, 2**10)
            ),
        ),
        (
            "maps",
            replace(
                "image1/seeds",
                shape=(3, 20, 30),
                dtype=np.float16,
                external=[("/dev/zero", 0, 3600)],
            ),
        ),
        ("maps", replace("image1/seeds", data=np.zeros((3, 20, 30)), chunks=(3, 20, 30))),
        (
            "maps",
            replace("image1/seeds", data=np.zeros((4, 20, 30), np.float16), chunks=(4, 20, 30)),
        ),
        ("maps", link("image1/seeds", h5py.ExternalLink("/etc/passwd", "/"))),
        ("maps", link("image1", h5py.SoftLink("/image2"))),
        (
            "maps",
            lambda file: file["image1"].attrs.__setitem__("classes", np.array([2, 2], np.uint8)),
        ),
        ("maps", lambda file: file["image1"].attrs.__setitem__("classes", "text")),
        ("maps", lambda file: file["image1"].attrs.__delitem__("classes")),
        ("pixels", replace("feature", shape=(2**40, 8), dtype=np.float16, chunks=(4096, 8))),
        ("pixels", replace("label", data=np.full(60, 3, np.uint8))),
        ("pixels", replace("position", data=np.full(60, 12, np.int32))),
        ("pixels", replace("offset", data=np.array([0, 12, 6, 36, 48, 60]))),
        ("pixels", replace("grid", data=np.full((5, 2), -1, np.int32))),
        ("pixels", replace("score", data=np.zeros(60))),
        ("pixels", link("score", h5py.SoftLink("/background"))),
        ("pixels", lambda file: file.attrs.__setitem__("classes", 10**9)),
        ("pixels", lambda file: file.attrs.__setitem__("dimension", "8")),
    ],
)
def test_files_that_hold_something_else(
    store: str, change: Callable[[h5py.File], Any], request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(store)
    edit(path, change)
    with pytest.raises(DamagedProduct, match=rf"{store}\.h5: [^\n]+; [^\n]+$"):
        read_maps(path) if store == "maps" else read_images(path)


def test_the_oldest_format_has_no_checksums_and_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_group("image")
    with pytest.raises(
        DamagedProduct,
        match=r"old\.h5: damaged HDF5 file \(no HDF5 file, or one of an older version\)",
    ):
        MapReader([tmp_path / "old.h5"], "seeds")
    with pytest.raises(UserError, match=r"none\.h5: no such file; run [^\n]+ first"):
        MapReader([tmp_path / "none.h5"], "seeds")
