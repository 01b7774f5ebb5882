"""COCO's ground truth, predictions of a test split and downloads in the workflow."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

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
            "train_aug needs SBD: snakemake --cores 1 download_sbd" in said
            and len(server.asked) == 1
        )


def sbd_archive() -> bytes:
    """Return SBD's archive with one image, b, for its train and another one for its val."""
    segmentation = io.BytesIO()
    scipy.io.savemat(segmentation, {"GTcls": {"Segmentation": np.ones((3, 4), np.uint8)}})
    members = {"cls/b.mat": segmentation.getvalue(), "train.txt": b"b\n", "val.txt": b"c\n"}
    return tarred({f"benchmark_RELEASE/dataset/{name}": one for name, one in members.items()})


def test_sbd_comes_after_voc(workflow: Any) -> None:
    """VOC 2012 is fetched first where it is missing, and a second call fetches nothing."""
    lists = "VOCdevkit/VOC2012/ImageSets/Segmentation"
    voc = {f"{lists}/train.txt": b"a\n", f"{lists}/val.txt": b"c\n"}
    archives = {
        "voc.tar": tarred({**voc, "VOCdevkit/VOC2012/JPEGImages/a.jpg": b"a"}),
        "sbd.tar": sbd_archive(),
    }
    with running_server() as server:
        server.files |= archives
        one, other = (
            {"address": server.address(name), "md5": hashlib.md5(content).hexdigest()}
            for name, content in archives.items()
        )
        download = {"voc12": {"folder": "here", "archives": [one]}, "sbd": {"archives": [other]}}
        words = ("--config", f"download={json.dumps(download)}", "--", "download_sbd")
        workflow(*words)
        assert len(server.asked) == 2
        assert "Nothing to be done" in workflow(*words) and len(server.asked) == 2
    train_aug = workflow.folder / "here" / lists / "train_aug.txt"
    assert train_aug.read_text() == "a\nb\n"


def test_sbd_is_fetched_into_voc(workflow: Any) -> None:
    """What others put there is kept in one line, and nothing is fetched a second time."""
    content = sbd_archive()
    voc = workflow.folder / "here" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    for folder in (voc / "JPEGImages", voc / "SegmentationClassAug", lists):
        folder.mkdir(parents=True)
    for name, image in {"train": "a", "val": "c"}.items():
        (lists / f"{name}.txt").write_text(f"{image}\n")
    foreign = voc / "SegmentationClassAug" / "other.png"
    foreign.touch()
    with running_server() as server:
        server.files["sbd.tar"] = content
        archive = json.dumps(
            {"address": server.address("sbd.tar"), "md5": hashlib.md5(content).hexdigest()}
        )
        place = f"download={{voc12: {{folder: here}}, sbd: {{archives: [{archive}]}}}}"
        words = ("--config", place, "--", "download_sbd")
        said = workflow(*words, fails=True)
        assert "holds other.png, which is none of SBD's masks" in said and "Traceback" not in said
        foreign.unlink()
        workflow(*words)
        assert len(server.asked) == 1
    assert (lists / "train_aug.txt").read_text() == "a\nb\n"
    assert (voc / "SegmentationClassAug" / "b.png").is_file()


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
