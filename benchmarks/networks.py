"""Networks as research code runs them, and what their limits are made of: the matrix products
behind their convolutions.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["convolutions_as_products", "in_planes"]

Network = TypeVar("Network", bound=nn.Module)


def in_planes(network: Network) -> Network:
    """Return a copy of a network with a backbone that computes in planes [N, C, H, W] instead of
    channels last.
    """
    planes = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    backbone: nn.Module = planes.backbone  # type: ignore[assignment]
    backbone.register_forward_pre_hook(_as_planes)
    return planes


def _as_planes(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(argument.contiguous() for argument in arguments)


@torch.no_grad()
def convolutions_as_products(
    network: nn.Module, images: Tensor, kind: torch.dtype
) -> Callable[[], None]:
    """Return the products [positions, inputs x window] x [inputs x window, outputs] of all
    convolutions of a forward pass.

    Arguments:
        network: called once, to see its shapes.
        images: its argument.
        kind: number format of the products.
    """
    shapes: list[tuple[int, int, int]] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        if module.groups == 1:
            shapes.append((output[:, 0].numel(), module.weight[0].numel(), module.out_channels))

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    operands = {
        shape: (torch.randn(shape[0], shape[1]).to(kind), torch.randn(shape[1], shape[2]).to(kind))
        for shape in set(shapes)
    }

    def run() -> None:
        for shape in shapes:
            torch.mm(*operands[shape])

    return run
