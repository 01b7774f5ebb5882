"""The VOC reader."""

import gzip
from pathlib import Path

import pytest

from brnf.data.entries import select_classes
from brnf.data.voc import (
    VOC_CLASSES,
    derive_train_aug,
    find_voc,
    list_voc,
    read_split,
)
from brnf.data.voc_annotations import read_object_names
from brnf.errors import UserError

LISTS = Path(__file__).parent / "lists"


def official(split: str) -> list[str]:
    return gzip.decompress((LISTS / f"voc12_{split}.txt.gz").read_bytes()).decode().split()


def test_train_aug_of_a_real_download_is_the_official_list(tmp_path: Path) -> None:
    """Empty files named as in the download: the SBD masks cover train_aug and val."""
    train, train_aug, val = (official(split) for split in ("train", "train_aug", "val"))
    assert (len(train), len(train_aug), len(val)) == (1464, 10582, 1449)
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    for split, ids in (("train", train), ("val", val)):
        (tmp_path / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids))
    for name in (*train_aug, *val):
        (tmp_path / "SegmentationClassAug" / f"{name}.png").touch()
    assert derive_train_aug(tmp_path) == sorted(train_aug)
    assert read_split(tmp_path, "trainval") == sorted(train + val)
    for name in train:  # SBD releases without the official images: train joins all the same
        (tmp_path / "SegmentationClassAug" / f"{name}.png").unlink()
    assert derive_train_aug(tmp_path) == sorted(train_aug)


def test_the_root_may_be_given_at_three_heights(voc_tree: Path) -> None:
    folder = voc_tree / "VOCdevkit" / "VOC2012"
    assert find_voc(voc_tree) == find_voc(voc_tree / "VOCdevkit") == find_voc(folder) == folder
    with pytest.raises(
        UserError, match=r"nowhere: no VOC 2012 here; expected [^\n]*JPEGImages[^\n]*$"
    ):
        find_voc(voc_tree / "nowhere")


def test_labels_splits_and_masks(voc_tree: Path) -> None:
    listing = list_voc(voc_tree)
    assert listing.splits == ("train", "train_aug", "val")
    assert listing.classes == VOC_CLASSES and listing.mask_values == tuple(range(1, 21))
    assert {entry.id: (entry.labels, entry.splits) for entry in listing.entries} == {
        "a1": ({"cat", "dog"}, ("train", "train_aug")),
        "a2": ({"person"}, ("train", "train_aug")),
        "b1": ({"dog", "person"}, ("val",)),
        "c1": ({"cat"}, ("train_aug",)),
    }
    folders = {entry.id: Path(entry.mask).parent.name for entry in listing.entries if entry.mask}
    assert folders == {
        "a1": "SegmentationClass",
        "a2": "SegmentationClass",
        "b1": "SegmentationClass",
        "c1": "SegmentationClassAug",
    }


def test_a_test_split_needs_no_labels(voc_tree: Path) -> None:
    (entry,) = list_voc(voc_tree, ("test",)).entries
    assert entry.id == "t1" and entry.labels is None and entry.mask is None
    subset, left_out = select_classes(list_voc(voc_tree, ("test",)), ("cow",))
    assert [entry.id for entry in subset.entries] == ["t1"] and not left_out


def test_a_class_subset_keeps_its_order_and_mask_values(voc_tree: Path) -> None:
    subset, left_out = select_classes(list_voc(voc_tree), ("dog", "cat"))
    assert subset.classes == ("dog", "cat") and subset.mask_values == (12, 8)
    assert {entry.id: entry.labels for entry in subset.entries} == {
        "a1": {"cat", "dog"},
        "b1": {"dog"},
        "c1": {"cat"},
    }
    assert left_out == {"train": 1, "train_aug": 1}


def test_bad_subsets_are_one_line(voc_tree: Path) -> None:
    listing = list_voc(voc_tree)
    with pytest.raises(
        UserError, match=r"^dataset\.classes: 'unicorn' is no class [^\n]*aeroplane[^\n]*$"
    ):
        select_classes(listing, ("cat", "unicorn"))
    with pytest.raises(
        UserError, match=r"^dataset\.classes: 'cat' is given more than once; [^\n]+$"
    ):
        select_classes(listing, ("cat", "cat"))
    with pytest.raises(
        UserError, match=r"^split 'val': holds no image with a label of cat; [^\n]+$"
    ):
        select_classes(listing, ("cat",))


def test_bad_splits_are_one_line(voc_tree: Path) -> None:
    folder = find_voc(voc_tree)
    with pytest.raises(
        UserError,
        match=r"split 'minival' cannot be read; choose one of: test, train, train_aug, val$",
    ):
        read_split(folder, "minival")
    path = folder / "ImageSets/Segmentation/val.txt"
    path.write_text("\n \n")
    with pytest.raises(UserError, match=r"val\.txt: split 'val' is empty; [^\n]+$"):
        read_split(folder, "val")
    path.write_text("../../etc/passwd\n")
    with pytest.raises(
        UserError, match=r"val\.txt: '\.\./\.\./etc/passwd' is no image id; [^\n]+$"
    ):
        read_split(folder, "val")
    (folder / "SegmentationClassAug").rename(folder / "SBD")
    with pytest.raises(
        UserError, match=r"SegmentationClassAug: missing, and train_aug needs [^\n]+$"
    ):
        read_split(folder, "train_aug")
    path.write_text("b1\n")
    assert list_voc(voc_tree).splits == ("train", "val")


def test_annotations_name_objects_not_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><object><part><name>head</name></part><name> d&amp;g "
        "</name></object><name>x</name></annotation>"
    )
    assert read_object_names(path) == {"d&g"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "<!DOCTYPE a [<!ENTITY b "
            "'cat'>]><annotation><object><name>&b;</name></object></annotation>",
            "document type",
        ),
        ("<annotation><object>", "cannot be read"),
        ("", "cannot be read"),
        (
            "<annotation><object><name>unicorn</name></object></annotation>",
            "unknown class 'unicorn'",
        ),
    ],
)
def test_bad_annotations_are_one_line(voc_tree: Path, text: str, problem: str) -> None:
    (find_voc(voc_tree) / "Annotations" / "a1.xml").write_text(text)
    with pytest.raises(UserError, match=rf"a1\.xml: [^\n]*{problem}[^\n]*;[^\n]*$") as caught:
        list_voc(voc_tree)
    assert "\n" not in str(caught.value)


def test_a_missing_annotation_is_one_line(voc_tree: Path) -> None:
    (find_voc(voc_tree) / "Annotations" / "a1.xml").unlink()
    with pytest.raises(UserError, match=r"a1\.xml: annotation is missing; [^\n]+$"):
        list_voc(voc_tree)
