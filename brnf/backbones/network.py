"""Any timm network as a four-stage feature extractor."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from brnf.backbones.folding import FoldedNorms, folded
from brnf.backbones.intermediates import Intermediates, build_pyramid, build_vit
from brnf.backbones.levels import feature_levels, stages_of_modules
from brnf.backbones.precision import keep_small_sums_in_float32
from brnf.backbones.strides import drop_strides, lower_pyramid_strides
from brnf.backbones.weights import LoadedWeights, load_weights
from brnf.config.networks import family_of
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
        std: [3], likewise.
        trainable_stages: see :class:`BackboneOptions`.

    Attributes:
        channels: of the four stages.
        trainable_stages: see above.
        loaded: what it started from.
    """

    loaded: LoadedWeights
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        trainable_stages: int,
    ) -> None:
        super().__init__()
        # Channels last is what both cuDNN and oneDNN compute fastest; on a CPU it is worth a factor
        # of 1.7.
        self.network = network.to(memory_format=torch.channels_last)
        self.channels: tuple[int, ...] = tuple(feature_levels(network).channels()[-4:])
        self.trainable_stages = trainable_stages
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        keep_small_sums_in_float32(self.network)
        self._folds = False
        self._folded_norms: FoldedNorms | None = None
        self._freeze()
        self.train()

    def normalise(self, images: Tensor) -> Tensor:
        """Return images [N, 3, H, W] in 0..255 as the network wants them, float32."""
        return ((images.float() - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four stages' outputs of normalised images [N, 3, H, W]."""
        learns = torch.is_grad_enabled() and self.trainable_stages > 0
        with torch.set_grad_enabled(learns):
            return list(self._outputs(images, learns and self._folds)[-4:])

    def _outputs(self, images: Tensor, folds: bool) -> list[Tensor]:
        if folds and self._folded_norms is None:
            self._folded_norms = FoldedNorms(self.network)
        if folds and self._folded_norms is not None:
            return self._folded_norms(self.network, images)
        found: list[Tensor] = self.network(images)
        return found

    def restore(self, loaded: LoadedWeights) -> None:
        """Take over what a saved network started from, with the colours that it wants."""
        self.loaded = loaded
        for colours, saved in ((self.mean, loaded.mean), (self.std, loaded.std)):
            colours.copy_(torch.tensor(saved).view(1, 3, 1, 1))

    def let_norms_learn(self) -> None:
        """Let the scale and shift of BatchNorm learn in the stages that do (SIPE).

        Its statistics stay as they are stored.
        """
        for module, learns in self._parts():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.requires_grad_(learns)

    def fold_while_learning(self) -> None:
        """Compute BatchNorms as parts of the convolutions wherever there is a gradient.

        For those whose scale, shift and statistics all stay frozen.
        """
        self._folds = True

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
        return [(module, output > first) for module, output in stages_of_modules(self.network)]


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
    network = _features(options)
    levels = feature_levels(network).reduction()
    if len(levels) not in (4, 5):
        raise UserError(
            f"backbone.name: '{options.name}' has {len(levels)} feature levels, 4 or 5 are needed; "
            "choose another network"
        )
    whole = network.network if isinstance(network, Intermediates) else network
    digest = load_weights(whole, options.name, options.weights) if load else None
    mean, std = _colours(options)
    backbone = Backbone(network, mean, std, options.trainable_stages)
    published = PUBLISHED.get(options.weights, (None,))[0]
    backbone.loaded = LoadedWeights(options.weights, published, digest, tuple(mean), tuple(std))
    return backbone


def _features(options: BackboneOptions) -> nn.Module:
    """Build a network that gives its features at the options' stride.

    Raises:
        UserError: timm cannot build it so.
    """
    family = family_of(options.name)
    stride: dict[str, Any] = (
        {"output_stride": options.stride} if options.dilated and options.stride < 32 else {}
    )
    try:
        if family is None or family.kind == "levels":
            network = timm.create_model(
                options.name, pretrained=False, features_only=True, **stride
            )
        elif family.kind == "vit":
            return build_vit(options.name, options.stride)
        else:
            pyramid = build_pyramid(options.name, options.stride, family.arguments)
            lower_pyramid_strides(pyramid, options.stride, options.dilated)
            return pyramid
    except (RuntimeError, NotImplementedError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(
            f"backbone.name: '{options.name}' cannot be built ({error}); see timm.list_models()"
        ) from error
    if options.stride < 32 and not options.dilated:
        drop_strides(network, options.stride)
    return network


def backbone_channels(name: str) -> tuple[int, ...]:
    """Return the channels of the four stages of a timm network without filling its weights.

    Raises:
        UserError: the network is unknown.
    """
    with torch.device("meta"):
        network = build_backbone(
            BackboneOptions(name=name, weights="none", stride=32), load=False
        ).network
    return tuple(feature_levels(network).channels()[-4:])


def _colours(options: BackboneOptions) -> tuple[Sequence[float], Sequence[float]]:
    """Return the RGB mean and deviation in 0..255 that the weights were trained with."""
    if options.weights in PACKAGED:
        return PACKAGED[options.weights].mean, PACKAGED[options.weights].std
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
