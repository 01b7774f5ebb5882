"""Choose oneDNN or MKL for float32 matrix products on a CPU: the faster, where it is as exact."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

__all__ = ["fast_matmul", "use_fast_matmul"]

LARGEST_ERROR = 1e-5
"""Of a product in float32, as a share of its largest value; bfloat16 is off by a hundred times as
much.
"""
PERMISSION = "bf16"


def use_fast_matmul() -> None:
    """Choose oneDNN for float32 matrix products from now on, where it computes them in float32.

    On AMD's processors with AVX-512 it is more than twice as fast as MKL, torch's own choice, for
    convolutions of 1x1 pixels, too (docs/benchmarks.md). torch's only switch for it is the one that
    allows bfloat16. oneDNN uses bfloat16 where the processor has AMX; there nothing is switched.
    """
    if _stays_float32():
        _settings().fp32_precision = PERMISSION


@contextmanager
def fast_matmul() -> Iterator[None]:
    """Use the fast products within the block."""
    with _permission() if _stays_float32() else nullcontext():
        yield


@contextmanager
def _permission() -> Iterator[None]:
    settings = _settings()
    before = settings.fp32_precision
    settings.fp32_precision = PERMISSION
    try:
        yield
    finally:
        settings.fp32_precision = before


def _settings() -> Any:
    """Return oneDNN's settings of matrix products, or None: torch has them from 2.9 on."""
    import torch  # not above: a stage without a network does without torch

    return getattr(torch.backends.mkldnn, "matmul", None)


@cache
def _stays_float32() -> bool:
    """Return whether oneDNN's products stay float32 when bfloat16 is allowed: by what the processor
    has, and by a trial in float64.
    """
    import torch

    if (
        _settings() is None
        or not torch.backends.mkldnn.is_available()
        or torch.cpu._is_amx_tile_supported()
    ):
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(256, 256, generator=generator),
        torch.randn(256, 512, generator=generator),
    )
    exact = left.double() @ right.double()
    with _permission():
        error = (left @ right - exact).abs().max() / exact.abs().max()
    return bool(error < LARGEST_ERROR)
