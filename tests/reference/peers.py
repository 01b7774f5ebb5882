"""This project's CAM network with the weights of the peers' names (`tests/reference/README.md`)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from brnf.backbones import build_backbone
from brnf.cam.network import CamNetwork
from brnf.config.sections.cam import BackboneOptions
from tests.reference.recipe import reference_value

SIPE = BackboneOptions(
    name="resnet50", weights="none", stride=16, dilated=False, trainable_stages=2
)
WIDTHS = (128, 128, 256, 256)
CLASSES = 20

GROUPS = ("backbone", "backbone_convolutions", "backbone_norms", "classifier", "affinity", "sides")
"""Groups of parameters whose gradients the peers' numbers are of."""


def peer_name(name: str) -> str:
    """Return what SIPE and SFC call a tensor of the CAM network.

    timm's names of a ResNet are torchvision's, which are the peers' behind ``resnet50.``.
    """
    kind, _, rest = name.partition(".")
    if kind == "backbone":
        return f"resnet50.{rest.removeprefix('network.')}"
    if kind == "sides":
        number, _, rest = rest.partition(".")
        return f"side{int(number) + 1}.{rest}"
    return f"f9.{rest}" if kind == "affinity" else name


def reference_network(affinity: bool = False, detach_sides: bool = True) -> CamNetwork:
    """Return SIPE's network, or SFC's with an affinity, with the references' weights.

    It takes pixels as they are: no mean is subtracted.
    """
    network = CamNetwork(build_backbone(SIPE), CLASSES, WIDTHS, affinity, detach_sides)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            value.copy_(reference_value(peer_name(name), tuple(value.shape)))
    network.backbone.mean.zero_()
    network.backbone.std.fill_(1)
    return network


def named_values(network: CamNetwork) -> dict[str, Tensor]:
    """Return the network's parameters by the peers' names."""
    return {peer_name(name): parameter for name, parameter in network.named_parameters()}


def gradient_norms(network: CamNetwork) -> dict[str, float]:
    """Return the norm of the gradient of each group."""
    squares = dict.fromkeys(GROUPS, 0.0)
    for name, parameter in named_values(network).items():
        if parameter.grad is not None:
            for group in _groups(name, parameter):
                squares[group] += float(parameter.grad.double().square().sum())
    return {group: value**0.5 for group, value in squares.items()}


def _groups(name: str, parameter: Tensor) -> Iterator[str]:
    if name.startswith("resnet50."):
        yield "backbone"
        yield "backbone_norms" if parameter.ndim == 1 else "backbone_convolutions"
    else:
        kind = name.split(".")[0]
        yield {"f9": "affinity", "classifier": "classifier"}.get(kind, "sides")
