"""The configuration of an experiment and its companions: merged, read, completed, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from brnf.config.generate import load_schema
from brnf.config.protocol import false_claim, protocol_of
from brnf.config.renamed import with_new_names
from brnf.config.schema import complete, merged, oversized, reread, violation
from brnf.config.studies import (
    ABLATION,
    ABLATION_MODELS,
    BASE_MODELS,
    at_point,
    kind_of,
    lengthened,
)
from brnf.config.words import words_file
from brnf.errors import UserError
from brnf.weights import WEIGHTS_OF, missing_file, weights_fault

__all__ = ["RUNTIME_KEYS", "Experiment", "merged", "read_experiments"]

RUNTIME_KEYS = ("device", "workers", "threads", "progress", "checkpoint_seconds")
"""Keys that change no result: they reach the stages behind Snakemake's back, so that changing one
reruns nothing.
"""
WORKFLOW_KEYS = ("keep_features", "devices")
"""Keys that the rules themselves read, and that change no result either: how long files live, how
many processes train together.
"""
OWN_SPLITS = {"scenes": "scenes have", "coco": "COCO 2014 has"}
CONTAINED = {"train_aug": ("train",)}
"""VOC's splits that hold the images of others."""


@dataclass(frozen=True)
class Experiment:
    """One completed and checked configuration.

    Attributes:
        settings: all keys of the schema.
    """

    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the name, which is the folder of its results."""
        return str(self.settings["name"])

    def record(self) -> dict[str, Any]:
        """Return what is written beside the results: all keys that can change them."""
        unrecorded = (*RUNTIME_KEYS, *WORKFLOW_KEYS, "companions", "download")
        return {key: value for key, value in self.settings.items() if key not in unrecorded}

    def yaml(self) -> str:
        """Return the record as YAML."""
        return str(
            yaml.safe_dump(self.record(), sort_keys=False, default_flow_style=None, width=140)
        )

    def at(self, model: str) -> "Experiment":
        """Return the experiment with the settings of a model such as ``brnf@xi-0.8``."""
        return Experiment(merged(self.settings, changes)) if (changes := at_point(model)) else self

    def network(self, model: str) -> Mapping[str, Any]:
        """Return the training settings of a model: section base, or section brnf with the variant's
        own values.
        """
        base, brnf, kind = self.settings["base"], self.settings["brnf"], kind_of(model)
        if kind in BASE_MODELS:
            return dict(base) if kind == "base" else lengthened(base, brnf)
        return merged(brnf, self.settings["variants"].get(kind, ABLATION.get(kind, {})))

    def online_flow(self, model: str) -> Mapping[str, Any]:
        """Return the settings of a BRNF network's online flow: section flow with the network's own
        values.
        """
        return merged(self.settings["flow"], self.network(model).get("flow", {}))

    def denoises(self, model: str) -> bool:
        """Return whether pseudo-labels of a model come from maps denoised by the flow; the base is
        the baseline without.
        """
        return kind_of(model) not in BASE_MODELS and bool(self.network(model)["bsdnf"])

    @property
    def trained_base(self) -> str:
        """Return what the base network is trained as: SIPE, too, where the base maps come from
        elsewhere.
        """
        return "sfc" if self.settings["base"]["method"] == "sfc" else "sipe"

    def seed_map(self, model: str) -> str:
        """Return which of a model's maps is its seed."""
        return str(
            self.settings["base" if kind_of(model) in BASE_MODELS else "pseudo_labels"]["seed_map"]
        )

    def seeds_of(self, model: str, denoised: bool) -> tuple[str, str]:
        """Return the folder of a model's seeds and the product that they are in its maps, before or
        after BSDNF.
        """
        return ("denoised", "seeds") if denoised else ("cams", self.seed_map(model))

    def splits(self) -> list[str]:
        """Return the splits to index, each once."""
        dataset = self.settings["dataset"]
        return list(
            dict.fromkeys(
                dataset[key]
                for key in ("train", "seeds", "val", "test")
                if dataset[key] is not None
            )
        )

    def computed_split(self, split: str) -> str:
        """Return the split whose shards hold the maps of ``split``: the training split when that
        contains it.
        """
        train = self.settings["dataset"]["train"]
        return (
            train
            if self.settings["dataset"]["kind"] == "voc" and split in CONTAINED.get(train, ())
            else split
        )


