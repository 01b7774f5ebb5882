"""Products by the faster library are as exact as those that torch takes by itself."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from brnf.engine import matmul as products
from brnf.engine.matmul import fast_matmul, use_fast_matmul

SETTINGS = products._settings()


@pytest.fixture(autouse=True)
def as_torch_comes() -> Iterator[None]:
    """Begin with torch's own products: an earlier test's stage may have switched them."""
    before = SETTINGS.fp32_precision
    SETTINGS.fp32_precision = "none"
    yield
    SETTINGS.fp32_precision = before


@pytest.fixture
def untried() -> Iterator[None]:
    """Let the processor be looked at anew, here and afterwards."""
    products._stays_float32.cache_clear()
    yield
    products._stays_float32.cache_clear()


def _error(result: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest error as a share of the largest value.

    Here that is 4e-7 to 7e-7 by blocked sums in float32, 1.1e-6 where 700 terms are summed up one
    after the other; 3e-4 with factors in TF32 or float16, 2.5e-3 in bfloat16.
    """
    return float((result.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("shape", [(1, 1, 1), (21, 256, 1552), (256, 128, 37), (300, 700, 500)])
def test_fast_products_are_those_of_float32(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(rows)
    left, right = (
        torch.randn(rows, inner, generator=generator),
        torch.randn(inner, columns, generator=generator),
    )
    bias = torch.randn(rows, 1, generator=generator)
    with fast_matmul():
        found = (left @ right, torch.addmm(bias, left, right))
        transposed = right.T @ left.T
    exact = left.double() @ right.double()
    assert _error(found[0], exact) < products.LARGEST_ERROR
    assert _error(found[1], exact + bias.double()) < products.LARGEST_ERROR
    assert _error(transposed, exact.T) < products.LARGEST_ERROR


def test_fast_convolutions_are_those_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 64, 9, 11, generator=generator).contiguous(
        memory_format=torch.channels_last
    )
    for window in (1, 3):
        weight = torch.randn(32, 64, window, window, generator=generator)
        with fast_matmul():
            found = F.conv2d(images, weight, padding=window // 2)
        exact = F.conv2d(images.double(), weight.double(), padding=window // 2)
        assert _error(found, exact) < products.LARGEST_ERROR


def test_products_are_torchs_own_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="within"), fast_matmul():
        assert SETTINGS.fp32_precision == (
            products.PERMISSION if products._stays_float32() else "none"
        )
        raise ValueError("within")
    assert SETTINGS.fp32_precision == "none"


def test_where_bfloat16_would_be_used_nothing_is_switched(
    monkeypatch: pytest.MonkeyPatch, untried: None
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    with fast_matmul():
        assert SETTINGS.fp32_precision == "none"
    use_fast_matmul()
    assert SETTINGS.fp32_precision == "none"


def test_a_stage_keeps_the_fast_products_where_they_are_those_of_float32() -> None:
    use_fast_matmul()
    assert SETTINGS.fp32_precision == (products.PERMISSION if products._stays_float32() else "none")


def test_products_that_round_to_bfloat16_are_found_out(
    monkeypatch: pytest.MonkeyPatch, untried: None
) -> None:
    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float64:
            return product(left, right)
        return product(left.bfloat16().float(), right.bfloat16().float())

    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not products._stays_float32()


def test_the_trial_draws_from_a_generator_of_its_own(untried: None) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    products._stays_float32()
    assert torch.equal(torch.rand(4), expected)
