"""The configuration: defaults, reading of nested strings, one-line errors, and experiments that do
not leak into each other.
"""

from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from brnf.config.experiment import merged, read_experiments
from brnf.config.fields import schema_of
from brnf.config.generate import load_schema
from brnf.config.schema import complete, leaves, reread
from brnf.config.sections.experiment import Experiment as Keys
from brnf.config.sections.flow import Flow, FlowInTraining
from brnf.config.studies import ABLATION
from brnf.errors import UserError
from brnf.workflow.params import stage_options

CONFIG = Path(__file__).parents[2] / "config"
SCENES: dict[str, Any] = {
    "name": "x",
    "dataset": {"kind": "scenes", "train": "train", "eval_split": "train"},
}


def settings_of(**changes: Any) -> dict[str, Any]:
    return dict(read_experiments(merged(SCENES, changes))["x"].settings)


def message_of(config: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        read_experiments(config)
    return str(error.value)


def at(settings: Any, path: str) -> Any:
    for key in path.split("."):
        settings = settings[key]
    return settings


def test_schema_itself_is_valid_and_closed() -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)

    def sections(part: Any, path: str = "") -> Any:
        yield path, part
        for key, entry in part["properties"].items():
            if "properties" in entry:
                yield from sections(entry, f"{path}.{key}")

    assert all(part["additionalProperties"] is False for _, part in sections(schema))
    described = schema_of(Keys, described=True)
    assert all(part.get("description") for _, part in leaves(described))
    assert all("default" in part for path, part in leaves(schema) if path != ("name",))


@pytest.mark.parametrize("key", sorted({f.name for f in fields(Flow)}))
@pytest.mark.parametrize("variant", [False, True])
def test_a_key_of_the_online_flow_has_an_effect_or_is_refused(key: str, variant: bool) -> None:
    values = {"decay": "cosine", "noise_unit": "std", "coupling": "glow", "density": "gmm"}
    value: Any = values.get(key, 0.125 if isinstance(getattr(Flow(), key), float) else 3)
    value = {"learn_means": False, "balanced": True, "tau": {"low": 0.2}}.get(key, value)
    changes: dict[str, Any] = {"flow": {key: value}}
    config = merged(SCENES, {"variants": {"own": changes}} if variant else {"brnf": changes})
    where = "variants.own.flow" if variant else "brnf.flow"
    if key not in {field.name for field in fields(FlowInTraining)}:
        said = message_of(config)
        assert said.startswith(f"configuration: {where}.{key}: has no effect: ")
        return
    model = "own" if variant else "brnf"
    options = stage_options("train_brnf", read_experiments(config)["x"], model, {})
    plain = stage_options("train_brnf", read_experiments(SCENES)["x"], "brnf", {})
    changed = {name for name in plain if options[name] != plain[name]}
    assert changed == {"flow.tau.low" if key == "tau" else f"flow.{key}"}


# the paper's values of docs/method.md: sections 2, 4 to 9
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("backbone.name", "resnet50"),
        ("backbone.stride", 16),
        ("cam.scales", [0.5, 1.0, 1.5, 2.0]),
        ("cam.side_widths", [128, 128, 256, 256]),
        ("base.batch_size", 16),
        ("base.epochs", 5),
        ("base.learning_rate", 0.1),
        ("base.head_learning_rate", 1.0),
        ("base.momentum", 1e-4),
        ("base.crop", 512),
        ("flow.tau.low", 0.3),
        ("flow.tau.high", 0.7),
        ("flow.coupling", "one_sided"),
        ("flow.batch_rows", 20480),
        ("flow.temperature", "auto"),
        ("bsdnf.base.rule", "posterior"),
        ("bsdnf.final.rule", "quantile"),
        ("bsdnf.base.xi", 0.9),
        ("bsdnf.final.xi", 0.9),
        ("brnf.lambda_gui", 1.0),
        ("brnf.lambda_cal", 3.0),
        ("brnf.lambda_nce", 0.3),
        ("brnf.bank_region", 500),
        ("pseudo_labels.crf.bilateral_sigma_xy", 67.0),
        ("segmentation.backbone", "resnet101"),
        ("segmentation.rates", [6, 12, 18, 24]),
        ("segmentation.crop", 448),
        ("segmentation.batch_size", 10),
        ("segmentation.iterations", 20000),
        ("segmentation.test.scales", [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]),
        ("evaluate.recall", 0.7),
    ],
)
def test_defaults_are_the_papers(path: str, value: Any) -> None:
    assert at(settings_of(), path) == value


