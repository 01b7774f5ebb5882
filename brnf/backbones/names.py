"""Names of tensors in other people's ResNet files, brought to those of timm and torchvision."""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["is_converted_from_caffe", "timm_names"]

WRAPPERS = ("module.", "backbone.", "base.", "scale.", "Scale.")
"""What data-parallel training, torchvision's DeepLab and the PyTorch code bases of DeepLabV2 put
before a backbone's names.
"""
CAFFE_WRAPPERS = ("scale.", "Scale.")
STEM = re.compile(r"layer1\.conv1\.(conv|bn)\.(\w+)\Z")
BLOCK = re.compile(
    r"layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut|proj)\.(conv|bn)\.(\w+)\Z"
)
POSITION = {"reduce": "1", "conv3x3": "2", "increase": "3"}


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a state dictionary; names that nobody knows stay as they are.

    Known are those of timm and torchvision behind any of :data:`WRAPPERS`, and those of the PyTorch
    code base of DeepLabV2 in which CLIP-ES trains its segmentation
    (``layer2.block1.reduce.conv.weight`` is ``layer1.0.conv1.weight``).

    Arguments:
        state: name -> tensor.
    """
    return {_timm_name(_unwrapped(name)): value for name, value in state.items()}


def is_converted_from_caffe(state: Mapping[str, Tensor]) -> bool:
    """Tell from the names whether the weights come from DeepLabV2's Caffe model: their network sees
    blue first.
    """
    return any(name.startswith(CAFFE_WRAPPERS) or STEM.match(_unwrapped(name)) for name in state)


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _timm_name(name: str) -> str:
    if found := STEM.match(name):
        kind, value = found.groups()
        return f"{kind}1.{value}"
    if found := BLOCK.match(name):
        stage, block, part, kind, value = found.groups()
        place = f"layer{int(stage) - 1}.{int(block) - 1}"
        if part in POSITION:
            return f"{place}.{kind}{POSITION[part]}.{value}"
        return f"{place}.downsample.{0 if kind == 'conv' else 1}.{value}"
    return name
