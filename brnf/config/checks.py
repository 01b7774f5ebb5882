"""What one key says about another, and the files that keys name: rules that no single field has."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from brnf.config.networks import can_dilate, network_fault, stage_strides, stride_fault
from brnf.config.studies import ABLATION_MODELS, SUPERVISED, lengthened
from brnf.config.words import words_file
from brnf.weights import WEIGHTS_OF, missing_file, weights_fault

__all__ = ["Fault", "contradictions", "is_address", "missing_data"]

Fault = tuple[str, str]
"""A key, such as ``dataset.root``, and what is wrong with its value."""
Settings = Mapping[str, Any]
SOURCES = {
    "voc": ("root", "", "the folder that holds VOC2012 or VOCdevkit/VOC2012"),
    "coco": ("root", "annotations", "the folder that holds annotations, train2014 and val2014"),
    "table": ("table", "", "a CSV file with the columns image, labels and optionally mask, split"),
}
"""Kind of data set -> the key that says where it is, what must be there, and what to set."""
OWN_SPLITS = {"scenes": "scenes have", "coco": "COCO 2014 has"}


def contradictions(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with completed settings whose every value is allowed by itself.

    Raises:
        UserError: the model base_long lacks a length.
    """
    return chain(
        _splits(settings["dataset"]),
        _models(settings),
        _base(settings["base"]),
        _networks(settings),
        _weights(settings),
        _head(settings),
        _devices(settings),
        _ranges(settings),
    )


def is_address(place: str | None) -> bool:
    """Return whether a data set lies where a storage plugin of Snakemake finds it, and no path.

    >>> is_address("s3://bucket/VOCdevkit"), is_address("data/VOCdevkit")
    (True, False)
    """
    return place is not None and "://" in place


def missing_data(dataset: Settings) -> Iterator[Fault]:
    """Yield what is wrong with the place of a data set, from section dataset; not where that is an
    address.
    """
    if dataset["kind"] not in SOURCES:
        return
    key, inside, wanted = SOURCES[dataset["kind"]]
    if is_address(dataset[key]):
        return
    place = None if dataset[key] is None else Path(dataset[key], inside)
    if place is None:
        yield f"dataset.{key}", f"missing; set it to {wanted}"
    elif not (place.is_file() if key == "table" else place.is_dir()):
        noun = "file" if key == "table" else "folder"
        yield f"dataset.{key}", f"no {noun} '{place}'; set it to {wanted}"


def _splits(dataset: Settings) -> Iterator[Fault]:
    has, test = OWN_SPLITS.get(dataset["kind"]), dataset["test"]
    if has:
        for key in ("train", "eval_split", "val"):
            if dataset[key] not in ("train", "val"):
                said = f"is '{dataset[key]}', must be train or val: {has} no other split"
                yield f"dataset.{key}", said
        if test is not None:
            yield "dataset.test", f"is '{test}', must be null: {has} no split without ground truth"
    if test is not None and test in (dataset["train"], dataset["eval_split"], dataset["val"]):
        said = f"is '{test}', which has ground truth; name a split without, or null"
        yield "dataset.test", said


def _models(settings: Settings) -> Iterator[Fault]:
    known = (*ABLATION_MODELS, SUPERVISED, *settings["variants"])
    for model in settings["models"]:
        if model not in known:
            said = f"unknown model '{model}'; known: {', '.join(known)}; add others to variants"
            yield "models", said
    if "base_long" in settings["models"]:
        lengthened(settings["base"], settings["brnf"])


def _base(base: Settings) -> Iterator[Fault]:
    """Yield what the source of the base seeds lacks. A folder in results may be one that the
    workflow is yet to export.
    """
    clip, folder = base["clip_es"], base["import"]["folder"]
    match base["method"]:
        case "sfc" if base["cache"]:
            said = "sfc sees random crops at two scales, which cannot be cached; set it to false"
            yield "base.cache", said
        case "import" if not folder:
            yield "base.import.folder", f"missing; set it to {IMPORTED}"
        case "import" if not (Path(folder).is_dir() or folder.startswith("results/")):
            yield "base.import.folder", f"no folder '{folder}'; set it to {IMPORTED}"
        case "clip_es" if missing := missing_file(clip["weights"]):
            said = f"no file {missing!r} that can be read; give CLIP's weights, or openai"
            yield "base.clip_es.weights", said
        case "clip_es" if not words_file(clip["words"]).is_file():
            wanted = "take voc, coco, or a YAML file with names and background"
            yield "base.clip_es.words", f"no file '{clip['words']}'; {wanted}"


IMPORTED = "the folder that holds <image id>.npy or .npz"


def _networks(settings: Settings) -> Iterator[Fault]:
    """Yield networks of timm that do not work, or not so."""
    backbone, segmenter = settings["backbone"], settings["segmentation"]["backbone"]
    name, stride = backbone["name"], backbone["stride"]
    for key, chosen in (("backbone.name", name), ("segmentation.backbone", segmenter)):
        if fault := network_fault(chosen):
            yield key, fault
    if fault := stride_fault(name, stride, backbone["dilated"]):
        yield "backbone.stride", fault
    if fault := stride_fault(segmenter, settings["segmentation"]["output_stride"], True):
        yield "segmentation.output_stride", fault
    if backbone["dilated"] and not can_dilate(name):
        said = f"must be false for {name}, whose strides cannot be replaced by dilation"
        yield "backbone.dilated", said
    first = stage_strides(name, stride)[0]
    if settings["pseudo_labels"]["refine"] == "random_walk" and first != BOUNDARY_STRIDE:
        said = f"random_walk needs a first stage of stride {BOUNDARY_STRIDE}, {name} has {first}"
        yield "pseudo_labels.refine", f"{said}; take crf or another backbone"


BOUNDARY_STRIDE = 4
"""Pixels between two boundary labels."""


def _weights(settings: Settings) -> Iterator[Fault]:
    for key, network in WEIGHTS_OF.items():
        section, name = network.split(".")
        if fault := weights_fault(settings[section][name], settings[section]["weights"]):
            yield key, fault


def _head(settings: Settings) -> Iterator[Fault]:
    size = settings["segmentation"]["batch_size"]
    if settings["segmentation"]["head"] == "aspp_concat" and size < 2:
        yield (
            "segmentation.batch_size",
            f"is {size}, must be at least 2 for the head aspp_concat, whose BatchNorm sees one "
            "mean an image",
        )


def _devices(settings: Settings) -> Iterator[Fault]:
    devices = settings["devices"]
    if devices > 1 and settings["device"] not in ("auto", "cpu"):
        said = f"must be auto or cpu where a training has {devices} devices"
        yield "device", f"is '{settings['device']}', {said}"


def _ranges(settings: Settings, path: str = "") -> Iterator[Fault]:
    """Yield pairs ``low``, ``high`` (or ``x_low``, ``x_high``) in which low is the larger one."""
    for name, value in settings.items():
        key = str(name)  # YAML reads the name of a companion as a number, too
        if isinstance(value, Mapping):
            yield from _ranges(value, f"{path}{key}.")
        upper = f"{key.removesuffix('low')}high"
        other = settings.get(upper)
        if (key == "low" or key.endswith("_low")) and other is not None and value > other:
            yield f"{path}{key}", f"is {value}, must not exceed {path}{upper} ({other})"
