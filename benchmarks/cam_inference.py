"""Multi-scale maps of one image."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Repeats, Row, bfloat16_unit, compare
from benchmarks.networks import convolutions_as_products
from brnf.backbones import build_backbone
from brnf.cam.inference import ImageMaps, multi_scale_maps, scaled_image
from brnf.cam.network import CamNetwork
from brnf.cam.prototypes import (
    classifier_maps,
    divide_by_maximum,
    present_classes,
    prototype_maps,
    prototypes,
    structure_seeds,
)
from brnf.config.sections.cam import BackboneOptions, MultiScaleMaps

__all__ = ["FULL", "TINY", "Size", "maps_apart", "measure"]


@dataclass(frozen=True)
class Size:
    """What is measured: the image size of the voc-animals experiment; the weights are random, which
    takes the same time.
    """

    backbone: str = "resnet50"
    height: int = 240
    width: int = 320
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    classes: int = 21
    widths: tuple[int, ...] = (128, 128, 256, 256)


FULL = Size()
TINY = Size("resnet18", 32, 48, (1.0, 2.0), 4, (4, 4, 4, 4))


@torch.inference_mode()
def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare channels last, folded BatchNorms and pairs of an image and its mirror with planes,
    BatchNorms and single images.

    In bfloat16 only where the processor has a unit for it.
    """
    torch.manual_seed(0)
    network = CamNetwork(
        build_backbone(BackboneOptions(name=size.backbone, weights="none")),
        size.classes - 1,
        size.widths,
    ).eval()
    planes = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    network.backbone.fold()
    image = (
        F.interpolate(torch.rand(1, 3, 12, 16) * 255, (size.height, size.width), mode="bicubic")[0]
        .clamp(0, 255)
        .round()
    )
    labels = torch.zeros(size.classes - 1)
    labels[[0, 2]] = 1
    rules = MultiScaleMaps(scales=size.scales)

    def ours(amp: bool = False) -> ImageMaps:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            return multi_scale_maps(network, image, labels, (size.height, size.width), rules)

    def reference() -> ImageMaps:
        return maps_apart(planes, image, labels, size)

    _assert_close(ours(), reference(), 1e-3)
    shape = (
        f"{size.height} × {size.width}, scales {', '.join(map(str, size.scales))}, {size.backbone}"
    )
    rows = [
        compare(
            "CAM inference, float32",
            shape,
            ours,
            reference,
            repeats,
            **_limit(network, image, size, torch.float32),
            ratio=1.1,
        )
    ]
    if unit := bfloat16_unit():
        _assert_close(ours(amp=True), reference(), 0.1)
        limit = _limit(network, image, size, torch.bfloat16)
        rows.append(
            compare(
                f"CAM inference, bfloat16 ({unit})",
                shape,
                lambda: ours(amp=True),
                reference,
                repeats,
                **limit,
                ratio=3,
            )
        )
    return rows


def maps_apart(network: CamNetwork, image: Tensor, labels: Tensor, size: Size) -> ImageMaps:
    """Make the maps from planes [N, C, H, W] in float32, an image and its mirror one after the
    other.

    Seeds and prototypes are this project's, so that only the way through the network differs.
    """
    present = present_classes(labels[None])
    sums: list[list[Tensor]] = [[], []]
    for scale in size.scales:
        view = scaled_image(image, scale)[None]
        straight, mirrored = _output(network, view), _output(network, view.flip(-1))
        logits, features = (
            one + other.flip(-1) for one, other in zip(straight, mirrored, strict=True)
        )
        seeds = structure_seeds(classifier_maps(logits, labels[None]), features, present)
        activation = prototype_maps(features, prototypes(features, seeds))
        for kept, maps in zip(
            sums, (logits.relu()[:, labels.bool()], activation[:, present[0]]), strict=True
        ):
            kept.append(
                F.interpolate(
                    maps, (size.height, size.width), mode="bilinear", align_corners=False
                )[0]
            )
    classifier, prototype = (divide_by_maximum(torch.stack(kept).sum(0)) for kept in sums)
    return ImageMaps(torch.cat([1 - classifier.amax(0, keepdim=True), classifier]), prototype)


def _output(network: CamNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    normal = ((images - network.backbone.mean) / network.backbone.std).contiguous()
    output = network.heads(list(network.backbone.network(normal)[-4:]))
    return output.logits, output.features


def _limit(network: CamNetwork, image: Tensor, size: Size, kind: torch.dtype) -> dict[str, Any]:
    pairs = [scaled_image(image, scale)[None].repeat(2, 1, 1, 1) for scale in size.scales]
    products = [convolutions_as_products(network, pair, kind) for pair in pairs]
    return {
        "limit": f"GEMM of the convolutions, {str(kind).split('.')[1]}",
        "bound": lambda: [run() for run in products],
    }


def _assert_close(found: ImageMaps, expected: ImageMaps, tolerance: float) -> None:
    """Assert that maps in 0..1 differ by at most the tolerance on average."""
    for name in ("classifier", "prototype"):
        own, theirs = getattr(found, name), getattr(expected, name)
        assert own.shape == theirs.shape and float((own - theirs).abs().mean()) < tolerance, name
