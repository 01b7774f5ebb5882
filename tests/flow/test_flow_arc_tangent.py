"""The arc tangent of the couplings is exact, whoever computes it."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from brnf.flow.coupling import arc_tangent

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS, min_size=1, max_size=40))
def test_arc_tangent_is_exact_to_the_last_digits(numbers: list[float]) -> None:
    values = torch.tensor(numbers)
    expected = np.arctan(np.array(numbers))
    found = arc_tangent(values)
    np.testing.assert_allclose(found.numpy(), expected, rtol=5e-7, atol=1e-37)
    assert arc_tangent(values, out=values) is values
    np.testing.assert_array_equal(values.numpy(), found.numpy())


def test_arc_tangent_of_rows_of_a_larger_tensor_leaves_the_others_alone() -> None:
    whole = torch.arange(12.0).view(4, 3)
    part = whole[:2]
    arc_tangent(part, out=part)
    torch.testing.assert_close(whole[:2], torch.arange(6.0).view(2, 3).atan())
    assert torch.equal(whole[2:], torch.arange(6.0, 12.0).view(2, 3))


def test_arc_tangent_keeps_float64() -> None:
    values = torch.linspace(-5, 5, 11, dtype=torch.float64)
    assert torch.equal(arc_tangent(values), values.atan())
