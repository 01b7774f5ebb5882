"""From the backbone's features to logits: the two heads that the base papers call DeepLabV2."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["AsppHead", "AtrousHead"]


class AtrousHead(nn.Module):
    """Add up 3x3 convolutions of several dilations, each from the features straight to the logits.

    Arguments:
        channels: of the features.
        classes: K, background included.
        rates: dilation of each convolution.

    References:
        Chen et al., DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
            Convolution, and Fully
        Connected CRFs, TPAMI 2018 (ASPP-L).
    """

    def __init__(self, channels: int, classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, std=0.01)
            else:
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [N, K, h, w] of features [N, channels, h, w]."""
        # Without a gradient MKL is faster by the convolutions (44 ms to 59), oneDNN by the one
        # product (30 to 42).
        if torch.is_grad_enabled():
            return self._by_one_product(features)
        logits = self.convolutions[0](features)
        for convolution in self.convolutions[1:]:
            logits = logits + convolution(features)
        found: Tensor = logits
        return found

    def _by_one_product(self, features: Tensor) -> Tensor:
        """Return the same by one 1x1 convolution for all offsets of all dilations, whose results
        are moved by these and added up.

        Few classes make a 3x3 convolution whose gradient is slow: the whole head learns 3 times as
        fast so, in bfloat16, and 1.4 times in float32.
        """
        layers: list[nn.Conv2d] = list(self.convolutions)  # type: ignore[arg-type]
        # What an offset contributes is moved against it, and fold moves along: hence the flip.
        weights = [layer.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) for layer in layers]
        products = F.conv2d(features, torch.cat(weights)[:, :, None, None])
        products = products.to(torch.promote_types(products.dtype, torch.float32)).flatten(2)
        # A sum over stacked biases would give them one gradient in common memory, to which a second
        # batch of the same step would be added once for each.
        biases = [layer.bias for layer in layers if layer.bias is not None]
        logits = functools.reduce(torch.add, biases).view(-1, 1, 1)
        for layer, part in zip(layers, products.chunk(len(layers), 1), strict=True):
            logits = logits + F.fold(
                part, features.shape[2:], 3, dilation=layer.dilation, padding=layer.dilation
            )
        return logits


class AsppHead(nn.Module):
    """Concatenate atrous convolutions and the image's mean, fuse them, and classify: the head of
    HSC's segmentation code.

    Each branch is convolution, BatchNorm and ReLU of the same width; the branch of the mean sees
    1x1. A 1x1 convolution fuses the branches, dropout stands before and after the fused features
    leave, and a last 1x1 convolution gives the logits. The published optimiser holds the
    convolutions only, so BatchNorm keeps scale 1 and shift 0 and only its statistics follow the
    data.

    Arguments:
        channels: of the features.
        classes: K, background included.
        rates: dilation of each 3x3 convolution.
        width: channels of a branch and of the fused features; HSC has 256.
        momentum: share of a batch in the running statistics of BatchNorm; HSC has 0.0003, far too
            little for a few hundred steps.

    References:
        Wu et al., Hierarchical Semantic Contrast for Weakly Supervised Semantic Segmentation, IJCAI
        2023, and its code base (DeepLabV2 as in the SEAM authors' segmentation code base).
    """

    DROPOUT = 0.5

    def __init__(
        self, channels: int, classes: int, rates: Sequence[int], width: int, momentum: float
    ) -> None:
        super().__init__()
        dilated = [
            nn.Conv2d(channels, width, 3, padding=rate, dilation=rate, bias=False) for rate in rates
        ]
        self.branches = nn.ModuleList(_normalised(convolution, momentum) for convolution in dilated)
        self.mean_branch = _normalised(nn.Conv2d(channels, width, 1, bias=False), momentum)
        self.fuse = _normalised(nn.Conv2d(width * (len(rates) + 1), width, 1, bias=False), momentum)
        # Two in a row as published: together they drop three quarters of the fused channels.
        self.dropout = nn.Sequential(nn.Dropout(self.DROPOUT), nn.Dropout(self.DROPOUT))
        self.classifier = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _BatchNorm):
                module.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [N, K, h, w] of features [N, channels, h, w]; training needs N >= 2."""
        mean = self.mean_branch(features.mean((2, 3), keepdim=True)).expand(
            -1, -1, *features.shape[2:]
        )
        fused = self.fuse(torch.cat([*(branch(features) for branch in self.branches), mean], 1))
        found: Tensor = self.classifier(self.dropout(fused))
        return found


def _normalised(convolution: nn.Conv2d, momentum: float) -> nn.Sequential:
    """Put BatchNorm and ReLU behind a convolution."""
    return nn.Sequential(
        convolution, nn.BatchNorm2d(convolution.out_channels, momentum=momentum), nn.ReLU()
    )
