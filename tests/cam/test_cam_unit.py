"""Unit vectors and their written-out gradient against torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.cam.unit import _UnitVectors, unit_vectors


def vectors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("way", [unit_vectors, _UnitVectors.apply])
def test_values_and_gradients_are_torchs(dim: int, way: object) -> None:
    found, expected = vectors().requires_grad_(), vectors().requires_grad_()
    weights = vectors().flip(0)
    units, torchs = way(found, dim), F.normalize(expected, dim=dim)  # type: ignore[operator]
    torch.testing.assert_close(units, torchs)
    (weights * units).sum().backward()
    (weights * torchs).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_the_gradient_equals_differences() -> None:
    points = vectors().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: _UnitVectors.apply(values, 1), points)


def test_a_zero_vector_stays_one_with_a_finite_gradient() -> None:
    found, expected = (torch.zeros(2, 3).requires_grad_() for _ in range(2))
    units, torchs = _UnitVectors.apply(found, 1), F.normalize(expected, dim=1)
    assert not units.any()
    units.sum().backward()
    torchs.sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_half_precision_keeps_the_kinds_of_torch() -> None:
    values = vectors().to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        units, torchs = _UnitVectors.apply(values, 1), F.normalize(values, dim=1)
    assert units.dtype == torchs.dtype
    units.float().square().sum().backward()
    assert values.grad is not None and values.grad.dtype == torch.bfloat16