def test_voc12_changes_no_setting_of_the_method(tmp_path: Path) -> None:
    config = yaml.safe_load((CONFIG / "voc12.yaml").read_text())
    config["dataset"]["root"] = str(tmp_path)
    settings = read_experiments(config)["voc12"].settings
    default = complete({"name": "voc12", "dataset": {}}, load_schema())
    changed = {key for key in settings if settings[key] != default[key]}
    assert changed <= {"protocol", "dataset", "shards", "workers", "threads"}
    assert {
        key for key in settings["dataset"] if settings["dataset"][key] != default["dataset"][key]
    } == {"root"}


def test_coco14_changes_no_setting_but_the_papers_own_for_coco(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    config = yaml.safe_load((CONFIG / "coco14.yaml").read_text())
    config["dataset"]["root"] = str(tmp_path)
    settings = read_experiments(config)["coco14"].settings
    default = complete({"name": "coco14", "dataset": {}}, load_schema())
    changed = {key for key in settings if settings[key] != default[key]}
    assert changed == {
        *("protocol", "dataset", "shards", "workers", "threads"),
        "cam",  # whose maps are stored at stride 4, for the disk
        *("pseudo_labels", "segmentation"),  # see tests/reference/test_reference_settings.py
    }
    assert settings["dataset"] == default["dataset"] | {
        "kind": "coco",
        "negatives": False,
        "root": str(tmp_path),
        "train": "train",
    }


@pytest.mark.parametrize(
    ("given_", "path", "value"),
    [
        ({"base": {"steps": "7"}}, "base.steps", 7),
        ({"base": {"steps": "null"}}, "base.steps", None),
        ({"bsdnf": {"final": {"xi": "0.5"}}}, "bsdnf.final.xi", 0.5),
        ({"bsdnf": {"final": {"xi": "1"}}}, "bsdnf.final.xi", 1.0),
        ({"base": {"learning_rate": "1e-3"}}, "base.learning_rate", 1e-3),
        ({"brnf": {"ccnf": "False"}}, "brnf.ccnf", False),
        ({"brnf": {"ccnf": "true"}}, "brnf.ccnf", True),
        ({"cam": {"scales": ["0.5", "1", "2"]}}, "cam.scales", [0.5, 1.0, 2.0]),
        ({"random_seeds": ["0", "1"]}, "random_seeds", [0, 1]),
        ({"flow": {"temperature": "12.5"}}, "flow.temperature", 12.5),
        ({"flow": {"temperature": "auto"}}, "flow.temperature", "auto"),
        (
            {"dataset": {"classes": ["1", "true"]}},
            "dataset.classes",
            ["1", "true"],
        ),  # strings stay strings
        ({"flow": None}, "flow.blocks", 8),  # an empty section of a file
        ({"brnf": {"flow": {"blocks": "3"}}}, "brnf.flow", {"blocks": 3}),
        ({"variants": {"light": {"lambda_cal": "2"}}}, "variants.light.lambda_cal", 2.0),
    ],
)
def test_nested_strings_are_read_by_the_schema(
    given_: dict[str, Any], path: str, value: Any
) -> None:
    found = at(settings_of(**given_), path)
    assert found == value and type(found) is type(value)


@given(st.floats(min_value=0, max_value=1))
def test_reading_a_number_gives_the_number(value: float) -> None:
    assert reread({"bsdnf": {"base": {"xi": repr(value)}}}, load_schema()) == {
        "bsdnf": {"base": {"xi": value}}
    }


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"flwo": {}}, ["flwo: unknown key", "did you mean 'flow'?"]),
        ({"flow": {"xi": 0.5}}, ["flow.xi: unknown key", "bsdnf.base.xi or bsdnf.final.xi"]),
        ({"bsdnf": {"final": {"xi": 1.5}}}, ["bsdnf.final.xi: is 1.5, must be at most 1"]),
        (
            {"bsdnf": {"final": {"rule": "quantil"}}},
            [
                "bsdnf.final.rule",
                "one of quantile, likelihood, posterior, ratio",
                "did you mean 'quantile'?",
            ],
        ),
        ({"base": {"epochs": 2.5}}, ["base.epochs: is 2.5, must be an integer"]),
        ({"base": {"epochs": "many"}}, ["base.epochs: is 'many', must be an integer"]),
        ({"base": {"epochs": True}}, ["base.epochs: is true, must be an integer"]),
        (
            {"base": {"learning_rate": float("nan")}},
            ["base.learning_rate: is nan, must be a finite number"],
        ),
        (
            {"base": {"learning_rate": "inf"}},
            ["base.learning_rate: is inf, must be a finite number"],
        ),
        ({"base": 3}, ["base: is 3, must be a section of keys"]),
        ({"brnf": {"ccnf": "perhaps"}}, ["brnf.ccnf: is 'perhaps', must be true or false"]),
        ({"random_seeds": []}, ["random_seeds: is [], must be at least 1 long"]),
        ({"random_seeds": [1, 1]}, ["random_seeds: is [1, 1], must be without repetition"]),
        ({"cam": {"scales": [1.0, -1]}}, ["cam.scales.1: is -1.0, must be greater than 0"]),
        (
            {"flow": {"temperature": "hot"}},
            ["flow.temperature: is 'hot', must be auto or a number"],
        ),
        ({"flow": {"temperature": "0"}}, ["flow.temperature: is 0.0, must be greater than 0"]),
        ({"flow": {"temperature": "inf"}}, ["flow.temperature: is inf, must be a finite number"]),
        (
            {"flow": {"tau": {"low": 0.8}}},
            ["flow.tau.low: is 0.8, must not exceed flow.tau.high (0.7)"],
        ),
        (
            {"base": {"resize_low": 700}},
            ["base.resize_low: is 700, must not exceed base.resize_high (640)"],
        ),
        (
            {"models": ["base", "mine"]},
            ["models: unknown model 'mine'; known: base, base_long, only_guidance"],
        ),
        (
            {"variants": {"mine": {"ccfn": False}}},
            ["variants.mine.ccfn: unknown key; did you mean 'ccnf'?"],
        ),
        ({"variants": {"base": {}}}, ["variants.base: is the name of a model"]),
        (
            {"variants": {"mine": {"flow": {"blocks": 0}}}},
            ["variants.mine.flow.blocks: is 0, must be at least 1"],
        ),
        (
            {"brnf": {"flow": {"block": 2}}},
            ["brnf.flow.block: unknown key; did you mean 'blocks'?"],
        ),
        (
            {"dataset": {"eval_split": "train_aug"}},
            ["dataset.eval_split: is 'train_aug', must be train or val"],
        ),
        ({"dataset": {"kind": "voc", "root": "nowhere"}}, ["dataset.root: no folder 'nowhere'"]),
        ({"dataset": {"kind": "voc"}}, ["dataset.root: missing"]),
        (
            {"dataset": {"kind": "coco", "root": "nowhere"}},
            ["dataset.root: no folder 'nowhere/annotations'", "annotations, train2014"],
        ),
        ({"dataset": {"kind": "coco"}}, ["dataset.root: missing"]),
        (
            {"dataset": {"test": "test"}},
            ["dataset.test: is 'test', must be null: scenes have no split without ground truth"],
        ),
        (
            {"dataset": {"kind": "voc", "root": ".", "test": "val"}},
            ["dataset.test: is 'val', which has ground truth"],
        ),
        (
            {"download": {"coco14": {"archives": []}}},
            ["download.coco14.archives: is [], must be at least 1 long"],
        ),
        (
            {"download": {"voc12": {"archives": [{"address": "http://a/b.zip", "md5": "12"}]}}},
            ["download.voc12.archives.0.md5: is '12'"],
        ),
        ({"dataset": {"kind": "table", "table": "no.csv"}}, ["dataset.table: no file 'no.csv'"]),
        ({"backbone": {"weights": "no.pth"}}, ["backbone.weights: no file 'no.pth'"]),
        (
            {"backbone": {"weights": "imagenet"}},
            [
                "backbone.weights: 'imagenet' does not say which",
                "resnet50.a1_in1k",
                "(the code bases': resnet50.tv_in1k)",
            ],
        ),
        (
            {"segmentation": {"weights": "imagenet"}},
            ["segmentation.weights: 'imagenet' does not say which", "resnet101.tv_in1k"],
        ),
        (
            {"backbone": {"name": "resnet34"}},
            [
                "backbone.weights: 'resnet50.tv_in1k' belongs to resnet50, not resnet34; name one "
                "of",
                "resnet34.tv_in1k",
            ],
        ),
        (
            {"backbone": {"weights": "imagenet", "name": "resnet0"}},
            ["timm has none for resnet0; give a file, or none"],
        ),
        (
            {"backbone": {"name": "vgg16", "weights": "none"}},
            ["backbone.name: 'vgg16' is none of the networks that work", "Swin", "DINOv2"],
        ),
        (
            {"segmentation": {"backbone": "no\nnet"}},
            ["segmentation.backbone: is 'no\\nnet', which holds control"],
        ),
        (
            {"backbone": {"name": "starnet_s1", "weights": "none"}},
            ["backbone.stride: is 16, must be 32 for starnet_s1"],
        ),
        (
            {"backbone": {"name": "cspnext_s", "weights": "none"}},
            ["backbone.stride: is 16, must be 32 for cspnext_s, or backbone.dilated true"],
        ),
        (
            {"segmentation": {"backbone": "starnet_s1", "weights": "none"}},
            ["segmentation.output_stride: is 8, must be 32 for starnet_s1"],
        ),
        (
            {"backbone": {"name": "pvt_v2_b0", "weights": "none", "dilated": True}},
            ["backbone.dilated: must be false for pvt_v2_b0"],
        ),
        (
            {
                "backbone": {"name": "vit_tiny_patch16_224", "weights": "none"},
                "pseudo_labels": {"refine": "random_walk"},
            },
            ["pseudo_labels.refine: random_walk needs a first stage of stride 4"],
        ),
        (
            {"segmentation": {"weights": "efficientnet_lite0"}},
            [
                "segmentation.weights: 'efficientnet_lite0' belongs to tf_efficientnet_lite0, not "
                "resnet101"
            ],
        ),
        (
            {"backbone": {"weights": "weights.v2"}},
            ["backbone.weights: 'weights.v2' belongs to weights, not resnet50"],
        ),
        (
            {"base": {"method": "clip_es", "clip_es": {"weights": "clip/ViT-B-16.pt"}}},
            ["base.clip_es.weights: no file 'clip/ViT-B-16.pt' that can be read"],
        ),
        (
            {"protocol": "paper"},
            [
                "protocol: is paper, but",
                "keys differ from the paper's setting (config/voc12.yaml): dataset.kind",
            ],
        ),
        (
            {"dataset": {"kind": "voc", "root": "."}, "protocol": "scenes"},
            ["protocol: is scenes, but dataset.kind is voc"],
        ),
        ({"segmentation": {"weights": "caffe:no.pth"}}, ["segmentation.weights: no file 'no.pth'"]),
        (
            {"segmentation": {"head": "aspp_concat", "batch_size": 1}},
            ["segmentation.batch_size: is 1, must be at least 2 for the head aspp_concat"],
        ),
        (
            {"companions": {"y": {"flow": {"blocks": 0}}}},
            ["companions.y: flow.blocks: is 0, must be at least 1"],
        ),
        ({"companions": {"y": {"threads": 2}}}, ["companions.y.threads: cannot differ"]),
        ({"companions": {"x": {}}}, ["companions.x: has the name of the experiment itself"]),
        ({"device": "cuda 1"}, ["device: is 'cuda 1', must be auto, cpu, cuda or cuda:1"]),
        (
            {"device": "cuda:1", "devices": 2},
            ["device: is 'cuda:1', must be auto or cpu where a training has 2 devices"],
        ),
        (
            {"device": "cuda", "devices": 2},
            ["device: is 'cuda', must be auto or cpu where a training has 2 devices"],
        ),
        (
            {"devices": 4, "segmentation": {"head": "aspp_concat", "batch_size": 1}},
            ["segmentation.batch_size: is 1, must be at least 2 for the head aspp_concat"],
        ),
        ({"name": "a/b"}, ["name: is 'a/b', must be letters, digits"]),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(
    changes: dict[str, Any], fragments: list[str]
) -> None:
    message = message_of(merged(SCENES, changes))
    assert message.startswith("configuration: ") and "\n" not in message
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_any_number_of_devices_shares_batches_of_any_size(devices: int) -> None:
    changes = {
        "devices": devices,
        "base": {"method": "sfc", "batch_size": 7},
        "segmentation": {"head": "aspp_concat", "batch_size": 5},
        "variants": {"odd": {"batch_size": 3}},
    }
    (chosen,) = read_experiments(merged(SCENES, changes)).values()
    assert chosen.settings["devices"] == devices