def read_experiments(config: Mapping[str, Any]) -> dict[str, Experiment]:
    """Read a configuration as Snakemake hands it over.

    Arguments:
        config: merged from files and ``--config``; nested values may still be strings.

    Returns:
        The experiment, then its companions, by name.

    Raises:
        UserError: a key or value is not allowed; names the key.
    """
    if oversized(config):
        raise UserError(
            "configuration: holds more values, or deeper sections, than any experiment needs; look "
            "for aliases (&, *) in it"
        )
    config = with_new_names(config)
    main = _read(config, "")
    experiments = {main.name: main}
    for name, overrides in main.settings["companions"].items():
        key = f"companions.{name}"
        for fixed in ("name", "companions", *RUNTIME_KEYS, *WORKFLOW_KEYS):
            if fixed in overrides:
                raise UserError(
                    f"configuration: {key}.{fixed}: cannot differ from the experiment's own; "
                    "remove it"
                )
        if name == main.name:
            raise UserError(
                f"configuration: {key}: has the name of the experiment itself; choose another"
            )
        experiments[name] = _read(
            merged(config, {**overrides, "name": name}) | {"companions": {}}, f"{key}: "
        )
    return experiments


def _read(config: Mapping[str, Any], where: str) -> Experiment:
    schema = load_schema()
    settings = complete(reread(config, schema), schema)
    found = (
        violation(settings, schema) or _read_overrides(settings) or _violated_between_keys(settings)
    )
    if found:
        path, description = found
        raise UserError(f"configuration: {where}{'.'.join(path)}: {description}")
    if claim := false_claim(settings):
        raise UserError(f"configuration: {where}protocol: {claim}")
    return Experiment({**settings, "protocol": protocol_of(settings)})


