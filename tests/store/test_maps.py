"""Arg max over the channels of maps, and shards that do not belong together."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brnf.errors import UserError
from brnf.store.maps import CamMaps, MapReader, winning_channels, write_maps

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
