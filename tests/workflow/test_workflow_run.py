"""The whole workflow, really run on ``config/tiny.yaml``: what appears, and what runs again after a change."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Config = Callable[[str], str]
TINY = str(Path(__file__).parents[2] / "config" / "tiny.yaml")


@pytest.fixture(scope="module")
def finished(lasting_workflow: Any) -> Any:
    lasting_workflow.printed = lasting_workflow("--configfile", TINY)
    return lasting_workflow


def test_tables_figures_and_report_appear(finished: Any) -> None:
    results = finished.folder / "results" / "tiny"
    with (results / "tables" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["model", "product", "split", "protocol", "miou", "bias"]
    products = ["cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf", "pseudo_labels", "segmentation"]
    assert [(row["model"], row["product"]) for row in rows] == [(model, product) for model in ("base", "brnf") for product in products]
    assert {row["protocol"] for row in rows} == {"scenes"} and all(0 <= float(row["miou"]) <= 100 for row in rows)
    report = (results / "report.html").read_text()
    assert "tiny-inseparable" in report and report.count("data:image/png") == 4 + 3
    left = [path for path in finished.folder.rglob("*") if path.name.endswith((".part", ".lock"))]
    assert [path for path in left if ".snakemake" not in path.parts] == []


def test_a_second_call_finds_nothing_to_be_done(finished: Any) -> None:
    assert finished.jobs("--configfile", TINY) == {}


def test_settings_of_the_machine_rerun_nothing(finished: Any) -> None:
    assert (
        finished.jobs("--configfile", TINY, "--config", "device=cpu", "workers=1", "threads=2", "progress=none", "checkpoint_seconds=1")
        == {}
    )


def test_a_new_final_xi_reruns_the_final_denoising_and_what_follows(finished: Any) -> None:
    jobs = finished.jobs("--configfile", TINY, "--config", "bsdnf={final: {xi: 0.8}}")
    assert jobs == {
        "write_config": 2,  # the companion shares the key
        "denoise_seeds": 2,
        "make_pseudo_labels": 2,
        "train_segmentation": 1,
        "predict_segmentation": 2,
        "evaluate": 3,  # brnf: seeds_bsdnf, pseudo_labels, segmentation
        "tabulate": 1,
        "draw": 4,
        "report": 1,
    }


def test_a_new_threshold_reruns_flows_but_no_features(finished: Any) -> None:
    jobs = finished.jobs("--configfile", TINY, "--config", "flow={tau: {low: 0.2}}")
    assert "compute_cams" in jobs and jobs["compute_cams"] == 4 / 2  # of brnf only, whose training uses the threshold
    assert (jobs["train_flow"], jobs["store_pixels"], jobs.get("train_base")) == (2, 2, None)


def test_an_index_made_again_with_equal_content_reruns_nothing(finished: Any, tmp_path: Path) -> None:
    folder = finished.elsewhere(tmp_path / "copy")
    shutil.copytree(finished.folder, folder.folder, symlinks=True)
    os.utime(folder.folder / "results" / "tiny" / "data")
    printed = folder("--configfile", TINY, "--forcerun", "index_images", "--until", "index_images")
    assert "index_images" in printed
    assert folder.jobs("--configfile", TINY) == {}


def test_an_error_of_the_user_reaches_the_terminal_in_one_line(finished: Any) -> None:
    output = finished(
        "--configfile",
        TINY,
        "--config",
        "name=tiny2",
        "companions=null",
        "evaluate={recall: 0.7}",
        "dataset={classes: [train, plane]}",
        fails=True,
    )
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if line.startswith("error: ")], output
