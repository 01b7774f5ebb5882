"""Protocol paper: no key that a number depends on differs, key by key of the schema."""

import fnmatch
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.config.generate import load_schema
from brnf.config.protocol import NOT_COMPARED, compared_keys, differences, false_claim, protocol_of
from brnf.config.schema import complete, leaves
from brnf.errors import UserError
from brnf.weights import PUBLISHED, file_digest
from brnf.workflow.params import stage_options

CONFIG = Path(__file__).parents[2] / "config"
PARTS = {".".join(path): part for path, part in leaves(load_schema())}
COMPARED = [".".join(path) for path in compared_keys()]
PAPERS = {
    "voc12": ["voc12.yaml"],
    "coco14": ["coco14.yaml"],
    "voc12 with SFC": ["voc12.yaml", "bases/sfc.yaml"],
    "coco14 with SFC": ["coco14.yaml", "bases/sfc.yaml"],
    "voc12 with CLIP-ES": ["voc12.yaml", "bases/clip_es.yaml"],
    "coco14 with CLIP-ES": ["coco14.yaml", "bases/clip_es_coco.yaml"],
}
MAKERS = """train_base compute_cams compute_clip_maps import_maps store_pixels train_flow \
denoise_seeds train_brnf make_pseudo_labels
train_boundaries walk_pseudo_labels train_segmentation predict_segmentation evaluate"""
"""Stages that numbers come from."""
NETWORKS = {"train_base": ("base",), "train_brnf": ("brnf",)}
"""Stages of one kind of network alone -> its model."""

