"""What torch leaves of a CPU unused: matrix products and arc tangents that are faster elsewhere, and as exact."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["arc_tangent", "fast_products", "use_fast_products"]

LARGEST_ERROR = 1e-5
"""Of a product in float32, as a share of its largest value; bfloat16 is off by a hundred times as much."""
MATMUL: Any = getattr(torch.backends.mkldnn, "matmul", None)
"""Settings of oneDNN's matrix products; torch has them from 2.9 on."""
PERMISSION = "bf16"


def use_fast_products() -> None:
    """Let oneDNN take the matrix products of float32 from now on, where it takes them in float32.

    On AMD's processors with AVX-512 it is more than twice as fast as MKL, whom torch asks by itself, for convolutions of 1x1 pixels, too
    (docs/benchmarks.md). torch has no switch for that but the one that allows bfloat16. oneDNN makes use of the permission where the
    processor has AMX; there nothing is switched.
    """
    if _stays_float32():
        MATMUL.fp32_precision = PERMISSION


@contextmanager
def fast_products() -> Iterator[None]:
    """Use the fast products within the block."""
    if not _stays_float32():
        yield
        return
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = PERMISSION
    try:
        yield
    finally:
        MATMUL.fp32_precision = before


@cache
def _stays_float32() -> bool:
    """Tell whether oneDNN's products are float32's when bfloat16 is allowed: by what the processor has, and by a trial in float64."""
    if MATMUL is None or not torch.backends.mkldnn.is_available() or torch.cpu._is_amx_tile_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(256, 256, generator=generator), torch.randn(256, 512, generator=generator)
    exact = left.double() @ right.double()
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = PERMISSION
    try:
        error = (left @ right - exact).abs().max() / exact.abs().max()
    finally:
        MATMUL.fp32_precision = before
    return bool(error < LARGEST_ERROR)


def arc_tangent(values: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the arc tangent, without gradient.

    Arguments:
        values: of any shape.
        out: gets the result when given; may be ``values``.
    """
    if values.dtype == torch.float32 and values.device.type == "cpu" and _numpy_is_vectorised():
        result = torch.empty_like(values) if out is None else out
        np.arctan(values.numpy(), out=result.numpy())
        return result
    return torch.atan(values, out=out)


@cache
def _numpy_is_vectorised() -> bool:
    """Tell whether numpy brings an arc tangent for AVX-512, nine times as fast as torch's; elsewhere it asks the C library."""
    return sys.platform == "linux" and torch.backends.cpu.get_cpu_capability() == "AVX512"
