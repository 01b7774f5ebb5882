"""Any timm network as a four-stage feature extractor."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from brnf.backbones.folding import folded
from brnf.backbones.precision import keep_small_sums_in_float32
from brnf.backbones.weights import LoadedWeights, load_weights
from brnf.config.sections.cam import BackboneOptions
from brnf.errors import UserError
from brnf.weights import CAFFE, PACKAGED, PUBLISHED, is_tag

__all__ = ["Backbone", "backbone_channels", "build_backbone"]


CAFFE_MEAN = (122.675, 116.669, 104.008)
"""Of the RGB channels of ImageNet in 0..255, as DeepLabV2's Caffe models subtract it; they divide
by nothing.
"""


class Backbone(nn.Module):
    """Extract the outputs of four stages.

    BatchNorm always works with its stored statistics; its scale and shift are frozen, too, until
    :meth:`let_norms_learn`. Gradients stop where the frozen stages end, since nothing before that
    point asks for one.

    Arguments:
        network: a timm network built with ``features_only``.
        mean: [3] of the RGB channels in 0..255.
        deviation: [3], likewise.
        trainable_stages: see :class:`BackboneOptions`.

    Attributes:
        channels: of the four stages.
        trainable_stages: see above.
        loaded: what it started from.
    """

    loaded: LoadedWeights
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        deviation: Sequence[float],
        trainable_stages: int,
    ) -> None:
        super().__init__()
        # Channels last is what both cuDNN and oneDNN compute fastest; on a CPU it is worth a factor
        # of 1.7.
        self.network = network.to(memory_format=torch.channels_last)
        self.channels: tuple[int, ...] = tuple(_levels(network).channels()[-4:])
        self.trainable_stages = trainable_stages
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )
        keep_small_sums_in_float32(self.network)
        self._freeze()
        self.train()

    def normalise(self, images: Tensor) -> Tensor:
        """Return images [N, 3, H, W] in 0..255 as the network wants them, float32."""
        return ((images.float() - self.mean) / self.deviation).contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four stages' outputs of normalised images [N, 3, H, W]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable_stages > 0):
            return list(self.network(images)[-4:])

    def restore(self, loaded: LoadedWeights) -> None:
        """Take over what a saved network started from, with the colours that it wants."""
        self.loaded = loaded
        for colours, saved in ((self.mean, loaded.mean), (self.deviation, loaded.deviation)):
            colours.copy_(torch.tensor(saved).view(1, 3, 1, 1))

    def let_norms_learn(self) -> None:
        """Let the scale and shift of BatchNorm learn in the stages that do (SIPE).

        Its statistics stay as they are stored.
        """
        for module, learns in self._parts():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.requires_grad_(learns)

    def fold(self) -> None:
        """Multiply the BatchNorms into the convolutions; from then on the backbone is for inference
        only.
        """
        self.network = folded(self.network)

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training, except for BatchNorm and all that is frozen."""
        super().train(mode and self.trainable_stages > 0)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _freeze(self) -> None:
        for module, learns in self._parts():
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(learns and not is_norm)

    def _parts(self) -> list[tuple[nn.Module, bool]]:
        """Return each module with whether it lies in a stage that learns."""
        first = 4 - self.trainable_stages
        return [(module, output > first) for module, output in _outputs_of_modules(self.network)]


def build_backbone(options: BackboneOptions, *, load: bool = True) -> Backbone:
    """Build a backbone and load its weights.

    Arguments:
        options: what to build.
        load: whether to load the weights; a network that is restored from a checkpoint brings its
            own.

    Raises:
        UserError: the network is unknown, the stride impossible, or the weights are missing or do
            not fit.
    """
    if not 0 <= options.trainable_stages <= 4:
        raise UserError(f"backbone.trainable_stages: {options.trainable_stages} is not within 0..4")
    if ":" in options.name or not timm.is_model(
        options.name
    ):  # a name with a colon would be fetched from elsewhere
        raise UserError(
            f"backbone.name: '{options.name}' cannot be built (timm has no such network); see "
            "timm.list_models()"
        )
    stride: dict[str, Any] = (
        {"output_stride": options.stride} if options.dilated and options.stride < 32 else {}
    )
    try:
        network = timm.create_model(options.name, pretrained=False, features_only=True, **stride)
    except (RuntimeError, NotImplementedError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(
            f"backbone.name: '{options.name}' cannot be built ({error}); see timm.list_models()"
        ) from error
    if options.stride < 32 and not options.dilated:
        _drop_strides(network, options)
    levels = len(_levels(network).channels())
    if levels != 5:
        raise UserError(
            f"backbone.name: '{options.name}' has {levels} feature levels, 5 are needed; choose "
            "another network"
        )
    digest = load_weights(network, options.name, options.weights) if load else None
    mean, deviation = _colours(options)
    backbone = Backbone(network, mean, deviation, options.trainable_stages)
    published = PUBLISHED.get(options.weights, (None,))[0]
    backbone.loaded = LoadedWeights(
        options.weights, published, digest, tuple(mean), tuple(deviation)
    )
    return backbone


def backbone_channels(name: str) -> tuple[int, ...]:
    """Return the channels of the four stages of a timm network without filling its weights.

    Raises:
        UserError: the network is unknown.
    """
    with torch.device("meta"):
        network = build_backbone(
            BackboneOptions(name=name, weights="none", stride=32), load=False
        ).network
    return tuple(_levels(network).channels()[-4:])


def _levels(network: nn.Module) -> Any:
    """Return timm's description of the feature levels."""
    return network.feature_info


def _colours(options: BackboneOptions) -> tuple[Sequence[float], Sequence[float]]:
    """Return the RGB mean and deviation in 0..255 that the weights were trained with."""
    if options.weights in PACKAGED:
        return PACKAGED[options.weights].mean, PACKAGED[options.weights].deviation
    if options.weights.startswith(CAFFE):
        return CAFFE_MEAN, (1.0, 1.0, 1.0)
    published = timm.get_pretrained_cfg(
        options.weights if is_tag(options.weights) else options.name
    )
    if published is None:
        raise UserError(
            f"backbone.name: timm does not tell how '{options.name}' wants its colours; choose "
            "another network"
        )
    return [255 * value for value in published.mean], [255 * value for value in published.std]


def _drop_strides(network: nn.Module, options: BackboneOptions) -> None:
    """Set the last stages' strides to 1 without dilation, as SIPE does with ResNet's last."""
    reductions = _levels(network).reduction()
    for module, output in _outputs_of_modules(network):
        if reductions[output] > options.stride and getattr(module, "stride", 1) in (2, (2, 2)):
            setattr(module, "stride", 1 if module.stride == 2 else (1, 1))  # noqa: B010


def _outputs_of_modules(network: nn.Module) -> list[tuple[nn.Module, int]]:
    """Pair each module with the output (0 = stem, 1..4 = stages) on whose way it lies, by the order
    of definition.
    """
    names = [str(name) for name in _levels(network).module_name()]
    flat = {name for name, _ in network.named_children()}
    ends = [name if name.split(".")[0] in flat else name.replace(".", "_") for name in names]
    pairs, output, reached = [], 0, False
    for name, module in network.named_modules():
        inside = f"{name}.".startswith(f"{ends[output]}.")
        if reached and not inside and output < len(ends) - 1:
            output += 1
            inside = reached = f"{name}.".startswith(f"{ends[output]}.")
        reached = reached or inside
        pairs.append((module, output))
    return pairs
