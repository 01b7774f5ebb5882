"""The network that finds class boundaries: IRN's boundary branch on a frozen backbone
(`docs/method.md` section 8).
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brnf.backbones import Backbone, LoadedWeights, build_backbone
from brnf.config.sections.cam import BackboneOptions
from brnf.store.networks import NetworkKind, load_network, save_network

__all__ = [
    "BoundaryNetwork",
    "boundary_map",
    "labels_on_grid",
    "load_boundaries",
    "save_boundaries",
]

KIND = NetworkKind("boundary network", "train_boundaries")

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
        found: Tensor = self.fuse(torch.cat(enlarged, 1))[:, 0]
        return found

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
    found: Tensor = ((logits[0] + logits[1].flip(-1)) / 2).sigmoid()
    return found


def labels_on_grid(labels: Tensor, grid: Sequence[int]) -> Tensor:
    """Return labels [N, H, W] at the nearest pixels of a coarser grid [N, h, w], int64."""
    return F.interpolate(labels[:, None].float(), tuple(grid), mode="nearest-exact")[:, 0].long()


def save_boundaries(path: Path, network: BoundaryNetwork, options: BackboneOptions) -> None:
    """Write a network and all that rebuilds it.

    Arguments:
        path: the file.
        network: the trained network.
        options: of its backbone.
    """
    weights = asdict(network.backbone.loaded)
    save_network(path, KIND, network, {"backbone": asdict(options), "weights": weights})


def load_boundaries(path: Path, device: torch.device) -> BoundaryNetwork:
    """Read what :func:`save_boundaries` wrote, in evaluation mode.

    Raises:
        UserError: the file is missing or damaged.
    """
    return load_network(path, KIND, _rebuild)[0].to(device)


def _rebuild(options: dict[str, Any], classes: int) -> BoundaryNetwork:
    network = BoundaryNetwork(build_backbone(BackboneOptions(**options["backbone"]), load=False))
    network.backbone.restore(LoadedWeights.stored(options["weights"]))
    return network
