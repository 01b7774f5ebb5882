"""Weights and inputs that follow from a name and a shape (`tests/reference/README.md`)."""

import math
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parent
"""Where the stored numbers lie."""

SMALL_SCALES = ("bn3.weight", "increase.bn.weight")
"""Last scales of residual branches: a tenth keeps activations from growing with the blocks."""


def load(name: str) -> dict[str, np.ndarray]:
    """Return all arrays of ``<name>.npz``."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def reference_value(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the weight that a tensor of this name and shape has in every reference network.

    Arguments:
        name: in the peer's own ``state_dict``.
        shape: of the tensor.

    Returns:
        float32, except ``num_batches_tracked``, which is int64.
    """
    last = name.split(".")[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if shape == ():
        return torch.tensor(math.log(1 / 0.07))  # CLIP's logit_scale
    if last == "running_var":
        return uniform(name, shape) + 0.5
    if last == "running_mean" or last.endswith("bias"):
        return normal(name, shape) * 0.1
    if "embedding" in name:
        return normal(name, shape) * 0.02
    if len(shape) == 1:
        return (uniform(name, shape) + 0.5) * (0.1 if name.endswith(SMALL_SCALES) else 1)
    return normal(name, shape) * math.sqrt(2 / math.prod(shape[1:]))


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal numbers, float32."""
    return torch.randn(shape, generator=_generator(name))


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return numbers in [0, 1), float32."""
    return torch.rand(shape, generator=_generator(name))


def integers(name: str, shape: tuple[int, ...], high: int) -> Tensor:
    """Return whole numbers in [0, high), int64."""
    return torch.randint(high, shape, generator=_generator(name))


def pieces(name: str) -> tuple[Tensor, Tensor]:
    """Return small maps [2, 5, 16, 20] and features [2, 32, 16, 20] in which every class wins
    somewhere.

    Arguments:
        name: of the peer, ``sipe`` or ``sfc``.
    """
    coarse = _doubled(uniform(f"{name}.pieces.maps", (2, 4, 8, 10)))
    foreground = (0.8 * coarse + 0.2 * uniform(f"{name}.pieces.grain", (2, 4, 16, 20))) ** 6
    maps = torch.cat([1 - foreground.amax(1, keepdim=True), foreground], 1)
    features = _doubled(normal(f"{name}.pieces.features", (2, 32, 8, 10)))
    return maps, features + 0.5 * normal(f"{name}.pieces.noise", (2, 32, 16, 20))


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def _doubled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="nearest")
