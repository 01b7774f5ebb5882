"""Convolutions that an autocast to bfloat16 leaves alone."""

import torch
from torch import Tensor, nn

__all__ = ["keep_small_sums_in_float32"]

FEW_PRODUCTS = 64
"""A value of a depthwise 3x3 convolution is a sum of 9, one of a first 3x3 convolution a sum of 27.
"""


def keep_small_sums_in_float32(network: nn.Module) -> None:
    """Let the spatial convolutions whose values are sums of few products compute in float32
    whatever autocast is around them.

    The rounding of nine weights does not average out: it shifts a channel as a whole, and moved the
    seeds' mIoU by 0.4 (docs/benchmarks.md). They are 9 % of the products of an EfficientNet-lite0.

    Arguments:
        network: changed in place; the names and values of its parameters stay.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size != (1, 1)
            and module.weight[0].numel() < FEW_PRODUCTS
        ):
            kind = type(module)
            module.__class__ = type(kind.__name__, (_WithoutAutocast, kind), {})


class _WithoutAutocast(nn.Module):
    """In front of a layer's own class: computes in the precision of its weights."""

    weight: Tensor

    def forward(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            output: Tensor = super().forward(values.to(self.weight.dtype))
        return output