def test_missing_keys_are_named() -> None:
    assert "name: missing" in message_of({"dataset": {"kind": "scenes"}})
    assert "dataset.root: missing" in message_of({"name": "x"})


def test_reading_changes_neither_the_given_configuration_nor_the_schema() -> None:
    config = merged(
        SCENES,
        {"variants": {"v": {"lambda_cal": "2"}}, "companions": {"y": {"flow": {"steps": "3"}}}},
    )
    before, schema = deepcopy(config), deepcopy(load_schema())
    read_experiments(config)
    assert config == before and load_schema() == schema


def test_companions_differ_by_their_overrides_only() -> None:
    config = merged(
        SCENES,
        {
            "flow": {"blocks": 3},
            "companions": {"y": {"scenes": {"rho": "1"}, "products": ["cam_classifier"]}},
        },
    )
    main, companion = read_experiments(config).values()
    assert (main.name, companion.name) == ("x", "y")
    assert (
        companion.settings["flow"] == main.settings["flow"]
        and companion.settings["flow"]["blocks"] == 3
    )
    assert (main.settings["scenes"]["rho"], companion.settings["scenes"]["rho"]) == (0.9, 1.0)
    differing = {key for key in main.settings if main.settings[key] != companion.settings[key]}
    assert differing == {"name", "scenes", "products", "companions"}


