"""The stage that lists the images."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.config.sections.data import IndexedImages, Scenes
from brnf.data import contents as contents_module
from brnf.data import probing
from brnf.data.contents import FIRST, data_state
from brnf.data.file_table import KnownFiles, read_table
from brnf.data.images import Header, image_header
from brnf.data.index import Index, read_masks, shard_of
from brnf.data.masks import read_mask, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.index_images import Inputs, Options, Outputs, run
from brnf.stages.render_scenes import Options as SceneOptions
from brnf.stages.render_scenes import Outputs as SceneOutputs
from brnf.stages.render_scenes import run as render

QUIET = Runtime(workers=0, progress="none")
ANIMALS = Options(IndexedImages(classes=("dog", "cat")), shards=3)


def build(root: Path, folder: Path, options: Options) -> Path:
    run(Inputs(root=root), Outputs(folder), options, QUIET)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_index_of_a_subset(voc_tree: Path, tmp_path: Path) -> None:
    folder = build(voc_tree, tmp_path / "index", ANIMALS)
    index = Index.of_split(folder, "train_aug")
    assert index.classes == ("dog", "cat") and index.mask_values == (12, 8)
    images = {
        split: [
            (image.id, image.height, image.width, image.labels)
            for image in Index.of_split(folder, split).images
        ]
        for split in ("train", "train_aug", "val")
    }
    a1, c1 = ("a1", 10, 12, (1, 2)), ("c1", 6, 7, (2,))
    assert images == {"train": [a1], "train_aug": [a1, c1], "val": [("b1", 10, 12, (1,))]}
    assert index.images[0].path == voc_tree / "VOCdevkit/VOC2012/JPEGImages/a1.jpg"
    found = read_masks(folder, "train")["a1"].mask
    assert found is not None
    mask = read_mask(found, index.mask_values, size=(10, 12))
    assert set(np.unique(mask)) == {0, 1, 2, 255} and mask[3, 4] == 2 and mask[8, 1] == 1
    # The person fills b1's label list but is no class here: nothing of it reaches the images' list,
    # its pixels are ignored.
    assert set(
        np.unique(
            read_mask(voc_tree / "VOCdevkit/VOC2012/SegmentationClass/a2.png", index.mask_values)
        )
    ) == {255}
    summary = (folder / "summary.md").read_text()
    assert (
        "| images | 1 | 2 | 1 |" in summary
        and "| left out: none of the classes | 1 | 1 | 0 |" in summary
    )


def test_shards_hold_every_image_once_where_its_hash_says(voc_tree: Path, tmp_path: Path) -> None:
    folder = build(voc_tree, tmp_path / "index", replace(ANIMALS, dataset=IndexedImages()))
    for split in ("train", "train_aug", "val"):
        lists = {
            int(path.stem): Index.of_list(folder, path).images
            for path in (folder / "shards" / split).glob("*.csv")
        }
        images = [image for shard in lists.values() for image in shard]
        assert sorted(images, key=lambda image: image.id) == list(
            Index.of_split(folder, split).images
        )
        assert all(
            shard_of(image.id, 3) == shard for shard, images in lists.items() for image in images
        )
        assert all(lists.values())


def changed(voc_tree: Path, folder: Path, before: dict[str, bytes]) -> set[str]:
    """Index again and return the files that are not as before."""
    after = contents(build(voc_tree, folder, ANIMALS))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_only_the_lists_change_that_hold_what_changed(voc_tree: Path, tmp_path: Path) -> None:
    data = voc_tree / "VOCdevkit" / "VOC2012"
    first = contents(build(voc_tree, tmp_path / "index", ANIMALS))
    assert changed(voc_tree, tmp_path / "index", first) == set()
    write_palette_png(data / "SegmentationClass" / "b1.png", np.full((10, 12), 12, np.uint8))
    # The summary counts the pixels of masks.
    assert changed(voc_tree, tmp_path / "index", first) == {"masks/val.csv", "summary.md"}
    (data / "SegmentationClass" / "a1.png").unlink()  # now its SBD mask
    assert changed(voc_tree, tmp_path / "index", first) == {
        "masks/val.csv",
        "masks/train.csv",
        "masks/train_aug.csv",
        "summary.md",
    }
    before = contents(tmp_path / "index")
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(data / "JPEGImages" / "c1.jpg")
    assert changed(voc_tree, tmp_path / "index", before) == {
        "splits/train_aug.csv",
        f"shards/train_aug/{shard_of('c1', 3)}.csv",
    }
    before = contents(tmp_path / "index")
    for name in ("JPEGImages/b1.jpg", "Annotations/b1.xml", "SegmentationClass/b1.png"):
        shutil.copy(data / name, data / name.replace("b1", "b2"))
    with (data / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("b2\n")
    lists = {f"{folder}/val.csv" for folder in ("splits", "masks")} | {
        f"shards/val/{shard_of('b2', 3)}.csv",
        "summary.md",
    }
    assert changed(voc_tree, tmp_path / "index", before) == lists


def test_a_data_set_that_moved_has_the_same_lists(voc_tree: Path, tmp_path: Path) -> None:
    first = contents(build(voc_tree, tmp_path / "index", ANIMALS))
    voc_tree.rename(tmp_path / "elsewhere")
    assert changed(tmp_path / "elsewhere", tmp_path / "index", first) == {"root.txt"}
    (image,) = Index.of_split(tmp_path / "index", "val").images
    assert image.path == tmp_path / "elsewhere" / "VOCdevkit/VOC2012/JPEGImages/b1.jpg"


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["several readers", "one reader"])
def test_the_state_of_the_data_follows_contents_and_not_times(
    voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(contents_module, "AT_ONCE", seconds)
    monkeypatch.setattr(contents_module, "PROBED", 2)
    monkeypatch.setattr(contents_module, "CHUNK", 3)
    index, data = tmp_path / "index", voc_tree / "VOCdevkit" / "VOC2012"
    assert data_state(index) == FIRST
    build(voc_tree, index, ANIMALS)
    assert data_state(index) == FIRST
    files = [path for path in data.rglob("*") if path.name != "t1.jpg"]
    for path in files:
        touch(path)
    before = (tmp_path / "index.files.csv").read_text()
    assert data_state(index) == FIRST
    after = (tmp_path / "index.files.csv").read_text()
    assert (
        before != after
        and data_state(index) == FIRST
        and (tmp_path / "index.files.csv").read_text() == after
    )
    states = [FIRST]
    for change in (
        lambda: write_palette_png(
            data / "SegmentationClass" / "b1.png", np.full((10, 12), 12, np.uint8)
        ),
        lambda: Image.fromarray(np.ones((6, 7, 3), np.uint8)).save(data / "JPEGImages" / "c1.jpg"),
        lambda: (data / "Annotations" / "a1.xml").write_text(
            "<annotation><object><name>cat</name></object><object><name>dog</name></object>"
            "</annotation>"
        ),
        lambda: (data / "ImageSets" / "Segmentation" / "train.txt").write_text("a1\n"),
        lambda: (data / "SegmentationClassAug" / "a1.png").unlink(),
    ):
        change()
        state = data_state(index)
        assert state not in states and data_state(index) == state
        states.append(state)
        build(voc_tree, index, replace(ANIMALS, state=state))
        assert data_state(index) == state
    (tmp_path / "index.files.csv").unlink()
    assert data_state(index) not in states
    (data / "JPEGImages" / "c1.jpg").unlink()
    assert data_state(index) not in states


def test_what_was_decoded_once_is_decoded_again_only_when_it_changes(
    voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def read(path: Path) -> Header:
        decoded.append(path.stem)
        return image_header(path)

    monkeypatch.setattr(probing, "checked_header", read)
    build(
        voc_tree,
        tmp_path / "index",
        replace(ANIMALS, dataset=replace(ANIMALS.dataset, verify=False)),
    )
    assert decoded == []
    build(voc_tree, tmp_path / "index", ANIMALS)
    assert decoded == ["a1", "b1", "c1"]
    changed = voc_tree / "VOCdevkit/VOC2012/JPEGImages/b1.jpg"
    touch(changed)
    build(voc_tree, tmp_path / "index", ANIMALS)
    assert decoded == ["a1", "b1", "c1"]
    changed.write_bytes(changed.read_bytes() + b"more")
    build(voc_tree, tmp_path / "index", ANIMALS)
    assert decoded == ["a1", "b1", "c1", "b1"]


def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of every file whose bytes are read for its digest."""
    read: list[str] = []
    digest = contents_module._digest

    def noted(path: str, found: os.stat_result) -> str:
        read.append(Path(path).name)
        return digest(path, found)

    monkeypatch.setattr(contents_module, "_digest", noted)
    return read


