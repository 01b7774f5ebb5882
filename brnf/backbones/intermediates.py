"""Networks of timm that have no stem's level: pyramids of four levels, and plain ViTs."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch.nn.functional as F
from timm.models._features import FeatureInfo
from torch import Tensor, nn

__all__ = ["Intermediates", "build_pyramid", "build_vit"]

STAGES = 4


class Intermediates(nn.Module):
    """Give four intermediate outputs of a network for images of any size.

    Such networks cut images into squares and drop or refuse what is left over. The image is
    therefore resized, so that whole squares cover it: its cells are ``stride`` pixels wide, but for
    the rounding up of their number, and a mirrored image has the mirrored cells.

    Arguments:
        network: of timm, with ``forward_intermediates``.
        indices: of the four outputs.
        cell: pixels of the network's input between two features of the last output.
        stride: pixels of the image that are to lie between them.

    Attributes:
        feature_info: timm's description of the four outputs.
    """

    def __init__(self, network: Any, indices: Sequence[int], cell: int, stride: int) -> None:
        super().__init__()
        self.network = network
        self.indices = network.prune_intermediate_layers(list(indices), prune_norm=False)
        self.feature_info = FeatureInfo(network.feature_info, self.indices)
        self.cell = cell
        self.stride = stride

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four outputs for normalised images [N, 3, H, W].

        The last one has ceil(H / stride) x ceil(W / stride) features.
        """
        # ONNX divides towards zero, so that -(-side // stride) would be another number there.
        size = [self.cell * ((side + self.stride - 1) // self.stride) for side in images.shape[2:]]
        shrinks = self.cell < self.stride
        fitted = F.interpolate(images, size, mode="bilinear", antialias=shrinks)
        found: list[Tensor] = self.network.forward_intermediates(
            fitted, indices=self.indices, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return found

    def extra_repr(self) -> str:
        """Return what else its outputs depend on."""
        return f"indices={self.indices}, cell={self.cell}, stride={self.stride}"


def build_pyramid(name: str, stride: int, arguments: Mapping[str, Any]) -> Intermediates:
    """Build a network whose four stages halve the grid, its last stride as timm has it.

    Arguments:
        name: of the timm network.
        stride: pixels between two features of the last stage once its strides are lowered.
        arguments: for timm, so that the network takes images of any size.
    """
    network = timm.create_model(name, pretrained=False, **arguments)
    return Intermediates(network, range(STAGES), stride, stride)


def build_vit(name: str, stride: int) -> Intermediates:
    """Build a plain vision transformer, which gives features of four depths on one grid.

    These are the outputs behind each quarter of its blocks, each with the last normalisation, as
    DINOv2's dense heads take them. Its position embedding is interpolated to the grid.

    Arguments:
        name: of the timm network.
        stride: pixels of the image that a patch covers.
    """
    network: Any = timm.create_model(name, pretrained=False, dynamic_img_size=True)
    depth, patch = len(network.blocks), network.patch_embed.patch_size[0]
    indices = [depth * quarter // STAGES - 1 for quarter in range(1, STAGES + 1)]
    return Intermediates(network, indices, patch, stride)
