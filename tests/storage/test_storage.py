"""The tiny run without a shared disk: the same bytes as on one, wherever the files are."""

import csv
import io
import re
from pathlib import Path

import pytest
from conftest import NewBucket
from PIL import Image
from storage_runs import Bucket, Disk, FileStorage, digests, planned, snakemake, started

CHANGED = ("--config", "bsdnf={final: {xi: 0.8}}")
HERE = Path(__file__).parent
REPORT = "results/tiny/report.html"
SHORT = ("companions=null", "models=[base]", "products=[cam_classifier]", "protocol=auto")
CLASSES = "[train, boat, sheep, fish, bee, house]"


def holds_the_same(stored: FileStorage | Bucket, disk: Disk, folder: Path, *words: str) -> None:
    """Make the tiny run in a storage; hold it, and what it says of a change, against the disk's."""
    snakemake(folder, "--cores", "1", *stored.words, *words)
    expected = digests(disk.files())
    assert len(expected) > 300 and digests(stored.files()) == expected
    assert not list((folder / "results").rglob("*")), "something went beside the storage"
    report, there = (dict(one.files())[REPORT].decode() for one in (disk, stored))
    (said,) = set(there.splitlines()) - set(report.splitlines())
    assert said.startswith("<p>No stamp lies beside the results")
    assert there.count("<img") == report.count("<img") > 0
    assert there.count("<table") == report.count("<table") - 1  # that of the time of each stage
    assert planned(snakemake(folder, "--cores", "1", *stored.words, *words, "-n")) == {}
    dry = ("--cores", "1", "--dry-run", "--quiet", "rules")
    there = planned(snakemake(folder, *dry, *stored.words, *words, *CHANGED))
    assert there == planned(snakemake(disk.place, *dry, *CHANGED)) and there["denoise_seeds"] == 2


def test_files_of_the_plugin_fs_are_those_of_a_disk(disk: Disk, tmp_path: Path) -> None:
    holds_the_same(FileStorage(tmp_path / "storage"), disk, tmp_path / "work")


def test_objects_of_s3_are_the_files_of_a_disk(
    disk: Disk, tmp_path: Path, new_bucket: NewBucket
) -> None:
    holds_the_same(new_bucket("tiny"), disk, tmp_path / "work", "--shared-fs-usage", "none")


def test_jobs_that_share_no_folder_fetch_what_their_rule_names(disk: Disk, tmp_path: Path) -> None:
    """Each job runs in an empty folder of its own, as on another machine."""
    stored, programs = FileStorage(tmp_path / "storage"), tmp_path / "programs"
    programs.mkdir()
    (programs / "squeue").write_text("#!/bin/sh\n")  # asked for jobs of a dead run: none
    (programs / "squeue").chmod(0o755)
    target = "results/tiny/base/seed0/evaluation/segmentation-val.json"
    snakemake(
        tmp_path / "controller",
        *("--workflow-profile", "none", "--jobs", "1", "--executor", "cluster-generic"),
        *("--cluster-generic-submit-cmd", f"bash {HERE}/submit.sh"),
        *("--cluster-generic-status-cmd", f"bash {HERE}/status.sh"),
        *("--config", "companions=null", *stored.words, "--shared-fs-usage", "none", "--", target),
        PATH=f"{programs}:{Path('/usr/local/bin')}:/usr/bin:/bin",
    )
    found, expected = digests(stored.files()), digests(disk.files())
    assert target in found and {path: expected.get(path) for path in found} == found
    logs = [path.read_text() for path in tmp_path.glob("node-*/log")]
    assert len(logs) == 12  # scenes, index, packs, training, 2 x CAMs, labels, ...
    fetched = {
        tuple(sorted(re.findall(r"Retrieving from storage: \S+/packed/images/(\S+)", log)))
        for log in logs
        if "rule compute_cams:" in log
    }
    assert fetched == {("train/0.h5",), ("train/1.h5",)}