def test_two_photographs_that_change_places_are_seen(
    voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and time of each name stay what they were."""
    index, photographs = tmp_path / "index", voc_tree / "VOCdevkit/VOC2012/JPEGImages"
    one, other = photographs / "a1.jpg", photographs / "b1.jpg"
    for path, end in ((one, b"1"), (other, b"2")):
        path.write_bytes(path.read_bytes() + end)
        touch(path)
    assert one.stat().st_size == other.stat().st_size
    build(voc_tree, index, ANIMALS)
    assert data_state(index) == FIRST
    one.rename(photographs / "aside")
    other.rename(one)
    (photographs / "aside").rename(other)
    assert data_state(index) != FIRST
    shutil.rmtree(index)  # and where the index has to be made again, from the table beside it
    one.write_bytes(one.read_bytes()[:-1] + b"3")
    touch(one)
    before = {seen.digest for _, seen in read_table(tmp_path / "index.files.csv")}
    build(voc_tree, index, ANIMALS)
    (image,) = [found for found in Index.of_split(index, "train").images if found.id == "a1"]
    assert image.digest not in before


def test_data_that_move_to_another_file_system_are_read_once(
    voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, elsewhere = tmp_path / "index", tmp_path / "moved"
    build(voc_tree, index, ANIMALS)
    voc_tree.rename(elsewhere)
    shutil.copytree(elsewhere, voc_tree)  # of other inodes and times
    read = read_files(monkeypatch)
    assert data_state(index) == FIRST and "a1.jpg" in read
    read.clear()
    assert data_state(index) == FIRST and read == []


def test_a_table_of_before_is_brought_up_to_date(
    voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    build(voc_tree, index, ANIMALS)
    table = tmp_path / "index.files.csv"
    with table.open(newline="") as file:
        rows = [[row[0], *row[1:3], *row[5:7]] for row in csv.reader(file)]
    with table.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    assert data_state(index) == FIRST
    read = read_files(monkeypatch)
    assert data_state(index) == FIRST and read == []


def test_line_breaks_and_bytes_in_the_name_of_a_folder_above_changes_nothing(
    voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / os.fsdecode(b'a\rb\nc,"d caf\xe9')
    voc_tree.rename(odd)
    (odd / "VOCdevkit/VOC2012/JPEGImages" / os.fsdecode(b"stray caf\xe9.txt")).touch()
    build(odd, tmp_path / "index", ANIMALS)
    read = read_files(monkeypatch)
    assert data_state(tmp_path / "index") == FIRST and read == []
    assert all(image.path.is_file() for image in Index.of_split(tmp_path / "index", "train").images)


def test_a_damaged_table_of_contents_is_as_good_as_none(voc_tree: Path, tmp_path: Path) -> None:
    build(voc_tree, tmp_path / "index", ANIMALS)
    for text in (
        "",
        "path\n",
        "path,size,modified,digest,decoded\nx,1\n",
        "path,size,modified,changed,inode,digest,decoded,header\nx,a,1,1,1,y,True,\n",
    ):
        (tmp_path / "index.files.csv").write_text(text)
        assert KnownFiles(tmp_path / "index.files.csv").get("x") is None
        assert data_state(tmp_path / "index") != FIRST


@pytest.mark.parametrize(
    "text", ["", "id,path\na,b\n", "id,path,width,height,labels,digest\na,b,c,4,1,x\n"]
)
def test_a_damaged_list_is_one_line(voc_tree: Path, tmp_path: Path, text: str) -> None:
    folder = build(voc_tree, tmp_path / "index", ANIMALS)
    for path in (folder / "splits" / "val.csv", folder / "classes.csv"):
        kept = path.read_text()
        path.write_text(text)
        with pytest.raises(
            UserError,
            match=rf"index: missing or damaged part {path.name} of the image index [^\n]*; [^\n]+$",
        ):
            Index.of_split(folder, "val")
        path.write_text(kept)
    with pytest.raises(
        UserError, match=r"^split 'test' holds no image; the data set has: train, train_aug, val$"
    ):
        Index.of_split(folder, "test")


def test_scenes_carry_their_contexts(tmp_path: Path) -> None:
    render(SceneOutputs(tmp_path / "scenes"), SceneOptions(Scenes(train=3, val=2, size=48)), QUIET)
    folder = build(tmp_path / "scenes", tmp_path / "index", Options(IndexedImages(kind="scenes")))
    indices = {split: Index.of_split(folder, split) for split in ("train", "val")}
    assert {split: len(index.images) for split, index in indices.items()} == {"train": 3, "val": 2}
    for split, index in indices.items():
        masks = read_masks(folder, split)
        assert len(index.classes) == 6 and list(masks) == [image.id for image in index.images]
        for image in index.images:
            mask, context = masks[image.id].mask, masks[image.id].context
            assert (
                mask is not None
                and tuple(np.unique(read_mask(mask, index.mask_values)))[1:] == image.labels
            )
            assert context is not None and context.match(f"ContextClass/{image.id}.png")


def test_a_table_with_a_turned_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "one.jpg", exif=exif)
    write_palette_png(tmp_path / "mask.png", np.ones((9, 4), np.uint8))
    (tmp_path / "own.csv").write_text("image,labels,mask\none.jpg,cat,mask.png\n")
    run(
        Inputs(table=tmp_path / "own.csv"),
        Outputs(tmp_path / "index"),
        Options(IndexedImages(kind="table")),
        QUIET,
    )
    (image,) = Index.of_split(tmp_path / "index", "train").images
    assert (image.height, image.width, image.labels) == (9, 4, (1,))


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
        build(
            voc_tree,
            tmp_path / "out" / "index",
            replace(ANIMALS, dataset=replace(ANIMALS.dataset, verify=verify)),
        )
    # What was read until then is kept for the next run.
    kept = {"index.files.checkpoint.csv", "index.masks.csv"}
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} <= kept
    assert not list((tmp_path / "out").glob("*.part"))


def test_several_bad_images_are_counted_and_the_first_is_named(
    voc_tree: Path, tmp_path: Path
) -> None:
    for name in ("a1", "b1"):
        (voc_tree / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"a1\.jpg: [^\n]*\(2 bad images in all: a1, b1\)$"):
        build(voc_tree, tmp_path / "index", ANIMALS)


def test_a_failed_run_leaves_the_older_index_alone(voc_tree: Path, tmp_path: Path) -> None:
    first = contents(build(voc_tree, tmp_path / "index", ANIMALS))
    damage(voc_tree / "VOCdevkit" / "VOC2012", "truncated")
    with pytest.raises(UserError):
        build(voc_tree, tmp_path / "index", ANIMALS)
    assert contents(tmp_path / "index") == first


def test_inputs_that_do_not_fit_the_kind(tmp_path: Path) -> None:
    for options, key in (
        (Options(IndexedImages(kind="table")), "dataset.table"),
        (Options(), "dataset.root"),
    ):
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
        "--dataset.kind",
        "voc",
        "--dataset.classes",
        "cat",
        "dog",
        "--dataset.verify",
        "False",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout.strip() == "False"
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and "expected [VOCdevkit/]VOC2012/" in done.stderr
    )
