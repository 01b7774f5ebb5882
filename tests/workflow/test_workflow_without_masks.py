"""Photographs without masks, or with masks of some: what is planned, made, measured and said."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brnf.use.cli import main

Config = Callable[[str], str]
TINY = str(Path(__file__).parents[2] / "config" / "tiny.yaml")
WORDS = ("--configfile", TINY, "--config", "companions=null", "protocol=auto")
TABLE = "dataset={kind: table, table: own.csv}"


def pretend(workflow: Any, splits: dict[str, bool]) -> None:
    """Write a table, and an index with two shards of each split, whose value tells whether it has
    masks.
    """
    (workflow.folder / "own.csv").write_text("image,labels\n")
    for name, masks in splits.items():
        workflow.pretend_index("tiny", {name: 2}, scenes=False, masks=masks)


CHAIN = {
    "write_config": 1,
    "train_base": 1,
    "train_brnf": 1,
    "compute_cams": 4,
    "store_pixels": 4,
    "train_flow": 2,
    "denoise_seeds": 4,
    "make_pseudo_labels": 4,
    "train_segmentation": 2,
    "predict_segmentation": 4,
    "write_cam_model": 2,
    "write_segmentation_model": 2,
    "report": 1,
}
"""Jobs of two models on two shards, whatever is measured."""


@pytest.mark.parametrize(
    ("splits", "evaluations", "figures"),
    [
        ({"train": True, "val": True}, 2 * 6, {"predictions", "examples", "scores", "curves"}),
        ({"train": False}, 0, {"predictions", "examples", "curves"}),
        ({"train": False, "val": False}, 0, {"predictions", "examples", "curves"}),
        ({"train": False, "val": True}, 2, {"predictions", "examples", "scores", "curves"}),
        ({"train": True, "val": False}, 10, {"predictions", "examples", "scores", "curves"}),
        ({"train": True}, 10, {"predictions", "examples", "scores", "curves"}),
    ],
)
def test_what_has_masks_is_measured_and_all_is_made(
    workflow: Any, splits: dict[str, bool], evaluations: int, figures: set[str]
) -> None:
    pretend(workflow, splits)
    measured = {"evaluate": evaluations, "tabulate": 1} if evaluations else {}
    assert workflow.jobs(*WORDS, TABLE) == CHAIN | measured | {"draw": len(figures)}
    planned = workflow("--dry-run", "--quiet", "host", *WORDS, TABLE)
    assert {name for name in (*figures, "bias") if f"figures/{name}.png" in planned} == figures
    predicted = "val" if "val" in splits else "train"
    assert f"brnf/seed0/predictions/{predicted}/1" in planned


def test_models_and_products_that_are_not_asked_for_are_not_made(workflow: Any) -> None:
    pretend(workflow, {"train": False})
    jobs = workflow.jobs(*WORDS, TABLE, "models=[base]", "products=[cam_classifier]")
    once = ("write_config", "train_base", "write_cam_model", "report", "draw")
    assert jobs == dict.fromkeys(once, 1) | {"compute_cams": 2}


def test_photographs_of_the_test_split_are_predicted(workflow: Any) -> None:
    pretend(workflow, {"train": False, "test": False})
    named = "dataset={kind: table, table: own.csv, test: test}"
    jobs = workflow.jobs(*WORDS, named)
    assert jobs == CHAIN | {"draw": 3, "predict_segmentation": 8, "export_predictions": 2}


@pytest.mark.parametrize(
    "target", ["ablation", "sensitivity", "sensitivity_full", "density", "tables/results.csv"]
)
def test_what_cannot_be_without_masks_is_one_line(workflow: Any, target: str) -> None:
    pretend(workflow, {"train": False})
    wanted = f"results/tiny/{target}" if "/" in target else target
    said = workflow("--dry-run", *WORDS, TABLE, "--", wanted, fails=True)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "has a mask" in lines[0] and "Traceback" not in said


def test_the_upper_bound_learns_from_the_masks_of_the_training_split(workflow: Any) -> None:
    pretend(workflow, {"train": True, "val": True})
    words = (*WORDS, TABLE, "models=[base, supervised]")
    alone = workflow.jobs(*WORDS, TABLE, "models=[base]")
    more = {"train_segmentation": 1, "predict_segmentation": 2, "write_segmentation_model": 1}
    more |= {"evaluate": 1, "collect_masks": 2}
    counts = {rule: alone.get(rule, 0) + more.get(rule, 0) for rule in alone | more}
    assert workflow.jobs(*words) == counts
    planned = workflow("--dry-run", "--printshellcmds", "--quiet", "host", *words)
    trainings = [line for line in planned.splitlines() if "stages.train_segmentation " in line]
    learnt = {"results/tiny/true_masks/train/" in one: one for one in trainings}
    assert "--all-masked False" in learnt[True] and "--all-masked True" in learnt[False]


def test_the_upper_bound_without_training_masks_is_one_line(workflow: Any) -> None:
    pretend(workflow, {"train": False, "val": True})
    said = workflow("--dry-run", *WORDS, TABLE, "models=[base, supervised]", fails=True)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "models: 'supervised' is trained on masks" in lines[0]
    assert "Traceback" not in said


def photographs(folder: Path, count: int) -> list[str]:
    """Render photographs of a red or a blue square before gray noise; return their names."""
    random = np.random.default_rng(0)
    names = []
    for number in range(count):
        picture = random.integers(90, 130, (96, 96, 3)).astype(np.uint8)
        picture[20:70, 15:65] = (200, 60, 40) if number % 2 else (30, 60, 210)
        names.append(f"photo {number}.png")
        Image.fromarray(picture).save(folder / names[-1])
    return names


def write_table(folder: Path, rows: list[list[str]]) -> None:
    with (folder / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def labels_only(lasting_workflow: Any) -> Any:
    """Run a table of photographs and labels to its end."""
    folder = lasting_workflow.folder
    names = photographs(folder, 6)
    rows = [[name, "dog" if number % 2 else "cat"] for number, name in enumerate(names)]
    write_table(folder, [["image", "labels"], *rows])
    short = ("models=[base]", "products=[seeds,pseudo_labels,segmentation]", "shards=1")
    lasting_workflow.words = (*WORDS, TABLE, *short)
    lasting_workflow.printed = lasting_workflow(*lasting_workflow.words)
    return lasting_workflow


def test_labels_alone_end_in_a_segmenter_and_a_report(labels_only: Any, tmp_path: Path) -> None:
    results = labels_only.folder / "results" / "tiny"
    line = "no image has a mask, so nothing is measured"
    assert labels_only.printed.count(line) == 1
    assert line in (results / "index" / "summary.md").read_text()
    report = (results / "report.html").read_text()
    assert line in report and report.count("data:image/png") == 3 and ">nan<" not in report
    assert '<figure id="tiny-predictions">' in report and "mIoU, bias with" not in report
    assert not (results / "tables").exists() and not list(results.rglob("evaluation"))
    run = results / "base" / "seed0"
    assert len(list(run.glob("predictions/train/0/*.png"))) == 6
    names = photographs(tmp_path, 2)
    words = [str(tmp_path / name) for name in names]
    out = tmp_path / "predicted"
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run / "segmentation" / "model.pt"), *words, "--out", str(out)])
    assert not ended.value.code
    assert len(list((out / "masks").glob("*.png"))) == 2


def test_a_second_call_finds_nothing_to_be_done(labels_only: Any) -> None:
    assert labels_only.jobs(*labels_only.words) == {}
