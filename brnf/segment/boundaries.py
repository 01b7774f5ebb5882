"""The network that finds class boundaries: IRN's boundary branch on a frozen backbone
(`docs/method.md` section 8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brnf.backbones import Backbone, BackboneOptions, LoadedWeights, build_backbone

__all__ = [
    "BoundaryNetwork",
    "boundary_map",
    "labels_on_grid",
    "pack_boundaries",
    "unpack_boundaries",
]

WIDTH = 32
GROUPS = 4


class BoundaryNetwork(nn.Module):
    """Tell for each pixel of the first stage's grid whether a class ends there.

    Each stage gets a 1x1 convolution of 32 channels with GroupNorm; enlarged to the first stage's
    grid they are fused into one logit. IRN's network has a branch on the stem, too, and one for
    displacements, which only instances need.

    Arguments:
        backbone: frozen four-stage extractor; its first stage has stride 4.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), nn.GroupNorm(GROUPS, WIDTH))
            for channels in backbone.channels
        )
        self.fuse = nn.Conv2d(WIDTH * len(backbone.channels), 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, H/4, W/4] for images [N, 3, H, W] in 0..255 RGB."""
        stages = self.backbone(self.backbone.normalise(images))
        grid = stages[0].shape[2:]
        enlarged = [
            F.interpolate(branch(stage.detach()), grid, mode="bilinear", align_corners=False).relu()
            for branch, stage in zip(self.branches, stages, strict=True)
        ]
        return self.fuse(torch.cat(enlarged, 1))[:, 0]

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn."""
        return [*self.branches.parameters(), *self.fuse.parameters()]


def boundary_map(network: BoundaryNetwork, image: Tensor) -> Tensor:
    """Return B from the mean logit of an image and its mirror.

    Arguments:
        network: in evaluation mode.
        image: [3, H, W] in 0..255 RGB.

    Returns:
        [H/4, W/4] in 0..1.
    """
    logits = network(torch.stack([image, image.flip(-1)]))
    return ((logits[0] + logits[1].flip(-1)) / 2).sigmoid()


def labels_on_grid(labels: Tensor, grid: Sequence[int]) -> Tensor:
    """Return labels [N, H, W] at the nearest pixels of a coarser grid [N, h, w], int64."""
    return F.interpolate(labels[:, None].float(), tuple(grid), mode="nearest-exact")[:, 0].long()


def pack_boundaries(network: BoundaryNetwork, options: BackboneOptions) -> dict[str, Any]:
    """Return all that rebuilds a network, as plain values and tensors for ``torch.save``."""
    return {
        "backbone": asdict(options),
        "weights": asdict(network.backbone.loaded),
        "boundaries": network.state_dict(),
    }


def unpack_boundaries(packed: Mapping[str, Any]) -> BoundaryNetwork:
    """Rebuild a network from :func:`pack_boundaries`'s dictionary, without looking for weight
    files.

    Raises:
        KeyError, RuntimeError: the dictionary is not of this kind or does not fit.
    """
    network = BoundaryNetwork(build_backbone(BackboneOptions(**packed["backbone"]), load=False))
    network.backbone.restore(LoadedWeights(**packed["weights"]))
    network.load_state_dict(packed["boundaries"])
    return network
