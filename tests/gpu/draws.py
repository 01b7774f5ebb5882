"""Equal random draws on every device, so that what is left between two is rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["same_draws"]


class _OfTheHost(torch.Generator):
    """A generator of the CPU, whatever device is asked for."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_OfTheHost":
        return super().__new__(cls, "cpu")


@contextmanager
def same_draws() -> Iterator[None]:
    """Let generators of any device be the CPU's, and what is drawn be moved, within the block."""
    dropout_seed = torch.Generator().manual_seed(0)
    draw, shuffle = torch.randn, torch.randperm

    def randn(*size: Any, device: Any = None, **named: Any) -> Tensor:
        return draw(*size, **named).to(device or "cpu")

    def randperm(count: int, *, device: Any = None, **named: Any) -> Tensor:
        return shuffle(count, **named).to(device or "cpu")

    def dropout(
        values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        if not training:
            return values
        kept = torch.rand(values.shape, generator=dropout_seed) >= p
        return values * kept.to(values.device) / (1 - p)

    with (
        mock.patch.object(torch, "Generator", _OfTheHost),
        mock.patch.object(torch, "randn", randn),
        mock.patch.object(torch, "randperm", randperm),
        mock.patch.object(F, "dropout", dropout),
    ):
        yield