def _read_overrides(settings: dict[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Read, in place, the keys that hold other values for a whole section: ``variants`` for brnf,
    ``brnf.flow`` for flow.
    """
    sections = load_schema()["properties"]
    brnf = settings["brnf"]
    brnf["flow"] = reread(brnf["flow"], sections["flow"])
    found = violation(merged(settings["flow"], brnf["flow"]), sections["flow"])
    if found:
        return ("brnf", "flow", *found[0]), found[1]
    for name, overrides in settings["variants"].items():
        if name in ABLATION_MODELS:
            return ("variants", name), "is the name of a model of its own; choose another"
        settings["variants"][name] = variant = reread(overrides, sections["brnf"])
        found = violation(merged(brnf, variant), sections["brnf"])
        if found:
            return ("variants", name, *found[0]), found[1]
        variant_flow = merged(brnf["flow"], reread(variant.get("flow", {}), sections["flow"]))
        found = violation(merged(settings["flow"], variant_flow), sections["flow"])
        if found:
            return ("variants", name, "flow", *found[0]), found[1]
    return None


def _violated_between_keys(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Check what one key says about another, and the files that keys name."""
    dataset = settings["dataset"]
    kind = dataset["kind"]
    if kind == "voc" and (dataset["root"] is None or not Path(dataset["root"]).is_dir()):
        state = "missing" if dataset["root"] is None else f"no folder '{dataset['root']}'"
        return (
            "dataset",
            "root",
        ), f"{state}; set it to the folder that holds VOC2012 or VOCdevkit/VOC2012"
    if kind == "table" and (dataset["table"] is None or not Path(dataset["table"]).is_file()):
        state = "missing" if dataset["table"] is None else f"no file '{dataset['table']}'"
        return (
            ("dataset", "table"),
            f"{state}; set it to a CSV file with the columns image, labels and optionally mask, "
            "split",
        )
    if kind == "coco" and (
        dataset["root"] is None or not Path(dataset["root"], "annotations").is_dir()
    ):
        state = (
            "missing" if dataset["root"] is None else f"no folder '{dataset['root']}/annotations'"
        )
        return (
            "dataset",
            "root",
        ), f"{state}; set it to the folder that holds annotations, train2014 and val2014"
    if kind in OWN_SPLITS:
        for key in ("train", "seeds", "val"):
            if dataset[key] not in ("train", "val"):
                return (
                    "dataset",
                    key,
                ), f"is '{dataset[key]}', must be train or val: {OWN_SPLITS[kind]} no other split"
        if dataset["test"] is not None:
            return (
                ("dataset", "test"),
                f"is '{dataset['test']}', must be null: {OWN_SPLITS[kind]} no split without ground "
                "truth",
            )
    if dataset["test"] is not None and dataset["test"] in (
        dataset["train"],
        dataset["seeds"],
        dataset["val"],
    ):
        return (
            "dataset",
            "test",
        ), f"is '{dataset['test']}', which has ground truth; name a split without, or null"
    for model in settings["models"]:
        if model not in (*ABLATION_MODELS, *settings["variants"]):
            known = ", ".join((*ABLATION_MODELS, *settings["variants"]))
            return ("models",), f"unknown model '{model}'; known: {known}; add others to variants"
    if found := _violated_base(settings["base"]):
        return found
    for key, network in WEIGHTS_OF.items():
        section, name = network.split(".")
        if fault := weights_fault(settings[section][name], settings[section]["weights"]):
            return tuple(key.split(".")), fault
    size, devices = settings["segmentation"]["batch_size"], settings["devices"]
    if settings["segmentation"]["head"] == "aspp" and size // devices < 2:
        each = " for each device" if devices > 1 else ""
        return (
            (
                "segmentation",
                "batch_size",
            ),
            f"is {size}, must be at least 2{each} for the head aspp, whose BatchNorm sees one mean "
            "an image",
        )
    return _violated_sharing(settings) or _reversed_range(settings)


def _violated_sharing(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Check that the batches of trainings on several devices have equal shares."""
    devices = settings["devices"]
    if devices > 1 and settings["device"] not in ("auto", "cpu"):
        return (
            "device",
        ), f"is '{settings['device']}', must be auto or cpu where a training has {devices} devices"
    base = settings["base"]
    if base["method"] == "sfc" and (base["batch_size"] + base["sfc"]["drawn"]) % devices:
        return (
            "base",
            "batch_size",
        ), f"is {base['batch_size']}, must with base.sfc.drawn be divisible by devices ({devices})"
    sections: dict[tuple[str, ...], Any] = {
        ("base",): base,
        ("brnf",): settings["brnf"],
        ("segmentation",): settings["segmentation"],
    }
    sections |= {
        ("variants", name): {**settings["brnf"], **changes}
        for name, changes in settings["variants"].items()
    }
    for path, section in sections.items():
        if section["batch_size"] % devices and not (path == ("base",) and base["method"] == "sfc"):
            return (
                *path,
                "batch_size",
            ), f"is {section['batch_size']}, must be divisible by devices ({devices})"
    return None


def _violated_base(base: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Check what the source of the base seeds needs. A folder in results may be one that the
    workflow is yet to export.
    """
    if base["method"] == "sfc" and base["cache"]:
        return (
            "base",
            "cache",
        ), "sfc sees random crops at two scales, which cannot be kept; set it to false"
    folder = base["import"]["folder"]
    if base["method"] == "import" and not (
        folder and (Path(folder).is_dir() or folder.startswith("results/"))
    ):
        state = "missing" if folder is None else f"no folder '{folder}'"
        return (
            "base",
            "import",
            "folder",
        ), f"{state}; set it to the folder that holds <image id>.npy or .npz"
    if base["method"] == "clip_es" and (missing := missing_file(base["clip_es"]["weights"])):
        return (
            "base",
            "clip_es",
            "weights",
        ), f"no file {missing!r} that can be read; give CLIP's weights, or openai"
    if base["method"] == "clip_es" and not words_file(base["clip_es"]["words"]).is_file():
        words = base["clip_es"]["words"]
        return (
            "base",
            "clip_es",
            "words",
        ), f"no file '{words}'; take voc, coco, or a YAML file with names and background"
    return None


def _reversed_range(
    settings: Mapping[str, Any], path: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], str] | None:
    """Find a pair ``low``, ``high`` (or ``x_low``, ``x_high``) in which the lower value is the
    larger one.
    """
    for key, value in settings.items():
        key = str(key)  # YAML reads the name of a companion as a number, too
        if isinstance(value, Mapping):
            found = _reversed_range(value, (*path, key))
            if found:
                return found
        other = settings.get(key.removesuffix("low") + "high")
        if (key == "low" or key.endswith("_low")) and other is not None and value > other:
            return (
                (*path, key),
                f"is {value}, must not exceed "
                f"{'.'.join((*path, key.removesuffix('low') + 'high'))} ({other})",
            )
    return None
