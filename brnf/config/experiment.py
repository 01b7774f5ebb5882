"""The configuration of an experiment and its companions: merged, read, completed, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from brnf.config.checks import Fault, contradictions, missing_data
from brnf.config.generate import load_schema
from brnf.config.protocol import false_claim, protocol_of
from brnf.config.renamed import Sources, with_new_names
from brnf.config.schema import complete, merged, oversized, reread, violation
from brnf.config.sections.flow import FlowInTraining
from brnf.config.studies import (
    ABLATION,
    ABLATION_MODELS,
    BASE_MODELS,
    SUPERVISED,
    at_point,
    kind_of,
    lengthened,
)
from brnf.errors import UserError

__all__ = ["RUNTIME_KEYS", "Experiment", "merged", "read_experiments"]

RUNTIME_KEYS = (
    *("device", "workers", "threads", "progress", "checkpoint_seconds"),
    *("deterministic", "tensorboard"),
)
"""Keys that change no result: they reach the stages behind Snakemake's back, so that changing one
reruns nothing.
"""
WORKFLOW_KEYS = ("keep_features", "devices", "unstamped", "other_versions")
"""Keys that the rules themselves read, and that change no result either: how long files live, how
many processes train together, what happens to results of unknown origin or of other versions.
"""
COMPANION_OF = "# companion of "
"""Begins the record of a companion, before the name of the experiment that it runs beside."""
ONLINE = {field.name for field in fields(FlowInTraining)}
"""Keys of section flow that a flow has which learns along with a network."""
CONTAINED = {"train_aug": ("train",)}
"""VOC's splits that hold the images of others."""


@dataclass(frozen=True)
class Experiment:
    """One completed and checked configuration.

    Attributes:
        settings: all keys of the schema.
        companion_of: name of the experiment beside which this one runs, if any.
    """

    settings: Mapping[str, Any]
    companion_of: str = ""

    @property
    def name(self) -> str:
        """Return the name, which is the folder of its results."""
        return str(self.settings["name"])

    def record(self) -> dict[str, Any]:
        """Return what is written beside the results: all keys that can change them."""
        unrecorded = (*RUNTIME_KEYS, *WORKFLOW_KEYS, "companions", "download")
        return {key: value for key, value in self.settings.items() if key not in unrecorded}

    def yaml(self) -> str:
        """Return the record as YAML; a companion's says whose it is."""
        head = f"{COMPANION_OF}{self.companion_of}\n" if self.companion_of else ""
        return head + str(
            yaml.safe_dump(self.record(), sort_keys=False, default_flow_style=None, width=140)
        )

    def check_data(self) -> None:
        """Check that the data set is there.

        Raises:
            UserError: names the key.
        """
        for key, said in missing_data(self.settings["dataset"]):
            where = f"companions.{self.name}: " if self.companion_of else ""
            raise UserError(f"configuration: {where}{key}: {said}")

    def check_owner(self, results: Path) -> None:
        """Check that the results of a companion are not those of another experiment's companion.

        Arguments:
            results: folder of all results.

        Raises:
            UserError: they are; names the experiment.
        """
        record = results / self.name / "config.yaml"
        first = record.read_text(encoding="utf-8").split("\n", 1)[0] if record.is_file() else ""
        owner = first.removeprefix(COMPANION_OF)
        if self.companion_of and first != owner != self.companion_of:
            raise UserError(
                f"{record.parent}: is the companion of experiment '{owner}'; give it another name "
                f"in companions of '{self.companion_of}', or set companions=null"
            )

    def at(self, model: str) -> "Experiment":
        """Return the experiment with the settings of a model such as ``brnf@xi-0.8``."""
        changes = at_point(model)
        return replace(self, settings=merged(self.settings, changes)) if changes else self

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
        """Return whether a model has the component BSDNF; the base is the baseline without."""
        return kind_of(model) not in (*BASE_MODELS, SUPERVISED) and bool(
            self.network(model)["bsdnf"]
        )

    def labels_denoised(self, model: str) -> bool:
        """Return whether pseudo-labels of a model come from maps denoised by its flow."""
        return self.denoises(model) and bool(self.settings["pseudo_labels"]["bsdnf"])

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
                for key in ("train", "eval_split", "val", "test")
                if dataset[key] is not None
            )
        )

    def measured_splits(self) -> list[str]:
        """Return the splits on which results are measured, each once."""
        dataset = self.settings["dataset"]
        return list(dict.fromkeys((dataset["eval_split"], dataset["val"])))

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


def read_experiments(
    config: Mapping[str, Any], data: bool = True, sources: Sources = tuple
) -> dict[str, Experiment]:
    """Read a configuration as Snakemake hands it over.

    Arguments:
        config: merged from files and ``--config``; nested values may still be strings.
        data: whether the data sets have to be there; see :meth:`Experiment.check_data`.
        sources: returns what the configuration was merged from; see
            :func:`brnf.config.renamed.with_new_names`.

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
    config = with_new_names(config, sources)
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
        companion = _read(
            merged(config, {**overrides, "name": name}) | {"companions": {}}, f"{key}: "
        )
        experiments[name] = replace(companion, companion_of=main.name)
    for experiment in experiments.values() if data else ():
        experiment.check_data()
    return experiments


def _read(config: Mapping[str, Any], where: str) -> Experiment:
    schema = load_schema()
    settings = complete(reread(config, schema), schema)
    fault = violation(settings, schema) or _read_overrides(settings)
    if fault := fault or next(contradictions(settings), None):
        key, said = fault
        raise UserError(f"configuration: {where}{key}: {said}")
    if claim := false_claim(settings):
        raise UserError(f"configuration: {where}protocol: {claim}")
    return Experiment({**settings, "protocol": protocol_of(settings)})


def _read_overrides(settings: dict[str, Any]) -> Fault | None:
    """Read, in place, the keys that hold other values for a whole section: ``variants`` for brnf,
    ``brnf.flow`` for flow.
    """
    sections = load_schema()["properties"]
    settings["variants"] = sections["variants"]["default"] | settings["variants"]
    brnf, flow, variants = settings["brnf"], settings["flow"], settings["variants"]
    brnf["flow"] = reread(brnf["flow"], sections["flow"])
    judged = [("brnf.flow", merged(flow, brnf["flow"]), "flow")]
    online = [("brnf.flow", brnf["flow"])]
    for name, overrides in variants.items():
        if name in (*ABLATION_MODELS, SUPERVISED):
            return f"variants.{name}", "is the name of a model of its own; choose another"
        variants[name] = variant = reread(overrides, sections["brnf"])
        own = merged(brnf["flow"], reread(variant.get("flow", {}), sections["flow"]))
        online.append((f"variants.{name}.flow", variant.get("flow", {})))
        judged.append((f"variants.{name}", merged(brnf, variant), "brnf"))
        judged.append((f"variants.{name}.flow", merged(flow, own), "flow"))
    for where, overrides in online:
        for key in overrides.keys() & (sections["flow"]["properties"].keys() - ONLINE):
            said = (
                f"has no effect: the flow that learns along with a network has no {key}; remove it"
            )
            return f"{where}.{key}", said
    for where, section, kind in judged:
        if fault := violation(section, sections[kind]):
            return f"{where}.{fault[0]}", fault[1]
    return None
