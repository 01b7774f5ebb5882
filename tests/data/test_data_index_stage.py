"""The stage that lists the images."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data.index import Index, read_ids, shard_of
from brnf.data.masks import read_mask, write_palette_png
from brnf.errors import UserError
from brnf.stages.common import Runtime
from brnf.stages.index_images import Inputs, Options, Outputs, run
from brnf.stages.render_scenes import Options as SceneOptions
from brnf.stages.render_scenes import Outputs as SceneOutputs
from brnf.stages.render_scenes import run as render

QUIET = Runtime(progress="none")
ANIMALS = Options(classes=("dog", "cat"), shards=3)


def build(root: Path, folder: Path, options: Options) -> Path:
    run(Inputs(root=root), Outputs(folder), options, QUIET)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_index_of_a_subset(voc_tree: Path, tmp_path: Path) -> None:
    folder = build(voc_tree, tmp_path / "index", ANIMALS)
    index = Index.read(folder)
    assert index.classes == ("dog", "cat") and index.mask_values == (12, 8)
    assert [(image.id, image.height, image.width, image.labels, image.splits) for image in index.images] == [
        ("a1", 10, 12, (1, 2), ("train", "train_aug")),
        ("b1", 10, 12, (1,), ("val",)),
        ("c1", 6, 7, (2,), ("train_aug",)),
    ]
    rows = {row["id"]: row for row in csv.DictReader((folder / "masks.csv").open())}
    mask = read_mask(Path(rows["a1"]["mask"]), index.mask_values, size=(10, 12))
    assert set(np.unique(mask)) == {0, 1, 2, 255} and mask[3, 4] == 2 and mask[8, 1] == 1
    # The person fills b1's label list but is no class here: nothing of it reaches the images' list, its pixels are ignored.
    assert set(np.unique(read_mask(voc_tree / "VOCdevkit/VOC2012/SegmentationClass/a2.png", index.mask_values))) == {255}
    summary = (folder / "summary.md").read_text()
    assert "| images | 1 | 2 | 1 |" in summary and "| left out: none of the classes | 1 | 1 | 0 |" in summary


def test_shards_hold_every_image_once_where_its_hash_says(voc_tree: Path, tmp_path: Path) -> None:
    folder = build(voc_tree, tmp_path / "index", replace(ANIMALS, classes=()))
    index = Index.read(folder)
    for split in ("train", "train_aug", "val"):
        lists = {int(path.stem): read_ids(path) for path in (folder / "shards" / split).glob("*.txt")}
        assert sorted(name for ids in lists.values() for name in ids) == [image.id for image in index.split(split)]
        assert all(shard_of(name, 3) == shard for shard, ids in lists.items() for name in ids)
        assert all(lists.values())


def test_masks_do_not_reach_the_list_of_images_and_nothing_else_changes_it(voc_tree: Path, tmp_path: Path) -> None:
    first = contents(build(voc_tree, tmp_path / "a", ANIMALS))
    assert contents(build(voc_tree, tmp_path / "a", ANIMALS)) == first
    for name in ("a1", "b1"):
        write_palette_png(voc_tree / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png", np.full((10, 12), 1, np.uint8))
    assert contents(build(voc_tree, tmp_path / "b", ANIMALS)) == first
    for name in ("a1", "b1"):
        (voc_tree / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png").unlink()
    second = contents(build(voc_tree, tmp_path / "c", ANIMALS))
    assert {name for name in first if first[name] != second[name]} == {"masks.csv"}  # now the SBD masks


def test_scenes_carry_their_contexts(tmp_path: Path) -> None:
    render(SceneOutputs(tmp_path / "scenes"), SceneOptions(train=3, val=2, size=48), QUIET)
    folder = build(tmp_path / "scenes", tmp_path / "index", Options(kind="scenes"))
    index = Index.read(folder)
    assert len(index.split("train")) == 3 and len(index.split("val")) == 2 and len(index.classes) == 6
    for row in csv.DictReader((folder / "masks.csv").open()):
        (image,) = index.select([row["id"]])
        assert tuple(np.unique(read_mask(Path(row["mask"]), index.mask_values)))[1:] == image.labels
        assert row["context"].endswith(f"ContextClass/{image.id}.png")


def test_a_table_with_a_turned_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "one.jpg", exif=exif)
    write_palette_png(tmp_path / "mask.png", np.zeros((9, 4), np.uint8))
    (tmp_path / "own.csv").write_text("image,labels,mask\none.jpg,cat,mask.png\n")
    run(Inputs(table=tmp_path / "own.csv"), Outputs(tmp_path / "index"), Options(kind="table"), QUIET)
    (image,) = Index.read(tmp_path / "index").images
    assert (image.height, image.width, image.labels, image.splits) == (9, 4, (1,), ("train",))


def damage(folder: Path, what: str) -> None:
    image, mask = folder / "JPEGImages" / "b1.jpg", folder / "SegmentationClass" / "b1.png"
    if what == "truncated":
        image.write_bytes(image.read_bytes()[:-40])
    elif what == "missing":
        image.unlink()
    elif what == "mask size":
        write_palette_png(mask, np.zeros((12, 10), np.uint8))
    elif what == "mask truncated":
        mask.write_bytes(mask.read_bytes()[:-30])
    elif what == "no picture":
        image.write_bytes(b"<html>")


@pytest.mark.parametrize(
    ("what", "found", "verify"),
    [
        ("truncated", r"b1\.jpg: image cannot be read", True),
        ("missing", r"b1\.jpg: image is missing", False),
        ("no picture", r"b1\.jpg: image cannot be read", False),
        ("mask size", r"b1\.png: the mask is 10x12 pixels, its image 12x10", True),
        ("mask size", r"b1\.png: the mask is 10x12 pixels, its image 12x10", False),
        ("mask truncated", r"b1\.png: mask cannot be read", True),
    ],
)
def test_damaged_files_stop_the_stage_with_one_line_and_no_output(
    voc_tree: Path, tmp_path: Path, what: str, found: str, verify: bool
) -> None:
    damage(voc_tree / "VOCdevkit" / "VOC2012", what)
    with pytest.raises(UserError, match=rf"{found}[^\n]*; [^\n]+$"):
        build(voc_tree, tmp_path / "out" / "index", replace(ANIMALS, verify=verify))
    assert not list((tmp_path / "out").glob("[!.]*")) and not list((tmp_path / "out").glob("*.part"))


def test_several_bad_images_are_counted_and_the_first_is_named(voc_tree: Path, tmp_path: Path) -> None:
    for name in ("a1", "b1"):
        (voc_tree / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"a1\.jpg: [^\n]*\(2 bad images in all\)$"):
        build(voc_tree, tmp_path / "index", ANIMALS)


def test_a_failed_run_leaves_the_older_index_alone(voc_tree: Path, tmp_path: Path) -> None:
    first = contents(build(voc_tree, tmp_path / "index", ANIMALS))
    damage(voc_tree / "VOCdevkit" / "VOC2012", "truncated")
    with pytest.raises(UserError):
        build(voc_tree, tmp_path / "index", ANIMALS)
    assert contents(tmp_path / "index") == first


def test_inputs_that_do_not_fit_the_kind(tmp_path: Path) -> None:
    for options, key in ((Options(kind="table"), "dataset.table"), (Options(), "dataset.root")):
        with pytest.raises(UserError, match=rf"^{key}: kind [^\n]+; set it to [^\n]+$"):
            run(Inputs(), Outputs(tmp_path / "index"), options, QUIET)
    with pytest.raises(UserError, match=r"^shards: 0 is out of range; [^\n]+$"):
        run(Inputs(root=tmp_path), Outputs(tmp_path / "index"), Options(shards=0), QUIET)


def test_the_command_line_ends_in_one_line_without_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('brnf.stages.index_images', run_name='__main__')\n"
        "finally:\n    print('torch' in sys.modules)"
    )
    flags = [
        "--root",
        str(tmp_path / "nowhere"),
        "--index",
        str(tmp_path / "index"),
        "--kind",
        "voc",
        "--classes",
        "cat",
        "dog",
        "--verify",
        "False",
    ]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout.strip() == "False"
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "expected [VOCdevkit/]VOC2012/" in done.stderr
