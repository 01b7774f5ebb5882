"""The COCO reader."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_coco import CATEGORY_IDS, TRAIN, VAL, write_coco
from brnf.data.coco import list_coco, read_shapes
from brnf.errors import UserError

Content = dict[str, Any]


def test_category_ids_become_ranks(coco_tree: Path) -> None:
    listing = list_coco(coco_tree)
    assert listing.splits == ("train", "val")
    assert listing.classes == ("person", "traffic light", "toothbrush") and listing.mask_values == (1, 2, 3)
    assert len(CATEGORY_IDS) == 80 and CATEGORY_IDS.index(13) == 11 and CATEGORY_IDS[-1] == 90


def test_labels_are_those_of_single_objects(coco_tree: Path) -> None:
    """c has a crowd only and d nothing: neither carries a label, so neither belongs to its split."""
    listing = list_coco(coco_tree)
    assert {entry.id: (set(entry.labels or ()), entry.splits) for entry in listing.entries} == {
        "a": ({"person", "toothbrush"}, ("train",)),
        "b": ({"traffic light"}, ("train",)),
        "e": ({"person"}, ("val",)),
    }
    assert listing.unlabelled == {"train": 2, "val": 0}
    assert all(entry.mask is None for entry in listing.entries)
    assert {entry.id: entry.size for entry in listing.entries} == {"a": (6, 8), "b": (4, 4), "e": (6, 8)}


def test_photographs_lie_in_either_layout(coco_tree: Path) -> None:
    (entry,) = list_coco(coco_tree, ("val",)).entries
    assert entry.image == coco_tree / "val2014" / "e.jpg" and entry.image.is_file()
    (coco_tree / "images").mkdir()
    shutil.move(coco_tree / "val2014", coco_tree / "images")
    (entry,) = list_coco(coco_tree, ("val",)).entries
    assert entry.image == coco_tree / "images" / "val2014" / "e.jpg"


def test_outlines_are_read_for_the_wanted_images_only(coco_tree: Path) -> None:
    shapes = read_shapes(coco_tree, "train", ["a", "c"])
    size, drawn = shapes["a"]
    assert set(shapes) == {"a", "c"} and size == (6, 8)
    assert [(shape.id, shape.value, shape.crowd) for shape in drawn] == [(1, 1, False), (2, 3, False)]
    assert drawn[0].outline == [[1, 1, 5, 1, 5, 4, 1, 4]]
    assert [shape.crowd for shape in shapes["c"][1]] == [True]
    with pytest.raises(UserError, match=r"instances_train2014\.json: image 'e' is not listed; [^\n]+$"):
        read_shapes(coco_tree, "train", ["a", "e"])


def test_a_hundredth_of_coco_keeps_its_proportions(tmp_path: Path) -> None:
    for split, full in (("train", TRAIN), ("val", VAL)):
        write_coco(tmp_path, split, full.scaled(0.01))
    listing = list_coco(tmp_path)
    assert len(listing.classes) == 80 and listing.unlabelled == {"train": 7, "val": 4}
    counts = {split: sum(entry.splits == (split,) for entry in listing.entries) for split in listing.splits}
    assert counts == {"train": 821, "val": 401}


def first_image(content: Content, **changes: Any) -> None:
    content["images"][0].update(changes)


def first_annotation(content: Content, **changes: Any) -> None:
    content["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda content: first_image(content, file_name="../a.jpg"), r"'\.\./a\.jpg' is no name of an image"),
        (lambda content: first_image(content, width=0), r"'a\.jpg' cannot have 0x6 pixels"),
        (lambda content: first_image(content, width=10**8), r"'a\.jpg' cannot have 100000000x6 pixels"),
        (lambda content: first_image(content, id=2), r"an image is listed twice"),
        (lambda content: first_image(content, file_name="b.jpg"), r"an image is listed twice"),
        (lambda content: first_annotation(content, image_id=77), r"an annotation belongs to image 77, which is not listed"),
        (lambda content: first_annotation(content, category_id=2), r"an annotation has category 2, which is not listed"),
        (lambda content: first_annotation(content, image_id="a"), r"cannot be read \(Expected `int`, got `str`[^\n]*annotations\[0\]"),
        (lambda content: content.pop("annotations"), r"cannot be read \(Object missing required field `annotations`\)"),
        (lambda content: content.update(categories=[]), r"its categories are missing"),
        (lambda content: content.update(annotations=[]), r"no image has a label"),
    ],
)
def test_damaged_annotations_are_one_line(coco_tree: Path, spoil: Any, problem: str) -> None:
    path = coco_tree / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"instances_train2014\.json: [^\n]*{problem}[^\n]*; [^\n]+$"):
        list_coco(coco_tree)


@pytest.mark.parametrize("text", ["", '{"images": [', "\xff", "[]"])
def test_files_that_are_no_annotations_are_one_line(coco_tree: Path, text: str) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"instances_val2014\.json: annotations cannot be read \([^\n]+\); restore the file$"):
        list_coco(coco_tree)


def test_missing_parts_are_one_line(coco_tree: Path) -> None:
    with pytest.raises(UserError, match=r"^split 'test': COCO 2014 has instances of train and val only; [^\n]+$"):
        list_coco(coco_tree, ("test",))
    shutil.rmtree(coco_tree / "val2014")
    with pytest.raises(UserError, match=r"no folder val2014 or images/val2014 here; unpack [^\n]+$"):
        list_coco(coco_tree)
    (coco_tree / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(UserError, match=r"instances_val2014\.json: missing; unpack annotations_trainval2014\.zip [^\n]+$"):
        list_coco(coco_tree)


def test_both_splits_need_the_same_categories(coco_tree: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "people"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances_val2014\.json: its categories differ from those of train; [^\n]+$"):
        list_coco(coco_tree)


def test_names_are_unique_over_both_splits(coco_tree: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text().replace("e.jpg", "a.jpg"))
    with pytest.raises(UserError, match=r"instances_val2014\.json: image 'a' has a namesake in train; rename one of them$"):
        list_coco(coco_tree)
