"""What a miniature changes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.planning.jobs import configuration
from brnf.planning.miniature import miniature

CONFIG = Path(__file__).parents[2] / "config"


def read(name: str, folder: Path, **changes: Any) -> dict[str, Experiment]:
    (folder / "annotations").mkdir(exist_ok=True)
    settings = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    if settings["dataset"]["kind"] != "scenes":
        changes = merged({"dataset": {"root": str(folder)}}, changes)
    return read_experiments(merged(settings, changes))


@pytest.mark.parametrize("name", ["voc12", "coco14", "voc-animals", "demo", "tiny"])
def test_a_miniature_is_a_configuration_with_little_work(name: str, tmp_path: Path) -> None:
    experiments = read(name, tmp_path)
    minis = {key: miniature(one, 9) for key, one in experiments.items()}
    again = read_experiments(yaml.safe_load(yaml.safe_dump(configuration(minis))))
    assert list(again) == list(experiments)
    for key, mini in again.items():
        settings, whole = mini.settings, experiments[key].settings
        assert settings["dataset"]["limit"] == 9 and settings["shards"] == 1
        assert (
            settings["random_seeds"] == whole["random_seeds"][:1]
            and settings["models"] == whole["models"]
        )
        assert settings["products"] == whole["products"]
        for model in ("base", *whole["models"]):
            assert mini.network(model)["steps"] <= 9
            assert mini.network(model)["crop"] == experiments[key].network(model)["crop"]
        assert settings["flow"]["steps"] == 9
        assert settings["segmentation"]["iterations"] == settings["random_walk"]["steps"] == 2


def test_a_miniature_has_never_more_than_the_whole(tmp_path: Path) -> None:
    whole = read("tiny", tmp_path, base={"steps": 0}, dataset={"limit": 2}, flow={"steps": 1})
    mini = miniature(whole["tiny"], 5).settings
    assert (mini["base"]["steps"], mini["dataset"]["limit"], mini["flow"]["steps"]) == (0, 2, 1)
    assert (mini["scenes"]["train"], mini["scenes"]["val"], mini["brnf"]["steps"]) == (5, 5, 5)


def test_steps_of_a_variant_are_its_own(tmp_path: Path) -> None:
    variants = {"short": {"steps": 1, "online_warmup": 50}, "other": {"ccnf": False}}
    mini = miniature(read("tiny", tmp_path, variants=variants)["tiny"], 4)
    assert [mini.network(name)["steps"] for name in variants] == [1, 4]
    assert mini.network("short")["online_warmup"] == 1
    assert mini.network("other")["ccnf"] is False
