"""The two layouts of a ResNet that DeepLab's code bases have: torchvision's and Caffe's."""

from typing import Literal, TypeAlias

import timm.models.resnet
from torch import nn

from brnf.errors import UserError

__all__ = ["Layout", "use_layout"]

Layout: TypeAlias = Literal["torchvision", "caffe"]
"""``torchvision``: a stage's stride in its first 3x3 convolution, and the first block of a dilated
stage dilated as the stage before. ``caffe``, DeepLabV2's: the stride in the first 1x1 convolution,
every block of a stage dilated alike, and a pooling that rounds its output's size up."""


def use_layout(network: nn.Module, layout: Layout) -> None:
    """Bring a ResNet to a layout, in place; timm builds torchvision's.

    Arguments:
        network: of timm, dilated already.
        layout: see :data:`Layout`.

    Raises:
        UserError: the network has no bottleneck blocks and pooling, which Caffe's layout needs.

    References:
        Nakashima, deeplab-pytorch (``docs/method.md`` section 9).
    """
    if layout == "torchvision":
        return
    pool, stages = getattr(network, "maxpool", None), [_blocks(network, name) for name in STAGES]
    if not isinstance(pool, nn.MaxPool2d) or not all(stages):
        fault = "needs a ResNet of bottleneck blocks, such as resnet101"
        raise UserError(f"backbone.layout: caffe {fault}; choose torchvision or another backbone")
    pool.ceil_mode = True
    for first, *others in stages:
        first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
        if others:
            first.conv2.dilation = others[0].conv2.dilation
            first.conv2.padding = others[0].conv2.padding


STAGES = ("layer1", "layer2", "layer3", "layer4")


def _blocks(network: nn.Module, name: str) -> list[timm.models.resnet.Bottleneck]:
    """Return the blocks of a stage; none where one of them is not what the layouts differ in."""
    blocks = list(getattr(network, name, ()))
    bottlenecks = all(isinstance(block, timm.models.resnet.Bottleneck) for block in blocks)
    # With an anti-aliased stride that is no longer the convolution's.
    plain = bottlenecks and all(isinstance(block.aa, nn.Identity) for block in blocks)
    return blocks if plain else []
