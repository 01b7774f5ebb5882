"""Other sources of base seeds in the workflow: which jobs they need, and a real round trip from sfc
through export to import.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from brnf.config.experiment import merged, read_experiments
from brnf.errors import UserError
from brnf.store.maps import MapReader

Config = Callable[[str], str]
CONFIG = Path(__file__).parents[2] / "config"
BASE_ONLY = ("companions=null", "models=[base]", "products=[seeds, seeds_bsdnf]")


def jobs_of_base(workflow: Any, config: Config, base: str) -> dict[str, int]:
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    jobs = workflow.jobs("--configfile", config("tiny"), "--config", *BASE_ONLY, f"base={base}")
    return {
        rule: count
        for rule, count in jobs.items()
        if rule not in ("write_config", "tabulate", "draw", "report", "evaluate")
    }


REST = {
    "train_base": 1,
    "write_cam_model": 1,
    "store_pixels": 2,
    "train_flow": 1,
    "denoise_seeds": 2,
}
"""With import and clip_es, too, a network is trained: it gives the pixel features."""


def test_sfc_is_another_training(workflow: Any, config: Config) -> None:
    assert jobs_of_base(workflow, config, "{method: sfc}") == REST | {"compute_cams": 2}


def test_clip_es_and_import_replace_the_maps_of_the_base(
    workflow: Any, config: Config, tmp_path: Path
) -> None:
    assert jobs_of_base(workflow, config, "{method: clip_es}") == REST | {"compute_clip_maps": 2}
    (tmp_path / "foreign").mkdir()
    words = (
        "--configfile",
        config("tiny"),
        "--config",
        "companions=null",
        "base={method: import, import: {folder: foreign}}",
    )
    jobs = workflow.jobs(*words)
    assert (jobs["import_maps"], jobs["compute_cams"], jobs["train_base"]) == (
        2,
        2,
        1,
    )  # brnf's maps are its network's own


def test_an_exported_run_can_be_imported_in_the_same_call(workflow: Any, config: Config) -> None:
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    base = "base={method: import, import: {folder: results/tiny/base_long/seed0/exported}}"
    jobs = workflow.jobs("--configfile", config("tiny"), "--config", *BASE_ONLY, base)
    assert (jobs["export_maps"], jobs["import_maps"], jobs["compute_cams"]) == (1, 2, 4)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"method": "sfc", "cache": True}, "base.cache: sfc sees random crops at two scales"),
        (
            {"method": "import"},
            "base.import.folder: missing; set it to the folder that holds <image id>.npy",
        ),
        (
            {"method": "import", "import": {"folder": "nowhere"}},
            "base.import.folder: no folder 'nowhere'",
        ),
        (
            {"method": "clip_es", "clip_es": {"words": "vok"}},
            "base.clip_es.words: no file 'vok'; take voc, coco",
        ),
    ],
)
def test_what_a_source_lacks_is_one_line(base: dict[str, Any], said: str) -> None:
    config = yaml.safe_load((CONFIG / "tiny.yaml").read_text())
    with pytest.raises(UserError) as caught:
        read_experiments(merged(config, {"companions": {}, "base": base}))
    assert str(caught.value).startswith(f"configuration: {said}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file", sorted((CONFIG / "bases").glob("*.yaml")), ids=lambda file: file.stem
)
@pytest.mark.parametrize("experiment", ["voc12", "voc-animals", "tiny"])
def test_shipped_bases_fit_the_shipped_configurations(
    experiment: str, file: Path, tmp_path: Path
) -> None:
    config = merged(
        yaml.safe_load((CONFIG / f"{experiment}.yaml").read_text()),
        yaml.safe_load(file.read_text()),
    )
    config["dataset"]["root"] = str(tmp_path)
    settings = read_experiments(config)[experiment].settings
    assert settings["base"]["method"] == file.stem.removesuffix("_coco")
    assert file.stem != "sfc" or (settings["base"]["steps"], settings["base"]["epochs"]) == (
        None,
        6,
    )  # the paper's length


def test_maps_of_sfc_give_the_same_tables_once_exported_and_imported(
    workflow: Any, config: Config
) -> None:
    (workflow.folder / "imported.yaml").write_text(
        yaml.safe_dump(
            {
                "companions": {
                    "again": {
                        "base": {
                            "method": "import",
                            "import": {"folder": "results/tiny/base/seed0/exported"},
                        }
                    },
                }
            }
        )
    )
    settings = (
        "shards=1",
        "models=[base]",
        "products=[cam_classifier, cam_prototype]",
        "scenes={train: 6, val: 2}",
    )
    targets = [f"results/{name}/tables/results.csv" for name in ("tiny", "again")]
    base = "base={method: sfc, steps: 2, batch_size: 3}"
    workflow(
        "--configfile", config("tiny"), "imported.yaml", "--config", *settings, base, "--", *targets
    )
    tables = []
    for target in targets:
        with (workflow.folder / target).open() as file:
            tables.append(list(csv.DictReader(file)))
    assert tables[0] == tables[1] and [row["product"] for row in tables[0]] == [
        "cam_classifier",
        "cam_prototype",
    ]
    for product in ("classifier", "prototype"):
        own, back = (
            MapReader([workflow.folder / "results" / name / "base/seed0/cams/train/0.h5"], product)
            for name in ("tiny", "again")
        )
        assert own.images == back.images and all(
            np.array_equal(own[image].values, back[image].values) for image in own.images
        )
    with (workflow.folder / "results/tiny/base/seed0/network/history.csv").open() as file:
        assert [set(row) for row in csv.DictReader(file)] == [
            {"step", "loss", "classification", "consistency", "scales"}
        ] * 2


def test_a_random_walk_learns_its_boundaries_from_labels_of_its_own(
    workflow: Any, config: Config
) -> None:
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    words = (
        "--configfile",
        config("tiny"),
        "--config",
        "companions=null",
        "models=[base]",
        "products=[pseudo_labels]",
    )
    plain, walked = (
        workflow.jobs(*words),
        workflow.jobs(*words, "pseudo_labels={refine: random_walk}"),
    )
    assert plain["make_pseudo_labels"] == 2 and "train_boundaries" not in plain
    replaced = {"make_boundary_labels": 2, "train_boundaries": 1, "walk_pseudo_labels": 2}
    assert (
        walked
        == {rule: count for rule, count in plain.items() if rule != "make_pseudo_labels"} | replaced
    )
