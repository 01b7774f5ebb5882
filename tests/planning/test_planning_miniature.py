"""What a miniature changes, and which of its jobs stands for which of the whole."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.engine.runtime import Runtime
from brnf.planning.jobs import Job, configuration
from brnf.planning.miniature import counterpart, largest_batch, miniature, runtime_keys

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
    config = {**configuration(minis), **runtime_keys(Runtime(device="cpu", threads=2), 1)}
    again = read_experiments(yaml.safe_load(yaml.safe_dump(config)))
    assert list(again) == list(experiments)
    for key, mini in again.items():
        settings, whole = mini.settings, experiments[key].settings
        assert settings["dataset"]["limit"] == 9 and settings["shards"] == 1
        assert settings["seeds"] == whole["seeds"][:1] and settings["models"] == whole["models"]
        assert settings["products"] == whole["products"]
        for model in ("base", *whole["models"]):
            assert mini.network(model)["steps"] <= 9
            assert mini.network(model)["crop"] == experiments[key].network(model)["crop"]
        assert settings["flow"]["steps"] == 9
        assert settings["segmentation"]["iterations"] == settings["random_walk"]["steps"] == 2
        assert (settings["threads"], settings["progress"]) == (2, "lines")


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


def test_a_gpu_is_given_full_batches_of_the_trainings_that_there_are(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "base": {"batch_size": 6},
        "brnf": {"batch_size": 7},
        "segmentation": {"batch_size": 8},
        "random_walk": {"batch_size": 32},
    }
    assert largest_batch(read("tiny", tmp_path, **sizes)["tiny"]) == 8
    sizes["pseudo_labels"] = {"refine": "random_walk"}
    assert largest_batch(read("tiny", tmp_path, **sizes)["tiny"]) == 32


def test_the_first_seed_and_the_only_shard_stand_for_all(tmp_path: Path) -> None:
    chosen = read("tiny", tmp_path, seeds=[3, 31])["tiny"]
    run = "results/tiny/brnf/seed{}/{}/compute_cams/train-{}.{}"
    wildcards = {"name": "tiny", "model": "brnf", "seed": "31", "split": "train", "shard": "13"}
    files = run.format(31, "logs", 13, "log"), run.format(31, "benchmarks", 13, "tsv")
    job = Job("compute_cams", wildcards, ("maps",), ("images",), *files)
    assert counterpart(job, chosen) == Job(
        "compute_cams",
        {**wildcards, "seed": "3", "shard": "0"},
        log=run.format(3, "logs", 0, "log"),
        benchmark=run.format(3, "benchmarks", 0, "tsv"),
    )
    table = Job("write_config", {"name": "tiny"}, ("config.yaml",), (), "a.log", "")
    assert counterpart(table, chosen).benchmark == ""