def test_fewer_shards_leave_none_behind(tmp_path: Path, new_bucket: NewBucket) -> None:
    bucket, words = new_bucket("shards"), ("--config", "companions=null")
    for shards in ("2", "1"):
        snakemake(
            *(tmp_path, "--cores", "1", *bucket.words, *words, f"shards={shards}"),
            *("--", "results/tiny/packed"),
        )
        packs = {path for path, _ in bucket.files() if path.endswith(".h5")}
        lists = {path for path, _ in bucket.files() if "/index/shards/" in path}
        assert len(packs) == 4 * int(shards) and len(lists) == 2 * int(shards)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table of photographs with masks, and what it names."""
    folder = tmp_path_factory.mktemp("photographs")
    snakemake(folder, "--cores", "1", "--config", "companions=null", "--", "results/tiny/data")
    scenes = folder / "results" / "tiny" / "data" / "VOC2012"
    rows = []
    for split in ("train", "val"):
        for name in (scenes / f"ImageSets/Segmentation/{split}.txt").read_text().split():
            shown = (scenes / "Annotations" / f"{name}.xml").read_text()
            labels = ";".join(re.findall("<name>(.*?)</name>", shown))
            files = f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"
            rows.append((files[0], labels, files[1], split))
    with (scenes / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "labels", "mask", "split"), *rows])
    return scenes


def of_table(place: str) -> tuple[str, ...]:
    """Return the words of a short run on a table of photographs."""
    splits = "train: train, eval_split: train, val: val"
    data = f"dataset={{kind: table, table: {place}, classes: {CLASSES}, {splits}}}"
    return ("--cores", "1", "--config", *SHORT, data)


def test_photographs_are_taken_from_an_address(
    photographs: Path, tmp_path: Path, new_bucket: NewBucket
) -> None:
    snakemake(tmp_path / "disk", *of_table(str(photographs / "images.csv")))
    expected = digests(Disk(tmp_path / "disk").files())
    bucket, source = new_bucket("results"), new_bucket("photographs")
    for path in photographs.rglob("*"):
        if path.is_file():
            source.put(f"set/{path.relative_to(photographs)}", path.read_bytes())
    words = (*of_table("s3://photographs/set/images.csv"), *bucket.words, "--shared-fs-usage")
    snakemake(tmp_path / "work", *words, "none")
    differ = {name for name, digest in digests(bucket.files()).items() if digest != expected[name]}
    assert differ == {"results/tiny/config.yaml"}  # names the table

    assert started(snakemake(tmp_path / "work", *words, "none")) == []
    turned = io.BytesIO()
    Image.open(photographs / "JPEGImages/train_00000.jpg").rotate(180).save(turned, "JPEG")
    source.put("set/JPEGImages/train_00000.jpg", turned.getvalue())
    jobs = [job.split(":")[0] for job in started(snakemake(tmp_path / "work", *words, "none"))]
    assert "index_images" in jobs and "train_base" in jobs and jobs.count("compute_cams") == 2


def test_masks_of_coco_are_drawn_from_an_address(
    coco_tree: Path, tmp_path: Path, new_bucket: NewBucket
) -> None:
    bucket, source = new_bucket("masks"), new_bucket("coco")
    for path in coco_tree.rglob("*"):
        if path.is_file():
            source.put(f"set/{path.relative_to(coco_tree)}", path.read_bytes())
    models = ("companions=null", "models=[base, supervised]", "products=[segmentation]")
    splits = "train: train, eval_split: train, val: val"

    def made(folder: Path, root: str, *words: str) -> None:
        data = f"dataset={{kind: coco, root: {root}, {splits}}}"
        settings = ("--config", *models, "protocol=auto", "shards=1", data)
        masks = ("results/tiny/true_masks/train/0", "results/tiny/masks/val/0")
        snakemake(folder, "--cores", "1", *settings, *words, "--", *masks)

    made(tmp_path / "disk", str(coco_tree))
    made(tmp_path / "work", "s3://coco/set", *bucket.words, "--shared-fs-usage", "none")
    expected = digests(Disk(tmp_path / "disk").files())
    assert digests(bucket.files()) == expected
    assert {f"results/tiny/masks/{name}.png" for name in ("train/0/a", "val/0/e")} <= set(expected)


def test_an_address_without_a_storage_for_results_is_one_line(tmp_path: Path) -> None:
    said = snakemake(tmp_path, *of_table("s3://photographs/set/images.csv"), fails=True)
    assert "error: configuration: dataset.table: an address needs a storage" in said
    assert "Traceback" not in said
