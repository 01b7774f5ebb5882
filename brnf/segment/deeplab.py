"""DeepLabV2: a backbone, dilated where it can be, and one of two heads."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from brnf.backbones import Backbone, LoadedWeights, build_backbone
from brnf.backbones.layouts import use_layout
from brnf.config.networks import can_dilate
from brnf.config.sections.cam import BackboneOptions
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.errors import UserError
from brnf.segment.heads import AsppHead, AtrousHead
from brnf.store.networks import NetworkKind, load_network, save_network

__all__ = ["DeepLab", "build_deeplab", "load_deeplab", "save_deeplab"]

KIND = NetworkKind("segmentation network", "train_segmentation")
EARLIER_HEADS = {"sum": "aspp_sum", "aspp": "aspp_concat"}
"""Names of the heads in files that an earlier version wrote, and today's."""


class DeepLab(nn.Module):
    """Segment images.

    Arguments:
        backbone: its last stage feeds the head.
        classes: K, background included.
        options: the head and the handling of BatchNorm; the backbone is taken as it is.
    """

    def __init__(self, backbone: Backbone, classes: int, options: DeepLabNetwork) -> None:
        super().__init__()
        self.options = options
        self.backbone = backbone
        self.head: AtrousHead | AsppHead
        channels, rates = backbone.channels[-1], options.rates
        if options.head == "aspp_concat":
            width, momentum = options.head_width, options.norm_momentum
            self.head = AsppHead(channels, classes, rates, width, momentum)
        else:
            self.head = AtrousHead(channels, classes, rates)
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)
            elif options.trainable_stages == 4:
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(True)
        learning = [] if options.frozen_batch_norm else _norms_in_trainable_part(backbone)
        self._following_norms = learning

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, K, H / stride, W / stride] of images [N, 3, H, W] in 0..255."""
        found: Tensor = self.head(self.backbone(self.backbone.normalise(images))[-1])
        return found

    def train(self, mode: bool = True) -> "DeepLab":
        """Switch to training; the backbone's BatchNorm follows only when it is not frozen."""
        super().train(mode)
        for norm in self._following_norms:
            norm.train(mode)
        return self

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return the optimiser's groups that hold something.

        The backbone's weights learn at the learning rate, its biases at 2 times, the head's weights
        at 10 and its biases at 20 times, biases without decay; a BatchNorm is in no group.

        Arguments:
            learning_rate: of the backbone's weights.
            weight_decay: of all weights.

        References:
            HSC's ``get_parameter_groups``; a ResNet's convolutions have no bias, so that for it
            these are the three groups of deeplab-pytorch, too.
        """
        body = _weights_and_biases(self.backbone)
        head = _weights_and_biases(self.head)
        groups = [
            {"params": parameters, "lr": times * learning_rate, "weight_decay": decay}
            for parameters, times, decay in (
                (body[0], 1, weight_decay),
                (body[1], 2, 0.0),
                (head[0], 10, weight_decay),
                (head[1], 20, 0.0),
            )
        ]
        return [group for group in groups if group["params"]]


def _weights_and_biases(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that learn: those that are no biases, and the biases."""
    named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    biases = [value for name, value in named if name.split(".")[-1] == "bias"]
    return [value for name, value in named if name.split(".")[-1] != "bias"], biases


def _norms_in_trainable_part(backbone: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers behind the first layer that learns."""
    found: list[_BatchNorm] = []
    learning = False
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            if learning:
                found.append(module)
        else:
            own = module.parameters(recurse=False)
            learning = learning or any(parameter.requires_grad for parameter in own)
    return found


def build_deeplab(options: DeepLabNetwork, classes: int, *, load: bool = True) -> DeepLab:
    """Build the network with the weights that the options name.

    Arguments:
        options: backbone, head and handling of BatchNorm.
        classes: K, background included.
        load: whether to load the backbone's weights; a network that is restored from its file
            brings its own.

    Raises:
        UserError: the backbone cannot be built or brought to the layout, or its weights are
            missing.
    """
    chosen = BackboneOptions(
        name=options.backbone,
        weights=options.weights,
        stride=options.output_stride,
        dilated=can_dilate(options.backbone),
        trainable_stages=options.trainable_stages,
    )
    try:
        backbone = build_backbone(chosen, load=load)
        use_layout(backbone.network, options.layout)
        if options.frozen_batch_norm:
            backbone.fold_while_learning()
    except UserError as error:
        # The backbone names the keys of its own section.
        text = str(error).replace("backbone.name", "segmentation.backbone")
        for key in ("weights", "layout"):
            text = text.replace(f"backbone.{key}", f"segmentation.{key}")
        raise UserError(text) from error
    return DeepLab(backbone, classes, options)


def save_deeplab(path: Path, network: DeepLab, classes: Sequence[str]) -> None:
    """Write a network with all that rebuilds it, so that no weight file is needed later.

    Arguments:
        path: the file to write.
        network: the trained network.
        classes: names of the foreground classes.
    """
    options = {field.name: getattr(network.options, field.name) for field in fields(DeepLabNetwork)}
    weights = asdict(network.backbone.loaded)
    save_network(path, KIND, network, {"network": options, "weights": weights}, classes)


def load_deeplab(path: Path, device: torch.device, classes: Sequence[str] | None = None) -> DeepLab:
    """Read what :func:`save_deeplab` wrote, in evaluation mode.

    Arguments:
        path: the file.
        device: where the network shall live.
        classes: names of the foreground classes it must know; None takes any.

    Raises:
        UserError: the file is missing, damaged, or was trained for other classes.
    """
    return load_network(path, KIND, _rebuild, classes)[0].to(device)


def _rebuild(stored: dict[str, Any], classes: int) -> DeepLab:
    known = stored["network"]
    head = EARLIER_HEADS.get(known["head"], known["head"])
    options = DeepLabNetwork(**{**known, "rates": tuple(known["rates"]), "head": head})
    network = build_deeplab(options, classes + 1, load=False)
    network.backbone.restore(LoadedWeights.stored(stored["weights"]))
    return network
