"""The CAM network of SIPE: classifier maps and hierarchical pixel features of one backbone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brnf.backbones import Backbone, LoadedWeights, build_backbone
from brnf.cam.unit import unit_vectors
from brnf.config.sections.cam import BackboneOptions, CamTraining
from brnf.store.networks import NetworkKind, load_network, save_network

__all__ = [
    "CamNetwork",
    "CamOutput",
    "load_cam_network",
    "new_cam_network",
    "save_cam_network",
    "side_widths",
]

KIND = NetworkKind("CAM network", "its training")


@dataclass(frozen=True)
class CamOutput:
    """What the network says about a batch, all on the grid [h, w] of the last stage.

    Attributes:
        logits: [N, C, h, w], the classifier's maps before any normalisation.
        features: [N, D, h, w], hierarchical features: four blocks of unit vectors.
        semantic: [N, S, h, w], the last stage's output, detached.
        affinity: [N, S, h, w], what the similarity of pixels is measured with (SFC), or None.
    """

    logits: Tensor
    features: Tensor
    semantic: Tensor
    affinity: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """Return the image-level logits, the global average of the maps, [N, C]."""
        return self.logits.mean((2, 3))

    def in_float32(self) -> "CamOutput":
        """Return everything as float32."""
        affinity = None if self.affinity is None else self.affinity.float()
        return CamOutput(
            self.logits.float(), self.features.float(), self.semantic.float(), affinity
        )


class CamNetwork(nn.Module):
    """Classify images with 1x1 convolutions and describe their pixels.

    SIPE's network (`docs/method.md` section 2). In the backbone's trainable stages BatchNorm's
    scale and shift learn, too; its statistics never do.

    Arguments:
        backbone: a four-stage feature extractor.
        classes: number C of foreground classes.
        widths: channels of the side convolutions on the four stages, at most the stages' own.
        affinity: whether a further 1x1 convolution on the last stage and the image's colours
            measures the similarity of pixels, by which maps are then propagated (SFC).
        detach_sides: whether the stages under the side convolutions are detached (SIPE), so that no
            loss on the features or on the prototypes' maps reaches the backbone.

    Attributes:
        dimension: D of the pixel features, even.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        widths: Sequence[int],
        affinity: bool = False,
        detach_sides: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.let_norms_learn()
        self.detach_sides = detach_sides
        self.classes = classes
        self.widths = side_widths(widths, backbone.channels)
        self.dimension = sum(self.widths)
        self.classifier = nn.Conv2d(backbone.channels[-1], classes, 1, bias=False)
        self.sides = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False)
            for channels, width in zip(backbone.channels, self.widths, strict=True)
        )
        last = backbone.channels[-1]
        self.affinity = nn.Conv2d(3 + last, last, 1, bias=False) if affinity else None

    def forward(self, images: Tensor) -> CamOutput:
        """Return maps and features of images [N, 3, H, W] in 0..255 RGB."""
        colours = self.backbone.normalise(images)
        return self.heads(self.backbone(colours), colours)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's four outputs for images in 0..255; constant while frozen."""
        found: list[Tensor] = self.backbone(self.backbone.normalise(images))
        return found

    def heads(self, stages: Sequence[Tensor], colours: Tensor | None = None) -> CamOutput:
        """Return maps and features from the backbone's four outputs.

        Arguments:
            stages: the four outputs.
            colours: the normalised images [N, 3, H, W], needed for the affinity only.
        """
        grid = stages[2].shape[2:]
        seen = [stage.detach() for stage in stages] if self.detach_sides else stages
        # As SIPE: these blocks are aligned by the pixels' centres, the maps below by their corners.
        pairs = zip(self.sides, seen, strict=True)
        units = (unit_vectors(side(stage), 1) for side, stage in pairs)
        blocks = [F.interpolate(unit, grid, mode="bilinear", align_corners=False) for unit in units]
        logits = self.classifier(stages[3])
        semantic = stages[3].detach()
        if semantic.shape[2:] != grid:
            logits, semantic = (
                F.interpolate(maps, grid, mode="bilinear", align_corners=True)
                for maps in (logits, semantic)
            )
        affinity = None
        if self.affinity is not None:
            assert colours is not None
            # The last stage is not detached: the maps' consistency teaches the backbone through the
            # affinity, too.
            joined = [
                F.interpolate(maps, grid, mode="bilinear", align_corners=True)
                for maps in (colours, stages[3])
            ]
            affinity = self.affinity(torch.cat(joined, 1))
        return CamOutput(logits, torch.cat(blocks, 1), semantic, affinity)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the new layers, which learn faster than the backbone."""
        affinity = [] if self.affinity is None else [*self.affinity.parameters()]
        return [*self.classifier.parameters(), *self.sides.parameters(), *affinity]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the backbone's parameters that learn."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]


def side_widths(wanted: Sequence[int], channels: Sequence[int]) -> tuple[int, ...]:
    """Return the widths of the side convolutions: none wider than its stage, an even sum.

    A wider convolution would give rank-deficient features, which no density survives
    (`docs/method.md` section 7).

    Arguments:
        wanted: the four widths of the configuration.
        channels: of the four stages.
    """
    widths = [min(width, limit) for width, limit in zip(wanted, channels, strict=True)]
    if sum(widths) % 2:
        widths[-1] -= 1
    return tuple(widths)


def new_cam_network(
    backbone: BackboneOptions,
    cam: CamTraining,
    classes: int,
    device: torch.device,
    seed: int,
    affinity: bool = False,
) -> CamNetwork:
    """Return a network with the backbone's weights and random new layers.

    Arguments:
        backbone: what to build, and its weights.
        cam: widths of the side convolutions, and whether they are detached.
        classes: number C.
        device: where it shall be.
        seed: of the new layers.
        affinity: whether it propagates maps by pixel similarity (SFC).
    """
    torch.manual_seed(seed)
    built = build_backbone(backbone)
    return CamNetwork(built, classes, cam.side_widths, affinity, cam.detach_sides).to(device)


def save_cam_network(
    path: Path, network: CamNetwork, options: BackboneOptions, classes: Sequence[str]
) -> None:
    """Write a network and all that rebuilds it.

    Arguments:
        path: the file.
        network: the trained network.
        options: of its backbone.
        classes: names of the foreground classes.
    """
    rebuild = {
        "backbone": asdict(options),
        "weights": asdict(network.backbone.loaded),
        "widths": list(network.widths),
        "affinity": network.affinity is not None,
        "detach_sides": network.detach_sides,
    }
    save_network(path, KIND, network, rebuild, classes)


def load_cam_network(
    path: Path, device: torch.device, classes: Sequence[str] | None = None
) -> CamNetwork:
    """Read what :func:`save_cam_network` wrote, in evaluation mode.

    Arguments:
        path: the file.
        device: where the network shall live.
        classes: names of the foreground classes it must know; None takes any.

    Raises:
        UserError: the file is missing, damaged, or was trained for other classes.
    """
    return load_network(path, KIND, _rebuild, classes)[0].to(device)


def _rebuild(options: dict[str, Any], classes: int) -> CamNetwork:
    backbone = build_backbone(BackboneOptions(**options["backbone"]), load=False)
    backbone.restore(LoadedWeights.stored(options["weights"]))
    heads = options["widths"], options["affinity"], options["detach_sides"]
    return CamNetwork(backbone, classes, *heads)