Read = Callable[..., Experiment]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a reader of config files over a data set that is there, with what differs."""
    (tmp_path / "annotations").mkdir()

    def read(*files: str, **changes: Any) -> Experiment:
        config: dict[str, Any] = {}
        for file in files:
            config = merged(config, yaml.safe_load((CONFIG / file).read_text()))
        config = merged(merged(config, {"dataset": {"root": str(tmp_path)}}), changes)
        return next(iter(read_experiments(config).values()))

    return read


def another(value: Any, part: dict[str, Any]) -> Any:
    """Return a value that differs; whether a stage could work with it does not matter here."""
    if "enum" in part:
        return next(other for other in part["enum"] if other != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, 3]
    if isinstance(value, dict):
        return {**value, "other": 1}
    return f"{value}-other"


def with_value(settings: Any, key: str, value: Any) -> dict[str, Any]:
    """Return a copy in which one key has another value."""
    changed = section = deepcopy(dict(settings))
    *path, last = key.split(".")
    for name in path:
        section = section[name]
    section[last] = value
    return changed


def value_of(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = settings[name]
    return settings


@pytest.mark.parametrize("files", PAPERS.values(), ids=PAPERS)
def test_the_papers_configurations_are_paper(read: Read, files: list[str]) -> None:
    found = read(*files)
    assert found.settings["protocol"] == "paper" and differences(found.settings) == []
    assert read(*files, protocol="paper").settings["protocol"] == "paper"
    assert read(*files, protocol="bench").settings["protocol"] == "bench", (
        "a label that claims less is anybody's right"
    )


@pytest.mark.parametrize("name", ["voc12", "coco14"])
@pytest.mark.parametrize("key", COMPARED)
def test_every_compared_key_makes_it_something_else(read: Read, name: str, key: str) -> None:
    settings = read(f"{name}.yaml").settings
    value = value_of(settings, key)
    changed = with_value(
        {**settings, "protocol": "auto"}, key, other := another(value, dict(PARTS[key]))
    )
    assert protocol_of(changed) == ("scenes" if changed["dataset"]["kind"] == "scenes" else "bench")
    if key not in ("dataset.kind", "base.method"):  # these decide what it is compared with
        assert [(found.key, found.paper, found.here) for found in differences(changed)] == [
            (key, value, other)
        ]
        claim = false_claim({**changed, "protocol": "paper"})
        assert (
            claim
            == f"is paper, but 1 key differs from the paper's setting (config/{name}.yaml): {key};"
            " set it to auto"
        )


def test_maps_of_more_pixels_than_coco14_keeps_are_the_papers_too(read: Read) -> None:
    assert read("coco14.yaml").settings["cam"]["map_stride"] == 4
    for stride, found in ((1, "paper"), (2, "paper"), (5, "bench")):
        changed = read("coco14.yaml", cam={"map_stride": stride})
        assert changed.settings["protocol"] == found


@pytest.mark.parametrize("key", [key for key in PARTS if key not in (*COMPARED, "protocol")])
def test_every_other_key_leaves_it_paper_and_reaches_no_number(read: Read, key: str) -> None:
    settings = read("voc12.yaml").settings
    changed = with_value(settings, key, another(value_of(settings, key), dict(PARTS[key])))
    assert protocol_of({**changed, "protocol": "auto"}) == "paper"
    if key.endswith("save_probabilities"):
        return  # it reaches the stages, and tells them what to keep beside the masks
    for stage in MAKERS.split():
        for model in NETWORKS.get(stage, ("base", "brnf")):
            before, after = (
                stage_options(stage, Experiment(one), model, {}) for one in (settings, changed)
            )
            assert before == after, stage


def test_every_pattern_names_a_key() -> None:
    assert all(any(fnmatch.fnmatchcase(key, pattern) for key in PARTS) for pattern in NOT_COMPARED)
    assert len(COMPARED) > 100


def test_what_auto_finds(read: Read) -> None:
    assert read("voc-animals.yaml", protocol="auto").settings["protocol"] == "bench"
    assert read("demo.yaml", protocol="auto", companions={}).settings["protocol"] == "scenes"
    assert (
        read("voc12.yaml", base={"method": "import", "import": {"folder": "."}}).settings[
            "protocol"
        ]
        == "bench"
    )
    assert (
        read(
            "voc12.yaml", random_seeds=[3, 4], models=["base"], shards=2, dataset={"test": "test"}
        ).settings["protocol"]
        == "paper"
    )


def test_a_claim_that_is_not_true_is_refused_in_one_line(read: Read) -> None:
    with pytest.raises(UserError) as caught:
        read("voc12.yaml", protocol="paper", flow={"steps": 5}, bsdnf={"final": {"xi": 0.5}})
    assert str(caught.value) == (
        "configuration: protocol: is paper, but 2 keys differ from the paper's setting "
        "(config/voc12.yaml):"
        " flow.steps, bsdnf.final.xi; set it to auto"
    )
    with pytest.raises(
        UserError,
        match=r"^configuration: companions\.y: protocol: is paper, "
        r"but 1 key differs .*: flow\.steps; ",
    ):
        read("voc12.yaml", protocol="paper", companions={"y": {"flow": {"steps": 5}}})
    with pytest.raises(
        UserError,
        match=r"is paper, but [0-9]+ keys differ .*dataset\.kind, .*, \.\.\.; set it to auto$",
    ):
        read("demo.yaml", protocol="paper", companions={})


def test_a_companion_has_a_protocol_of_its_own(tmp_path: Path) -> None:
    config = yaml.safe_load((CONFIG / "voc12.yaml").read_text())
    config = merged(
        config, {"dataset": {"root": str(tmp_path)}, "companions": {"y": {"flow": {"steps": 5}}}}
    )
    assert [found.settings["protocol"] for found in read_experiments(config).values()] == [
        "paper",
        "bench",
    ]


def test_a_point_of_a_study_keeps_the_label_of_its_experiment(read: Read) -> None:
    experiment = read("voc12.yaml")
    point = experiment.at("brnf@xi-0.8")
    assert (
        point.settings["bsdnf"] != experiment.settings["bsdnf"]
        and point.settings["protocol"] == "paper"
    )


def test_the_published_file_is_the_papers_weights(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = value_of(read("voc12.yaml").settings, "backbone.weights")
    file = tmp_path / "resnet50.pth"
    file.write_bytes(b"numbers")
    assert [
        one.key for one in differences(read("voc12.yaml", backbone={"weights": str(file)}).settings)
    ] == ["backbone.weights"]
    monkeypatch.setitem(PUBLISHED, tag, (file_digest(file)[:8],))
    monkeypatch.setitem(PUBLISHED, "ViT-B-16-quickgelu/openai", (file_digest(file),))
    clip = {"method": "clip_es", "clip_es": {"weights": str(file)}}
    found = read("voc12.yaml", "bases/clip_es.yaml", backbone={"weights": str(file)}, base=clip)
    assert found.settings["protocol"] == "paper"


def test_a_record_that_lacks_keys_differs_in_those_it_has() -> None:
    assert [
        found.key for found in differences({"flow": {"steps": 3}, "backbone": 7, "cam": None})
    ] == ["flow.steps"]
    assert differences(complete({"name": "x", "dataset": {}}, load_schema())) == differences({})
