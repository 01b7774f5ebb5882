"""Arg max over the channels of maps, and shards that do not belong together."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brnf.errors import UserError
from brnf.store.hdf5 import write_shard
from brnf.store.maps import CamMaps, MapReader, pack_maps, winning_channels, write_maps

VALUES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 255), st.integers(1, 3), st.integers(1, 3)),
    elements=st.sampled_from([0, 0.5, 1]),
)


@given(VALUES)
def test_winners_are_those_of_numpy(values: np.ndarray) -> None:
    """Few different values, so that ties are common: the first of equal channels wins in both."""
    winner, largest = winning_channels(values)
    assert (
        np.array_equal(winner, values.argmax(0))
        and np.array_equal(largest, values.max(0))
        and winner.dtype == np.uint8
    )
    classes = np.arange(254, 255 - len(values), -1, dtype=np.uint8)
    assert np.array_equal(
        CamMaps(classes, values).labels(), np.concatenate([[0], classes])[values.argmax(0)]
    )


def test_an_image_in_two_shards_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "0.h5", tmp_path / "1.h5"
    for path, images in ((first, ("a", "b")), (second, ("b", "c"))):
        with write_maps(path, 20) as maps:
            for image in images:
                maps.write(image, np.array([1]), {"prototype": np.ones((2, 3, 3), np.float32)})
    assert MapReader([first, first], "prototype").images == ["a", "b"]
    with pytest.raises(UserError, match=r"1\.h5: \S+0\.h5 holds maps of the same image b; [^\n]+$"):
        MapReader([first, second], "prototype")


def test_packed_maps_make_the_file_that_hdf5_makes_of_the_values(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with (
        write_maps(tmp_path / "maps.h5", 20) as writer,
        write_shard(tmp_path / "plain.h5") as (
            file,
            _,
        ),
    ):
        for number in range(40):
            classes = np.arange(1, 1 + number % 3)
            size = (len(classes) + 1, *random.integers(1, 90, 2))
            values = random.random(size).round(number % 4).astype(np.float32)
            writer.write(f"image{number}", classes, {"one": values, "two": values[:, ::-1]})
            group = file.create_group(f"image{number}")
            group.attrs["classes"] = classes.astype(np.uint8)
            for name, maps in (("one", values), ("two", values[:, ::-1])):
                group.create_dataset(
                    name,
                    data=maps.astype(np.float16),
                    chunks=maps.shape,
                    compression="gzip",
                    compression_opts=1,
                    shuffle=True,
                    fletcher32=True,
                )
    assert (tmp_path / "maps.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()
    assert len(MapReader([tmp_path / "maps.h5"], "two").images) == 40


def test_maps_that_are_not_finite_are_refused_before_they_are_packed() -> None:
    values = np.zeros((2, 3, 3), np.float32)
    values[1, 2, 2] = np.nan
    with pytest.raises(UserError, match=r"^photo: its seeds map holds values that are not finite"):
        pack_maps("photo", (1,), {"seeds": values})
    with pytest.raises(ValueError, match="does not fit 2 classes"):
        pack_maps("photo", (1, 2), {"seeds": values})
