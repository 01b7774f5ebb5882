"""Strides of a network's last stages lowered, so that their features lie closer together."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn

from brnf.backbones.intermediates import Intermediates
from brnf.backbones.levels import feature_levels, stages_of_modules
from brnf.errors import UserError

__all__ = ["drop_strides", "lower_pyramid_strides"]

MERGING = (swin_transformer.PatchMerging, swin_transformer_v2.PatchMerging)
"""Join 2 x 2 features [N, H, W, D] by a product."""


def drop_strides(network: nn.Module, stride: int) -> None:
    """Set the last stages' strides to 1 without dilation, in place.

    SIPE does so with ResNet's last. A pooling of 2 x 2 features would end between them: a maximum
    is taken of 3 x 3 instead, a mean left out, as timm does at stride 1.

    Arguments:
        network: with a stem's level and four stages.
        stride: pixels between two features of the last stage.
    """
    reductions = feature_levels(network).reduction()
    for module, output in stages_of_modules(network):
        if reductions[output] > stride and getattr(module, "stride", 1) in (2, (2, 2)):
            setattr(module, "stride", 1 if module.stride == 2 else (1, 1))  # noqa: B010
            if getattr(module, "kernel_size", 3) in (2, (2, 2)):
                if isinstance(module, nn.MaxPool2d):
                    module.kernel_size, module.padding = 3, 1
                elif isinstance(module, nn.AvgPool2d):
                    module.kernel_size = 1


def lower_pyramid_strides(network: Intermediates, stride: int, dilated: bool) -> None:
    """Let the last stages of a pyramid keep the grid of the stage before, in place.

    Arguments:
        network: whose stages begin with a halving of the grid.
        stride: pixels between two features of the last stage.
        dilated: whether their convolutions are dilated instead.

    Raises:
        UserError: a stage halves its grid in a way that is not known.
    """
    described = feature_levels(network)
    for name, reduction in zip(described.module_name(), described.reduction(), strict=True):
        if reduction > stride:
            stage = network.network.get_submodule(name)
            lost = reduction // stride if dilated else 1
            if not _lower(stage, 2 if lost > 2 else 1):
                raise UserError(
                    f"backbone.stride: {stride} is not possible for this network; set it to 32"
                )
            if dilated:
                _dilate(stage, lost)


def _lower(stage: nn.Module, distance: int) -> bool:
    """Let a stage's halving see every position; return whether it is of a kind that is known.

    Arguments:
        stage: with a part ``downsample``.
        distance: of the two rows and columns that it joins.
    """
    halving = list(_halving(stage))
    for module in halving:
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] % 2:
            module.stride = (1, 1)
        else:
            kind: Any = type(module)
            is_convolution = isinstance(module, nn.Conv2d)
            module.__class__ = type(f"EveryPosition{kind.__name__}", (_EveryPosition, kind), {})
            module.axes = (2, 3) if is_convolution else (1, 2)  # type: ignore[assignment]
            module.distance = distance  # type: ignore[assignment]
    return bool(halving)


def _halving(stage: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers by which a stage halves its grid."""
    downsample = getattr(stage, "downsample", None)
    for module in downsample.modules() if isinstance(downsample, nn.Module) else ():
        halves = isinstance(module, nn.Conv2d) and module.stride == (2, 2)
        if halves or isinstance(module, MERGING):
            yield module


def _dilate(stage: nn.Module, factor: int) -> None:
    """Dilate the spatial convolutions of a stage's blocks."""
    blocks = stage.get_submodule("blocks")
    for module in blocks.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.dilation = (factor, factor)
            module.padding = tuple(factor * (side // 2) for side in module.kernel_size)


class _EveryPosition(nn.Module):
    """In front of a layer's own class, which joins 2 x 2 features that do not overlap: joins those
    of every position.

    Neighbours have their middle between two features. The mean of two such positions brings the
    result back to the features' own place; without it the grid of a mirrored image would be off by
    one cell. Features that are two cells apart have their middle there already.
    """

    axes: tuple[int, int]
    distance: int

    def forward(self, features: Tensor) -> Tensor:
        """Return the joined features, as many as there were."""
        for axis in self.axes:
            features = _pairs(features, axis, self.distance)
        joined: Tensor = super().forward(features)
        for axis in self.axes if self.distance == 1 else ():
            size = joined.shape[axis] - 1
            joined = (joined.narrow(axis, 0, size) + joined.narrow(axis, 1, size)) / 2
        return joined


def _pairs(features: Tensor, axis: int, distance: int) -> Tensor:
    """Return, one after the other, the pairs of rows that lie a distance apart; the border is
    repeated once.
    """
    size = features.shape[axis]
    ends = features.narrow(axis, 0, 1), features.narrow(axis, size - 1, 1)
    padded = torch.cat([ends[0], features, ends[1]], axis)
    count = size + 2 - distance
    pair = padded.narrow(axis, 0, count), padded.narrow(axis, distance, count)
    return torch.stack(pair, axis + 1).flatten(axis, axis + 1)
