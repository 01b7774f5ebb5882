"""What the networks' limits are made of: the matrix products behind their convolutions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["convolutions_as_products"]


@torch.no_grad()
def convolutions_as_products(network: nn.Module, images: Tensor, kind: torch.dtype) -> Callable[[], None]:
    """Return the products [positions, inputs x window] x [inputs x window, outputs] of all convolutions of a forward pass.

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

    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, nn.Conv2d)]
    network(images)
    for hook in hooks:
        hook.remove()
    operands = {shape: (torch.randn(shape[0], shape[1]).to(kind), torch.randn(shape[1], shape[2]).to(kind)) for shape in set(shapes)}

    def run() -> None:
        for shape in shapes:
            torch.mm(*operands[shape])

    return run
