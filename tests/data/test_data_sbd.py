"""SBD's archive in VOC's layout: fetched from a server of its own, made masks."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from brnf.data.index import Index
from brnf.data.masks import colour_map, read_values
from brnf.data.sbd import convert_sbd, read_segmentation
from brnf.data.voc import read_split
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages import convert_sbd as stage
from brnf.stages import download_archives, index_images
from tests.archive_server import running_server, tarred

QUIET = Runtime(workers=0, progress="none")
LISTS = {"train.txt": b"a1\nc1\n", "val.txt": b"b1\n"}
"""a1 is in VOC's train, too, b1 in its val; a2 in its train only."""


def matlab(values: np.ndarray, name: str = "GTcls") -> bytes:
    """Return a file as SBD has them: a structure with the segmentation and more."""
    file = io.BytesIO()
    fields = {"Segmentation": values, "CategoriesPresent": np.unique(values)}
    scipy.io.savemat(file, {name: fields}, do_compression=True)
    return file.getvalue()


MASK = np.zeros((6, 7), np.uint8)
MASK[2:5, 1:4] = 8


def content(files: Mapping[str, bytes] = {}) -> dict[str, bytes]:
    """Return path -> content of benchmark.tgz; ``files`` go over those of its folder."""
    masks = {f"cls/{name}.mat": matlab(MASK) for name in ("a1", "b1", "c1")}
    whole = {**LISTS, **masks, "img/c1.jpg": b"", **files}
    return {f"benchmark_RELEASE/dataset/{name}": text for name, text in whole.items()}


def archive() -> bytes:
    """Return benchmark.tgz."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(tarred(content()))) as old,
        tarfile.open(fileobj=packed, mode="w:gz") as new,
    ):
        for member in old:
            new.addfile(member, old.extractfile(member))
    return packed.getvalue()


def unpacked(folder: Path, files: Mapping[str, bytes] = {}) -> Path:
    """Write the files of benchmark.tgz to a folder and return it."""
    for name, text in content(files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return folder


@pytest.fixture
def voc(voc_tree: Path) -> Path:
    """Return VOC2012 as it is downloaded: without anything of SBD's."""
    folder = voc_tree / "VOCdevkit" / "VOC2012"
    for path in (folder / "SegmentationClassAug").iterdir():
        path.unlink()
    (folder / "SegmentationClassAug").rmdir()
    return folder


def test_masks_and_list_stand_where_the_layout_has_them(voc: Path, tmp_path: Path) -> None:
    sbd, record = tmp_path / "sbd", tmp_path / "sbd" / "masks.json"
    with running_server() as server:
        server.files["benchmark.tgz"] = archive()
        download_archives.run(
            download_archives.Inputs(sbd),
            download_archives.Outputs(sbd / "unpacked.json"),
            download_archives.Options(
                (server.address("benchmark.tgz"),), (hashlib.md5(archive()).hexdigest(),)
            ),
            QUIET,
        )
    inputs = stage.Inputs(sbd, voc.parents[1])
    for _ in range(2):  # a second call replaces what the first wrote
        stage.run(inputs, stage.Outputs(record), stage.Options(), QUIET)
        assert record.read_text() == '{"masks": 2, "train_aug": 3}\n'
    assert read_split(voc, "train_aug") == ["a1", "a2", "c1"]
    masks = voc / "SegmentationClassAug"
    assert sorted(path.name for path in masks.glob("*.png")) == ["a1.png", "c1.png"], "none of val"
    values, colours = read_values(masks / "c1.png")
    np.testing.assert_array_equal(values, MASK)
    np.testing.assert_array_equal(colours, colour_map())
    (masks / "a1.png").write_bytes(b"")  # VOC's own mask counts where there are both
    index_images.run(
        index_images.Inputs(root=voc),
        index_images.Outputs(tmp_path / "index"),
        index_images.Options(splits=("train_aug", "val"), shards=1),
        QUIET,
    )
    images = Index.of_split(tmp_path / "index", "train_aug").images
    assert {image.id: image.labels for image in images}["c1"] == (8,)


def test_what_others_made_stays(voc: Path, tmp_path: Path) -> None:
    sbd = unpacked(tmp_path / "sbd")
    (voc / "SegmentationClassAug").mkdir()
    Image.fromarray(MASK).save(voc / "SegmentationClassAug" / "b1.png")
    with pytest.raises(UserError, match=r"SegmentationClassAug: holds b1\.png, which [^\n]+$"):
        convert_sbd(sbd, voc)
    (voc / "SegmentationClassAug" / "b1.png").unlink()
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("c1\n")
    with pytest.raises(UserError, match=r"train_aug\.txt: is another list than SBD's; [^\n]+$"):
        convert_sbd(sbd, voc)
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").unlink()
    Image.fromarray(MASK).save(voc / "SegmentationClassAug" / "a1.png")
    with pytest.raises(
        UserError, match=r"holds a1\.png and was not written by this program, [^\n]+$"
    ):
        convert_sbd(sbd, voc)
    assert [path.name for path in (voc / "SegmentationClassAug").iterdir()] == ["a1.png"]


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        (b"no MATLAB file", "cannot be read"),
        (matlab(MASK)[:150], "cannot be read"),
        (matlab(MASK, "GTinst"), r"cannot be read \('GTcls'\)"),
        (matlab(np.full((3, 3), 21)), "its values are not 0 to 20"),
        (matlab(np.full((3, 3), 0.5)), "its values are not 0 to 20"),
        (matlab(np.zeros((2, 3, 3))), "holds no segmentation"),
    ],
)
def test_damage_is_one_line_and_leaves_nothing(
    voc: Path, tmp_path: Path, damaged: bytes, problem: str
) -> None:
    sbd = unpacked(tmp_path / "sbd", {"cls/c1.mat": damaged})
    with pytest.raises(UserError, match=rf"c1\.mat: [^\n]*(?:{problem})[^\n]+$"):
        convert_sbd(sbd, voc)
    assert not (voc / "SegmentationClassAug").exists()
    assert not (voc / "ImageSets" / "Segmentation" / "train_aug.txt").exists()


def test_missing_files_are_named(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset/train\.txt: [^\n]+$"):
        convert_sbd(tmp_path / "sbd", voc)
    with pytest.raises(UserError, match=r"no VOC 2012 here; [^\n]+$"):
        convert_sbd(tmp_path / "sbd", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"a\.mat: SBD's segmentation cannot be read [^\n]+$"):
        read_segmentation(tmp_path / "a.mat")
