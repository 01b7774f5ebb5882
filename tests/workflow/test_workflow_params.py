"""Stages and schema agree: names, defaults, and the way through shell and tyro and back."""

import dataclasses
import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro

from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.config.fields import schema_of
from brnf.config.generate import load_schema
from brnf.config.schema import complete, leaves
from brnf.workflow.idle import without_idle
from brnf.workflow.params import (
    STAGES,
    command_line,
    option_fields,
    option_names,
    stage_options,
)

GIVEN_BY_RULES = {
    "download_archives": {"addresses", "md5s"},
    "draw_masks": {"split"},
    "collect_masks": {"split"},
    "export_predictions": {"split", "tree"},
    "index_images": {"splits", "val", "measured", "state"},
    "pack_images": {"splits"},
    "train_base": {"split", "method", "seed"},
    "store_pixels": {"product"},
    "train_flow": {"seed"},
    "denoise_seeds": {"product"},
    "train_brnf": {"split", "seed", "seed_product"},
    "make_pseudo_labels": {"product"},
    "make_boundary_labels": {"product"},
    "train_boundaries": {"split", "seed"},
    "walk_pseudo_labels": {"product"},
    "train_segmentation": {"split", "seed", "all_masked"},
    "write_cam_model": {"product"},
    "evaluate": {"split", "product", "product_name", "model", "protocol", "seed", "labels"},
    "compare_models": {"models", "references", "paper"},
    "sweep_denoising": {
        "split",
        "product",
        "model",
        "protocol",
        "seed",
        "density",
        "xis",
        "shown_rule",
        "shown_xi",
    },
    "tabulate_sweeps": {"study", "rule", "xi"},
    "draw": {"split"},
}
CONSTANT = {
    "sweep_denoising": {"rules"},
    "evaluate": {"probability_product"},
    "report": {"title"},
    "measure_scaling": {"shares", "repeats", "seed"},
    "plan": {"at_once", "images"},
}
USED_BY_WORKFLOW = {
    ("name",),
    ("random_seeds",),
    ("device",),
    ("devices",),
    ("workers",),
    ("threads",),
    ("progress",),
    ("checkpoint_seconds",),
    ("deterministic",),
    ("tensorboard",),
    ("unstamped",),
    ("other_versions",),
    ("companions",),
    ("model_products",),
    ("variants",),
    ("dataset", "root"),
    ("dataset", "table"),
    ("dataset", "train"),
    ("dataset", "eval_split"),
    ("dataset", "val"),
    ("dataset", "test"),
    ("download", "voc12", "folder"),
    ("download", "voc12", "archives"),
    ("download", "voc12_test", "folder"),
    ("download", "voc12_test", "archives"),
    ("download", "sbd", "folder"),
    ("download", "sbd", "archives"),
    ("download", "coco14", "folder"),
    ("download", "coco14", "archives"),
    ("base", "method"),
    ("base", "seed_map"),
    ("base", "import", "folder"),
    ("brnf", "bsdnf"),
    ("brnf", "flow"),
    ("pseudo_labels", "seed_map"),
    ("pseudo_labels", "bsdnf"),
    ("pseudo_labels", "refine"),
    ("evaluate", "val_products"),
}


def defaults() -> Experiment:
    return Experiment(complete({"name": "x", "dataset": {}}, load_schema()))


def options_of(stage: str) -> Any:
    return importlib.import_module(f"brnf.stages.{stage}").Options


def fields(stage: str) -> dict[str, Any]:
    """Return the defaults of a stage's options by their flags: those of a section with a dot."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options_of(stage)):
        has_factory = field.default_factory is not dataclasses.MISSING
        found |= flat(field.name, field.default_factory() if has_factory else field.default)
    return found


def flat(name: str, value: Any) -> dict[str, Any]:
    """Return a value by its name, or those of a section by dotted names."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return {name: value}
    parts = [
        flat(f"{name}.{field.name}", getattr(value, field.name))
        for field in dataclasses.fields(value)
    ]
    return {key: entry for part in parts for key, entry in part.items()}


