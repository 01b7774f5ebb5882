"""What is faster on a processor must be as exact as what torch does by itself."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brnf import processor
from brnf.processor import MATMUL, arc_tangent, fast_products

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@pytest.fixture
def untried() -> Iterator[None]:
    """Let the processor be looked at anew, here and afterwards."""
    processor._stays_float32.cache_clear()
    yield
    processor._stays_float32.cache_clear()


def _error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("shape", [(1, 1, 1), (21, 256, 1552), (256, 128, 37), (300, 700, 500)])
def test_fast_products_are_those_of_float32(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(rows)
    left, right = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
    bias = torch.randn(rows, 1, generator=generator)
    with fast_products():
        products = (left @ right, torch.addmm(bias, left, right))
        transposed = right.T @ left.T
    exact = left.double() @ right.double()
    assert _error(products[0], exact) < 1e-6
    assert _error(products[1], exact + bias.double()) < 1e-6
    assert _error(transposed, exact.T) < 1e-6


def test_fast_convolutions_are_those_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 64, 9, 11, generator=generator).contiguous(memory_format=torch.channels_last)
    for window in (1, 3):
        weight = torch.randn(32, 64, window, window, generator=generator)
        with fast_products():
            found = F.conv2d(images, weight, padding=window // 2)
        assert _error(found, F.conv2d(images.double(), weight.double(), padding=window // 2)) < 1e-6


def test_products_are_torchs_own_again_after_an_error() -> None:
    before = MATMUL.fp32_precision
    with pytest.raises(ValueError, match="within"), fast_products():
        raise ValueError("within")
    assert MATMUL.fp32_precision == before


def test_where_bfloat16_would_be_used_nothing_is_switched(monkeypatch: pytest.MonkeyPatch, untried: None) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    before = MATMUL.fp32_precision
    with fast_products():
        assert MATMUL.fp32_precision == before


def test_products_that_round_to_bfloat16_are_found_out(monkeypatch: pytest.MonkeyPatch, untried: None) -> None:
    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float64:
            return product(left, right)
        return product(left.bfloat16().float(), right.bfloat16().float())

    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not processor._stays_float32()


def test_the_trial_draws_from_a_generator_of_its_own(untried: None) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    processor._stays_float32()
    assert torch.equal(torch.rand(4), expected)


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
