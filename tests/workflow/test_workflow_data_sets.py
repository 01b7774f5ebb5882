"""COCO's ground truth, predictions of a test split and downloads in the workflow."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.archive_server import running_server, tarred

Config = Callable[[str], str]


@pytest.fixture
def coco(workflow: Any, config: Config) -> Any:
    """Return the job counts of COCO's configuration, whose index has three shards of train and two
    of val.
    """
    (workflow.folder / "data" / "coco14" / "annotations").mkdir(parents=True)
    workflow.pretend_index("coco14", {"train": 3, "val": 2}, scenes=False)
    return lambda *words: workflow.jobs("--configfile", config("coco14"), *words)


def test_masks_of_coco_are_drawn_for_what_is_evaluated(coco: Any) -> None:
    jobs = coco("--", "all", "sensitivity")
    assert jobs["draw_masks"] == 3 + 2 and (jobs["evaluate"], jobs["sweep_denoising"]) == (
        2 * 6,
        10,
    )
    assert (jobs["compute_cams"], jobs["predict_segmentation"]) == (2 * 3, 2 * 2)


def test_training_asks_for_no_mask(coco: Any) -> None:
    jobs = coco("--", "results/coco14/brnf/seed0/segmentation/network.pt")
    assert "draw_masks" not in jobs and jobs["train_segmentation"] == 1


def test_predictions_of_the_test_split_are_a_target_of_their_own(
    workflow: Any, config: Config
) -> None:
    (workflow.folder / "data" / "VOCdevkit").mkdir(parents=True)
    workflow.pretend_index("voc12", {"train_aug": 2, "train": 2, "val": 2, "test": 3}, scenes=False)
    words = ("--configfile", config("voc12"), "--config")
    jobs = workflow.jobs(*words, "dataset={test: test}", "--", "test_predictions")
    assert (
        jobs["predict_segmentation"] == 2 * 3
        and jobs["export_predictions"] == 2
        and "evaluate" not in jobs
    )
    said = workflow(*words, "models=[base]", "--", "test_predictions", fails=True)
    assert (
        "error: configuration: dataset.test: is null; name the split without ground truth" in said
        and "Traceback" not in said
    )


def test_archives_are_fetched_on_request_only(workflow: Any, config: Config) -> None:
    content = tarred({"VOCdevkit/VOC2012/JPEGImages/a.jpg": b"a"})
    with running_server() as server:
        server.files["voc.tar"] = content
        archive = json.dumps(
            {"address": server.address("voc.tar"), "md5": hashlib.md5(content).hexdigest()}
        )
        words = ("--config", f"download={{voc12: {{folder: here, archives: [{archive}]}}}}", "--")
        said = workflow(*words, "download_voc12")
        assert (
            workflow.folder / "here" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a.jpg"
        ).read_bytes() == b"a"
        assert (
            "put SegmentationClassAug into here/VOCdevkit/VOC2012" in said
            and len(server.asked) == 1
        )


def test_a_wrong_checksum_reaches_the_terminal_in_one_line(workflow: Any) -> None:
    with running_server() as server:
        server.files["train.zip"] = b"another archive"
        archive = json.dumps({"address": server.address("train.zip"), "md5": "0" * 32})
        said = workflow(
            "--config",
            f"download={{coco14: {{folder: here, archives: [{archive}]}}}}",
            "--",
            "download_coco14",
            fails=True,
        )
    assert "train.zip: its md5 is " in said and "Traceback" not in said
    assert not list(Path(workflow.folder, "here").glob("[!.]*"))