def parsed(stage: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what a stage gets from a command line, by dotted names."""
    found = tyro.cli(
        options_of(stage),
        args=shlex.split(command_line(options)),
        config=(tyro.conf.FlagConversionOff,),
    )
    return {
        key: entry
        for field in dataclasses.fields(found)
        for key, entry in flat(field.name, getattr(found, field.name)).items()
    }


def tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def models_of(stage: str) -> list[str]:
    return (
        ["brnf"]
        if stage == "train_brnf"
        else ["base", "brnf"]
        if stage == "denoise_seeds"
        else ["base"]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_option_names_are_read_from_the_source(stage: str) -> None:
    declared = [field.name for field in dataclasses.fields(options_of(stage))]
    assert option_names(stage) == tuple(declared)


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_is_a_key_or_given_by_the_rule(stage: str) -> None:
    for model in models_of(stage):
        found = stage_options(stage, defaults(), model, {})
        missing = set(fields(stage)) - set(found)
        assert missing - GIVEN_BY_RULES.get(stage, set()) == CONSTANT.get(stage, set())


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_of_schema_and_stage_are_equal(stage: str) -> None:
    for model in models_of(stage):
        for name, value in stage_options(stage, defaults(), model, {}).items():
            default = fields(stage)[name]
            if name in GIVEN_BY_RULES.get(stage, set()):
                continue
            if not name.startswith("bsdnf."):  # each round has its own
                assert tupled(value) == default, name


def test_every_key_reaches_a_stage_or_the_workflow() -> None:
    """Change one key after the other: the options of some stage must follow."""
    plain = {
        (stage, model): stage_options(stage, defaults(), model, {})
        for stage in STAGES
        for model in models_of(stage)
    }
    for path, _ in leaves(load_schema()):
        changed: dict[str, Any] = {path[-1]: "changed"}
        for key in reversed(path[:-1]):
            changed = {key: changed}
        experiment = Experiment(
            merged(defaults().settings, changed)
            if path not in USED_BY_WORKFLOW
            else defaults().settings
        )
        followed = any(
            stage_options(stage, experiment, model, {}) != options
            for (stage, model), options in plain.items()
        )
        assert followed != (path in USED_BY_WORKFLOW), ".".join(path)


@pytest.mark.parametrize("stage", STAGES)
def test_flags_round_trip_through_shell_and_tyro(stage: str) -> None:
    given: dict[str, Any] = {
        "split": "a split",
        "splits": ["one", "two"],
        "seed": 3,
        "model": "it's",
        "product": "prototype",
        "seed_product": "seeds",
        "addresses": ["one", "two"],
        "md5s": ["3", "4"],
    }
    names = option_names(stage)
    experiment = read_experiments(
        {
            "name": "x",
            "protocol": "bench",
            "dataset": {
                "kind": "scenes",
                "train": "train",
                "eval_split": "train",
                "classes": ["a b", "c"],
            },
            "base": {"steps": 5, "fit_classifier": True},
            "cam": {"image_long_side": 320, "scales": [1]},
            "flow": {"temperature": 2},
            "brnf": {"ccnf": False, "flow": {"blocks": 3}},
            "segmentation": {"scales": [0.5, 2]},
        }
    )["x"]
    for model in models_of(stage):
        options = stage_options(
            stage,
            experiment,
            model,
            {name: value for name, value in given.items() if name in names},
        )
        found = parsed(stage, options)
        for name, value in options.items():
            expected = str(value) if isinstance(found[name], str) else tupled(value)
            assert found[name] == expected, name


@pytest.mark.parametrize("stage", STAGES)
def test_each_key_of_a_section_arrives_under_its_own_name(stage: str) -> None:
    """Change one key after the other: the stage must see this change and no other."""
    model = models_of(stage)[-1]
    options = stage_options(stage, defaults(), model, given_to(stage))
    before = parsed(stage, options)
    for name in [name for name in options if "." in name]:
        value = another(stage, name, options[name])
        after = parsed(stage, options | {name: value})
        changed = {key: entry for key, entry in after.items() if entry != before[key]}
        assert changed == {name: tupled(value)}


def given_to(stage: str) -> dict[str, Any]:
    """Return what a rule gives to a stage, as far as the stage has no default for it."""
    declared = dataclasses.fields(options_of(stage))
    missing = dataclasses.MISSING
    required = {
        field.name
        for field in declared
        if field.default is missing and field.default_factory is missing
    }
    words = {"splits": ["one"], "addresses": ["one"], "md5s": ["two"], "images": []}
    return {name: words.get(name, "train") for name in required & GIVEN_BY_RULES.get(stage, set())}


def another(stage: str, name: str, value: Any) -> Any:
    """Return another value that an option may have."""
    field, *path = name.split(".")
    kind = option_fields(stage)[field]
    assert kind is not None
    part = schema_of(kind)
    for key in path:
        part = part["properties"][key]
    if "enum" in part:
        return next(choice for choice in part["enum"] if choice != value)
    if part["type"] == "array":
        return [*value[:-1], "other" if part["items"]["type"] == "string" else 3]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "other" if part["type"] in ("string", ["string", "null"]) else 3


@pytest.mark.parametrize(
    ("dataset", "left"),
    [
        ({"kind": "voc"}, set()),
        (
            {"kind": "coco", "labels_from": "masks"},
            {"dataset.labels_from", "dataset.overlap", "dataset.crowds"},
        ),
        (
            {"kind": "coco", "labels_from": "annotations"},
            {"dataset.labels_from", "dataset.crowds"},
        ),
    ],
)
def test_keys_of_coco_reach_the_index_where_they_have_an_effect(
    dataset: dict[str, str], left: set[str]
) -> None:
    experiment = Experiment(merged(defaults().settings, {"dataset": dataset}))
    options = without_idle("index_images", stage_options("index_images", experiment, "base", {}))
    assert set(options) & {"dataset.labels_from", "dataset.overlap", "dataset.crowds"} == left


def test_command_line_quotes_for_the_shell() -> None:
    options = {
        "tau_low": 0.3,
        "ccnf": True,
        "steps": None,
        "scales": [0.5, 1.0],
        "title": "a 'b' $c",
        "none": [],
    }
    words = [
        "--tau-low",
        "0.3",
        "--ccnf",
        "True",
        "--steps",
        "None",
        "--scales",
        "0.5",
        "1.0",
        "--title",
        "a 'b' $c",
        "--none",
    ]
    assert shlex.split(command_line(options)) == words


def test_rounds_take_their_own_denoising() -> None:
    settings = merged(defaults().settings, {"bsdnf": {"base": {"xi": 0.1}, "final": {"xi": 0.2}}})
    found = {
        model: stage_options("denoise_seeds", Experiment(settings), model, {})["bsdnf.xi"]
        for model in ("base", "brnf", "control")
    }
    assert found == {"base": 0.1, "brnf": 0.2, "control": 0.2}


def test_unknown_given_option_is_an_error() -> None:
    with pytest.raises(LookupError, match="no option colour"):
        stage_options("train_flow", defaults(), "base", {"colour": 1})


def test_a_stage_without_options_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "brnf" / "stages").mkdir(parents=True)
    (tmp_path / "brnf" / "stages" / "empty.py").write_text("x = 1\n")
    with pytest.raises(LookupError, match="no class Options"):
        option_names("empty", tmp_path)
