"""The COCO reader."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_coco import CATEGORY_IDS, TRAIN, VAL, write_coco
from brnf.config.sections.data import CocoLabels, Crowds, LabelSource, Overlap
from brnf.data.coco import list_coco
from brnf.data.coco_file import read_shapes
from brnf.data.coco_masks import draw_mask
from brnf.errors import UserError

Content = dict[str, Any]


def test_category_ids_become_ranks(coco_tree: Path) -> None:
    listing = list_coco(coco_tree)
    assert listing.splits == ("train", "val")
    assert listing.classes == ("person", "traffic light", "toothbrush") and listing.mask_values == (
        1,
        2,
        3,
    )
    assert len(CATEGORY_IDS) == 80 and CATEGORY_IDS.index(13) == 11 and CATEGORY_IDS[-1] == 90


@pytest.mark.parametrize("labels_from", ["masks", "annotations"])
@pytest.mark.parametrize("crowds", ["object", "background", "ignore"])
def test_crowds_label_an_image_as_objects_only(
    coco_tree: Path, labels_from: LabelSource, crowds: Crowds
) -> None:
    """c has a crowd only and d nothing: without a label they belong to no split."""
    listing = list_coco(coco_tree, (), CocoLabels(crowds=crowds, labels_from=labels_from))
    found = {entry.id: (set(entry.labels or ()), entry.splits) for entry in listing.entries}
    as_objects = {"c": ({"person"}, ("train",)), "e": ({"person", "traffic light"}, ("val",))}
    assert found == {
        "a": ({"person", "toothbrush"}, ("train",)),
        "b": ({"traffic light"}, ("train",)),
        "e": ({"person"}, ("val",)),
        **(as_objects if crowds == "object" else {}),
    }
    assert listing.unlabelled == {"train": 1 if crowds == "object" else 2, "val": 0}
    assert all(entry.mask is None for entry in listing.entries)
    sizes = {entry.id: entry.size for entry in listing.entries}
    assert sizes["a"] == sizes["e"] == (6, 8) and sizes["b"] == (4, 4)


def cover(root: Path, area: float | None = 16) -> None:
    """Let a toothbrush, annotated last, cover all of b and its traffic light."""
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    outline = {"size": [4, 4], "counts": [0, 16]}
    one = {"image_id": 2, "category_id": 90, "iscrowd": 0, "id": 9, "segmentation": outline}
    content["annotations"].append(one if area is None else {**one, "area": area})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("overlap", "labels_from", "expected"),
    [
        ("later_on_top", "masks", {"toothbrush"}),
        ("later_on_top", "annotations", {"toothbrush", "traffic light"}),
        ("smallest_on_top", "masks", {"toothbrush", "traffic light"}),
    ],
)
def test_a_class_that_is_painted_over_is_no_label_of_the_mask(
    coco_tree: Path, overlap: Overlap, labels_from: LabelSource, expected: set[str]
) -> None:
    cover(coco_tree)
    listing = list_coco(coco_tree, ("train",), CocoLabels(overlap=overlap, labels_from=labels_from))
    assert {entry.id: entry.labels for entry in listing.entries}["b"] == expected


@pytest.mark.parametrize("overlap", ["smallest_on_top", "later_on_top"])
@pytest.mark.parametrize("crowds", ["object", "background", "ignore"])
def test_labels_and_masks_hold_the_same_classes(
    coco_tree: Path, overlap: Overlap, crowds: Crowds
) -> None:
    cover(coco_tree)
    drawing = CocoLabels(overlap=overlap, crowds=crowds)
    for split, names in (("train", "abcd"), ("val", "e")):
        listing = list_coco(coco_tree, (split,), drawing)
        labels = {
            one.id: {listing.classes.index(name) + 1 for name in one.labels or ()}
            for one in listing.entries
        }
        for name, size, shapes in read_shapes(coco_tree, split, names):
            visible = set(draw_mask(shapes, size, drawing).ravel().tolist()) - {0, 255}
            assert labels.get(name, set()) == visible


def test_the_smallest_lies_on_top_only_where_areas_are_known(coco_tree: Path) -> None:
    cover(coco_tree, area=None)
    problem = (
        r"instances_train2014\.json: b: annotation 9 has no area, "
        r"which [^\n]+ needs; restore the file$"
    )
    with pytest.raises(UserError, match=problem):
        list_coco(coco_tree, ("train",))
    assert list_coco(coco_tree, ("train",), CocoLabels(overlap="later_on_top")).entries
    assert list_coco(coco_tree, ("train",), CocoLabels(labels_from="annotations")).entries


def test_drawing_labels_is_watched(coco_tree: Path) -> None:
    seen: list[str] = []

    def watch(images: Any) -> Any:
        for image in images:
            seen.append(image.file_name)
            yield image

    list_coco(coco_tree, ("train",), watch=watch)
    assert seen == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_more_categories_than_a_mask_can_hold_are_one_line(coco_tree: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["categories"] += [
        {"id": number, "name": f"thing {number}"} for number in range(100, 352)
    ]
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"val2014\.json: holds 255 categories, [^\n]+ hold 254; merge some$"
    ):
        list_coco(coco_tree, ("val",))


def test_photographs_lie_in_either_layout(coco_tree: Path) -> None:
    (entry,) = list_coco(coco_tree, ("val",)).entries
    assert entry.image == coco_tree / "val2014" / "e.jpg" and entry.image.is_file()
    (coco_tree / "images").mkdir()
    shutil.move(coco_tree / "val2014", coco_tree / "images")
    (entry,) = list_coco(coco_tree, ("val",)).entries
    assert entry.image == coco_tree / "images" / "val2014" / "e.jpg"


def test_outlines_are_read_for_the_wanted_images_only(coco_tree: Path) -> None:
    found = {
        name: (size, shapes) for name, size, shapes in read_shapes(coco_tree, "train", ["a", "c"])
    }
    size, drawn = found["a"]
    assert set(found) == {"a", "c"} and size == (6, 8)
    assert [(shape.id, shape.value, shape.crowd, shape.area) for shape in drawn] == [
        (1, 1, False, 12),
        (2, 3, False, 24),
    ]
    assert drawn[0].outline == [[1, 1, 5, 1, 5, 4, 1, 4]]
    assert [shape.crowd for shape in found["c"][1]] == [True]
    with pytest.raises(
        UserError, match=r"instances_train2014\.json: image 'e' is not listed; [^\n]+$"
    ):
        next(read_shapes(coco_tree, "train", ["a", "e"]))


def test_a_hundredth_of_coco_keeps_its_proportions(tmp_path: Path) -> None:
    for split, full in (("train", TRAIN), ("val", VAL)):
        write_coco(tmp_path, split, full.scaled(0.01))
    listing = list_coco(tmp_path)
    assert len(listing.classes) == 80 and listing.unlabelled == {"train": 7, "val": 4}
    counts = {
        split: sum(entry.splits == (split,) for entry in listing.entries)
        for split in listing.splits
    }
    assert counts == {"train": 821, "val": 401}


def first_image(content: Content, **changes: Any) -> None:
    content["images"][0].update(changes)


def first_annotation(content: Content, **changes: Any) -> None:
    content["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            lambda content: first_image(content, file_name="../a.jpg"),
            r"'\.\./a\.jpg' is no name of an image",
        ),
        (lambda content: first_image(content, width=0), r"'a\.jpg' cannot have 0x6 pixels"),
        (
            lambda content: first_image(content, width=10**8),
            r"'a\.jpg' cannot have 100000000x6 pixels",
        ),
        (lambda content: first_image(content, id=2), r"an image is listed twice"),
        (lambda content: first_image(content, file_name="b.jpg"), r"an image is listed twice"),
        (
            lambda content: first_annotation(content, image_id=77),
            r"an annotation belongs to image 77, which is not listed",
        ),
        (
            lambda content: first_annotation(content, category_id=2),
            r"an annotation has category 2, which is not listed",
        ),
        (
            lambda content: first_annotation(content, image_id="a"),
            r"cannot be read \(Expected `int`, got `str`[^\n]*annotations\[0\]",
        ),
        (
            lambda content: content.pop("annotations"),
            r"cannot be read \(Object missing required field `annotations`\)",
        ),
        (lambda content: content.update(categories=[]), r"its categories are missing"),
        (lambda content: content.update(annotations=[]), r"no image has a label"),
    ],
)
def test_damaged_annotations_are_one_line(coco_tree: Path, spoil: Any, problem: str) -> None:
    path = coco_tree / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"instances_train2014\.json: [^\n]*{problem}[^\n]*; [^\n]+$"
    ):
        list_coco(coco_tree)


@pytest.mark.parametrize("text", ["", '{"images": [', "\xff", "[]"])
def test_files_that_are_no_annotations_are_one_line(coco_tree: Path, text: str) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(
        UserError,
        match=r"instances_val2014\.json: annotations cannot be read \([^\n]+\); restore the file$",
    ):
        list_coco(coco_tree)


def test_missing_parts_are_one_line(coco_tree: Path) -> None:
    with pytest.raises(
        UserError, match=r"^split 'test': COCO 2014 has instances of train and val only; [^\n]+$"
    ):
        list_coco(coco_tree, ("test",))
    shutil.rmtree(coco_tree / "val2014")
    with pytest.raises(
        UserError, match=r"no folder val2014 or images/val2014 here; unpack [^\n]+$"
    ):
        list_coco(coco_tree)
    (coco_tree / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(
        UserError,
        match=r"instances_val2014\.json: missing; unpack annotations_trainval2014\.zip [^\n]+$",
    ):
        list_coco(coco_tree)


def test_both_splits_need_the_same_categories(coco_tree: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "people"
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError,
        match=r"instances_val2014\.json: its categories differ from those of train; [^\n]+$",
    ):
        list_coco(coco_tree)


def test_names_are_unique_over_both_splits(coco_tree: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text().replace("e.jpg", "a.jpg"))
    with pytest.raises(
        UserError,
        match=r"instances_val2014\.json: image 'a' has a namesake in train; rename one of them$",
    ):
        list_coco(coco_tree)
