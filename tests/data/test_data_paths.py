"""No list, table or file of a data set leads to what is not its own."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data.entries import is_safe_id
from brnf.data.images import image_size, read_image
from brnf.data.index import Index
from brnf.data.masks import read_mask
from brnf.data.table import list_table
from brnf.data.voc import list_voc
from brnf.data.voc_annotations import read_object_names
from brnf.errors import UserError

LEADING_OUT = (
    "../a1",
    "/etc/passwd",
    "..",
    "a/../../b",
    "a1/../a2",
    "~root",
    "C:a",
    "a\\b",
    "-rf",
    ".hidden",
    "a" * 201,
)


def list_of(voc_tree: Path, split: str = "train") -> Path:
    return voc_tree / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / f"{split}.txt"


@pytest.mark.parametrize("name", [*LEADING_OUT, "a\0b", "é", "a b"])
def test_no_id_holds_what_could_lead_out(name: str) -> None:
    assert not is_safe_id(name)
    assert all(
        map(is_safe_id, ("2007_000032", "COCO_train2014_000000000009", "photo-1.2", "a" * 200))
    )


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_list_cannot_name_other_files(voc_tree: Path, name: str) -> None:
    list_of(voc_tree).write_text(f"a1\n{name}\n")
    with pytest.raises(UserError, match=r"train\.txt: '[^\n]+' is no image id; [^\n]+$"):
        list_voc(voc_tree, ("train",))


@pytest.mark.parametrize("split", ["../../secret", "/etc/passwd", ".."])
def test_a_split_cannot_name_other_files(voc_tree: Path, split: str) -> None:
    (voc_tree / "secret.txt").write_text("a1\n")
    with pytest.raises(UserError, match=r"^split '[^\n]+': is no name of a list; [^\n]+$"):
        list_voc(voc_tree, (split,))


def test_a_mask_whose_name_is_no_id_adds_no_image(voc_tree: Path) -> None:
    folder = voc_tree / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    (folder / "a b.png").write_bytes((folder / "a1.png").read_bytes())
    assert [entry.id for entry in list_voc(voc_tree, ("train_aug",)).entries] == ["a1", "a2", "c1"]


def test_links_in_the_root_are_followed(voc_tree: Path, tmp_path: Path) -> None:
    """Whoever may place a link in the root may place a file there; see the module."""
    folder = voc_tree / "VOCdevkit" / "VOC2012" / "JPEGImages"
    (folder / "a1.jpg").rename(tmp_path / "elsewhere.jpg")
    (folder / "a1.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    entry = next(entry for entry in list_voc(voc_tree, ("train",)).entries if entry.id == "a1")
    assert read_image(Path(entry.image)).shape == (10, 12, 3)


def test_an_own_table_leads_where_its_owner_says_and_its_ids_nowhere(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "photo.png")
    (tmp_path / "deeper").mkdir()
    table = tmp_path / "deeper" / "table.csv"
    Image.new("RGB", (3, 2)).save(tmp_path / "-rf.png")
    for path in ("../photo.png", tmp_path / "photo.png", "../-rf.png"):
        table.write_text(f"image,labels\n{path},cat\n")
        (entry,) = list_table(table).entries
        assert is_safe_id(entry.id) and Path(entry.image).samefile(table.parent / path)
    for path, wrong in (
        ("../photo.png\0", "control characters"),
        ("x" * 5000, "is missing"),
    ):
        table.write_text(f"image,labels\n{path},cat\n")
        with pytest.raises(UserError, match=wrong):
            list_table(table)


@pytest.mark.parametrize("labels", ["cat\ndog", "\x1b[2J", "\u202ecat"])
def test_a_label_that_cannot_be_printed_is_refused(tmp_path: Path, labels: str) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "photo.png")
    (tmp_path / "table.csv").write_text(f'image,labels\nphoto.png,"{labels}"\n')
    with pytest.raises(UserError, match="control characters"):
        list_table(tmp_path / "table.csv")


def read_any_mask(path: Path) -> None:
    read_mask(path, (1,))


@pytest.mark.parametrize("read", [read_image, image_size, read_any_mask, read_object_names])
def test_what_is_no_ordinary_file_is_not_opened(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    """A pipe would wait for ever, a device never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "folder", "n" * 300):
        told: list[str] = []

        def attempt(path: Path = tmp_path / name, told: list[str] = told) -> None:
            with pytest.raises(UserError) as error:
                read(path)
            told.append(str(error.value))

        waiting = threading.Thread(target=attempt, daemon=True)
        waiting.start()
        waiting.join(10)
        assert told and "missing" in told[0]


def test_pictures_that_other_programs_would_have_to_draw_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "drawn.eps")
    (tmp_path / "drawn.eps").rename(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match=r"photo\.jpg: image cannot be read \(none of JPEG, PNG"):
        read_image(tmp_path / "photo.jpg")


def test_an_index_with_a_leading_out_id_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("index,name,mask_value\n1,cat,1\n")
    (tmp_path / "root.txt").write_text("data\n")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.csv").write_text(
        "id,path,width,height,labels,digest\n../../x,a.jpg,3,4,1,0a\n"
    )
    with pytest.raises(
        UserError, match=r"damaged part train\.csv of the image index \(\.\./\.\./x: no id"
    ):
        Index.of_split(tmp_path, "train")