def test_variants_override_the_section_brnf_and_its_flow() -> None:
    changes = {
        "brnf": {"lambda_cal": 9, "flow": {"blocks": 2}},
        "variants": {"v": {"bsdnf": False, "flow": {"hidden": 7}}},
        "models": ["base", "v"],
    }
    experiment = read_experiments(merged(SCENES, changes))["x"]
    assert (
        experiment.network("v")["lambda_cal"] == 9
        and not experiment.denoises("v")
        and experiment.denoises("brnf")
    )
    assert (experiment.online_flow("v")["blocks"], experiment.online_flow("v")["hidden"]) == (2, 7)
    assert (experiment.online_flow("brnf")["blocks"], experiment.online_flow("brnf")["hidden"]) == (
        2,
        256,
    )
    assert experiment.labels_denoised("brnf") and not experiment.labels_denoised("v")
    raw = read_experiments(merged(SCENES, {**changes, "pseudo_labels": {"bsdnf": False}}))["x"]
    assert raw.denoises("brnf") and not raw.labels_denoised("brnf")
    assert experiment.seeds_of("base", denoised=True) == ("denoised", "seeds")
    assert experiment.seeds_of("base", denoised=False) == ("cams", "prototype")


def test_base_long_is_the_base_trained_for_as_long_as_both() -> None:
    experiment = read_experiments(
        merged(
            SCENES,
            {
                "base": {"steps": 30, "learning_rate": 0.5},
                "brnf": {"steps": 40, "learning_rate": 0.1},
            },
        )
    )["x"]
    assert experiment.network("base_long") == {**experiment.network("base"), "steps": 70}
    in_epochs = read_experiments(merged(SCENES, {"base": {"epochs": 3}, "brnf": {"epochs": 4}}))[
        "x"
    ].network("base_long")
    assert (in_epochs["epochs"], in_epochs["steps"]) == (7, None)
    with pytest.raises(UserError, match=r"^configuration: base.steps: .*set both$"):
        read_experiments(merged(SCENES, {"base": {"steps": 30}}))["x"].network("base_long")


