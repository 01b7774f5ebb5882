"""Frozen BatchNorms multiplied into the convolutions before them: fewer passes over memory."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["FoldedNorms", "folded"]

TOLERANCE = 1e-3
"""Largest change of an output, as a share of its largest value, that is still rounding."""
LOOK = (2, 3, 64, 64)
"""Shape of the random images by which the layers' order is found and the result checked."""


def folded(network: nn.Module) -> nn.Module:
    """Return a copy for inference whose frozen BatchNorms are part of the convolutions, or the
    network itself where that changes it.

    Arguments:
        network: in evaluation mode; maps images [N, 3, H, W] to a list of tensors.
    """
    copied, pairs = _folded_copy(network)
    example = next(network.parameters())
    return copied.to(example.device, example.dtype) if pairs else network


class FoldedNorms:
    """Compute a network whose BatchNorms are frozen while its convolutions learn.

    Each pass multiplies the convolutions' weights anew, with their gradient; only rounding differs
    from the network itself. Where BatchNorms cannot be folded it is the network that computes.

    Arguments:
        network: see :func:`folded`; a later one of other parameters may be computed.
    """

    def __init__(self, network: nn.Module) -> None:
        self._folded, self._pairs = _folded_copy(network)
        self._names = {name for name, _ in self._folded.named_parameters()}
        self._names |= {name for name, _ in self._folded.named_buffers()}

    def __call__(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return the network's outputs of images [N, 3, H, W]."""
        if not self._pairs:
            computed: list[Tensor] = network(images)
            return computed
        values = dict(network.named_parameters()) | dict(network.named_buffers())
        for convolution, norm in self._pairs:
            values[f"{convolution}.weight"], values[f"{convolution}.bias"] = _product(
                network.get_submodule(convolution), network.get_submodule(norm)
            )
        own = {name: values[name] for name in self._names}
        outputs: list[Tensor] = functional_call(
            self._folded.train(network.training), own, (images,)
        )
        return outputs


@torch.no_grad()
def _folded_copy(network: nn.Module) -> tuple[nn.Module, list[tuple[str, str]]]:
    """Return a folded copy in float32 on the CPU, and the names of the convolutions and BatchNorms
    that became one; none if folding changes the outputs.

    A BatchNorm whose input is also used elsewhere, as in networks that normalise before a residual
    block, must not be folded; the outputs tell.
    """
    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network, []
    images = torch.randn(LOOK, generator=torch.Generator().manual_seed(0))
    # On the CPU and in float32, since the rounding of TF32 or of another device would pass for a
    # change: 9e-3 to 2e-1 of the largest value was seen with operands rounded to TF32.
    copied = copy.deepcopy(network).to("cpu", torch.float32)
    names = {module: name for name, module in copied.named_modules()}
    pairs, expected = _adjacent(copied, images)
    for convolution, norm in pairs:
        _fold(convolution, norm)
        parent, _, name = names[norm].rpartition(".")
        setattr(
            copied.get_submodule(parent), name, getattr(norm, "act", nn.Identity())
        )  # timm's BatchNorms bring an activation
    copied = copied.to(memory_format=torch.channels_last)
    outputs = zip(copied(images), expected, strict=True)
    same = all(
        (found - output).abs().max() <= TOLERANCE * output.abs().max() for found, output in outputs
    )
    found = [(names[convolution], names[norm]) for convolution, norm in pairs]
    return copied, found if same else []


def _adjacent(
    network: nn.Module, images: Tensor
) -> tuple[list[tuple[nn.Conv2d, _BatchNorm]], list[Tensor]]:
    """Return the convolutions whose output a BatchNorm takes as it is, with it, and the network's
    outputs.
    """
    made: dict[
        int, tuple[nn.Conv2d, Tensor]
    ] = {}  # the tensors are held, so that no other one gets their id
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def remember(module: nn.Conv2d, _: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = module, output

    def pair(module: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    hooks = [
        module.register_forward_hook(remember)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    hooks += [
        module.register_forward_pre_hook(pair)
        for module in network.modules()
        if isinstance(module, _BatchNorm)
    ]
    outputs = list(network(images))
    for hook in hooks:
        hook.remove()
    return pairs, outputs


def _product(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that does what a BatchNorm does, too, with their
    gradient.
    """
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias + bias * scale


def _fold(convolution: nn.Conv2d, norm: _BatchNorm) -> None:
    """Let a convolution give what the BatchNorm made of it."""
    assert norm.running_mean is not None and norm.running_var is not None
    moments = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, *moments
    )
