"""Arg max over the channels of maps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brnf.store.maps import CamMaps, winning_channels

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
