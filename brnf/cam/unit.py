"""Unit vectors, and their gradient in a few calls on devices where calls cost."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["unit_vectors"]

SHORTEST = 1e-12
"""Vectors are divided by their length, or by this where they are shorter."""


def unit_vectors(values: Tensor, dim: int) -> Tensor:
    """Return vectors divided by their length.

    Arguments:
        values: of any shape.
        dim: along which the vectors lie.
    """
    if values.device.type == "cpu":
        return F.normalize(values, dim=dim, eps=SHORTEST)
    found: Tensor = _UnitVectors.apply(values, dim)
    return found


class _UnitVectors(torch.autograd.Function):
    """What autograd makes of the same takes three times as many calls for the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dim: int) -> Tensor:
        length = torch.linalg.vector_norm(values, dim=dim, keepdim=True).clamp_min(SHORTEST)
        units: Tensor = values / length
        ctx.save_for_backward(units, length)
        ctx.dim = dim
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_units: Tensor) -> tuple[Tensor, None]:
        """Return ``(g - u (u . g)) / length``; of a zero vector that is ``g / SHORTEST``."""
        units, length = ctx.saved_tensors
        along = (by_units * units).sum(ctx.dim, keepdim=True)
        return torch.addcmul(by_units, units, along, value=-1).div_(length), None