def test_every_network_of_the_ablation_differs_from_the_full_one_by_switches_only() -> None:
    experiment = read_experiments(SCENES)["x"]
    full = experiment.network("brnf")
    for name in ABLATION:
        changed = {key for key, value in experiment.network(name).items() if value != full[key]}
        switches = {"guidance", "ccnf", "fscl", "bsdnf"}
        part = name.partition("_")[2]
        if name.startswith("without"):
            assert changed == {part}
        else:  # BSDNF works through the guidance
            assert changed == switches - {part} - ({"guidance"} if part == "bsdnf" else set())


def test_record_leaves_out_what_changes_no_result() -> None:
    one, two = (
        read_experiments(merged(SCENES, {"device": device, "threads": threads}))["x"]
        for device, threads in (("cpu", 1), ("auto", 2))
    )
    assert one.yaml() == two.yaml()
    assert yaml.safe_load(one.yaml())["flow"] == one.settings["flow"]


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_configurations_are_valid(file: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(file.read_text())
    assert config["name"] == file.stem
    (tmp_path / "images.csv").touch()
    (tmp_path / "annotations").mkdir()
    root = {"root": str(tmp_path)}
    config["dataset"] |= {
        "voc": root,
        "coco": root,
        "table": {"table": str(tmp_path / "images.csv")},
    }.get(config["dataset"].get("kind"), {})
    assert file.stem in read_experiments(config)


@pytest.mark.parametrize("experiment", ["custom", "voc12", "coco14"])
def test_settings_for_a_cpu_fit_the_shipped_configurations(experiment: str, tmp_path: Path) -> None:
    config = merged(
        *(
            yaml.safe_load((CONFIG / file).read_text())
            for file in (f"{experiment}.yaml", "machines/cpu.yaml")
        )
    )
    (tmp_path / "images.csv").touch()
    (tmp_path / "annotations").mkdir()
    config["dataset"] |= (
        {"table": str(tmp_path / "images.csv")}
        if experiment == "custom"
        else {"root": str(tmp_path)}
    )
    settings = read_experiments(config)[experiment].settings
    assert (
        settings["backbone"]["name"]
        == settings["segmentation"]["backbone"]
        == "tf_efficientnet_lite0"
    )
    assert (settings["base"]["steps"], settings["brnf"]["steps"], settings["brnf"]["epochs"]) == (
        0,
        None,
        10,
    )


def test_root_of_the_photographs_is_asked_for() -> None:
    assert "dataset.root: missing" in message_of(
        yaml.safe_load((CONFIG / "voc-animals.yaml").read_text())
    )
