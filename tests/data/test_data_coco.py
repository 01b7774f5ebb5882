"""The COCO reader."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_coco import CATEGORY_IDS, TRAIN, VAL, write_coco
from brnf.config.sections.data import CocoLabels, Crowds, LabelSource, Overlap
from brnf.data.coco import list_coco
from brnf.data.coco_file import read_shapes
from brnf.data.coco_masks import draw_mask
from brnf.data.entries import select_classes
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
    """c has a crowd only and d nothing: without a label they show none of the classes."""
    whole = list_coco(coco_tree, (), CocoLabels(crowds=crowds, labels_from=labels_from))
    assert {entry.id for entry in whole.entries} == set("abcde")
    listing, _ = select_classes(whole, (), negatives=False)
    found = {entry.id: (set(entry.labels or ()), entry.splits) for entry in listing.entries}
    as_objects = {"c": ({"person"}, ("train",)), "e": ({"person", "traffic light"}, ("val",))}
    assert found == {
        "a": ({"person", "toothbrush"}, ("train",)),
        "b": ({"traffic light"}, ("train",)),
        "e": ({"person"}, ("val",)),
        **(as_objects if crowds == "object" else {}),
    }
    assert listing.unlabelled == {"train": 1 if crowds == "object" else 2}
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


@pytest.mark.parametrize("area", [None, 0])
def test_an_area_that_is_not_told_is_measured(coco_tree: Path, area: float | None) -> None:
    cover(coco_tree, area)
    without = list_coco(coco_tree, ("train",)).entries
    path = coco_tree / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    content["annotations"][-1]["area"] = 16
    path.write_text(json.dumps(content))
    assert list_coco(coco_tree, ("train",)).entries == without


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
        {"id": number, "name": f"thing {number}"} for number in range(100, 65_632)
    ]
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"val2014\.json: holds 65535 categories, [^\n]+ hold 65534; merge some$"
    ):
        list_coco(coco_tree, ("val",))


def test_photographs_lie_in_either_layout(coco_tree: Path) -> None:
    (entry,) = list_coco(coco_tree, ("val",)).entries
    assert Path(entry.image) == coco_tree / "val2014" / "e.jpg" and Path(entry.image).is_file()
    (coco_tree / "images").mkdir()
    shutil.move(coco_tree / "val2014", coco_tree / "images")
    (entry,) = list_coco(coco_tree, ("val",)).entries
    assert Path(entry.image) == coco_tree / "images" / "val2014" / "e.jpg"


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
    listing, _ = select_classes(list_coco(tmp_path), (), negatives=False)
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
            r"an annotation belongs to image a, which is not listed",
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


def edited(root: Path, change: Any) -> Path:
    """Change what the file of train says, and return it."""
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def every(part: str, change: Any) -> Any:
    """Return a change of all images, annotations or categories of a file."""

    def changed(content: Content) -> None:
        for one in content[part]:
            one.update(change(one))

    return changed


AS_TOOLS_WRITE = {
    "iscrowd is true or false": every("annotations", lambda one: {"iscrowd": bool(one["iscrowd"])}),
    "iscrowd is text": every("annotations", lambda one: {"iscrowd": str(one["iscrowd"])}),
    "iscrowd is null where it is 0": every(
        "annotations", lambda one: {"iscrowd": one["iscrowd"] or None}
    ),
    "ids of annotations are text": every("annotations", lambda one: {"id": f"n{one['id']}"}),
    "ids of annotations are null": every("annotations", lambda one: {"id": None}),
    "ids of images are text": lambda content: (
        every("images", lambda one: {"id": f"i{one['id']}"})(content),
        every("annotations", lambda one: {"image_id": f"i{one['image_id']}"})(content),
    ),
    "ids of images are numbers as text": every("images", lambda one: {"id": str(one["id"])}),
    "ids of categories are numbers as text": every(
        "categories", lambda one: {"id": str(one["id"])}
    ),
    "ids of categories have a point": every(
        "annotations", lambda one: {"category_id": float(one["category_id"])}
    ),
    "sizes have a point": every(
        "images", lambda one: {"width": float(one["width"]), "height": f"{one['height']}.0"}
    ),
    "areas are not a number": every("annotations", lambda one: {"area": float("nan")}),
    "areas are text": every("annotations", lambda one: {"area": str(one["area"])}),
    "there is a root": lambda content: (
        every("categories", lambda one: {"supercategory": "things"})(content),
        content["categories"].append({"id": 0, "name": "things", "supercategory": "none"}),
    ),
    "a category is above itself": every("categories", lambda one: {"supercategory": one["name"]}),
}


@pytest.mark.parametrize("kind", AS_TOOLS_WRITE)
def test_files_mean_the_same_as_tools_write_them(coco_tree: Path, kind: str) -> None:
    def found() -> Any:
        shapes = {
            name: [(shape.value, shape.crowd) for shape in shapes]
            for name, _, shapes in read_shapes(coco_tree, "train", "abcd")
        }
        listing = list_coco(coco_tree, ("train",))
        return replace(listing, notes=()), shapes, listing.notes

    *before, none = found()
    edited(coco_tree, AS_TOOLS_WRITE[kind])
    *after, notes = found()
    assert after == before and none == ()
    told = [note for note in notes if note.endswith("and above others, so no class: things")]
    assert len(told) == len(notes) == (kind == "there is a root"), "what is left out is told"


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"\n "])
def test_a_byte_order_mark_is_no_part_of_the_file(coco_tree: Path, start: bytes) -> None:
    before = list_coco(coco_tree)
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_bytes(start + path.read_bytes())
    assert list_coco(coco_tree) == before
    path.write_text(path.read_text("utf-8-sig"), encoding="utf-16")
    with pytest.raises(UserError, match=r"val2014\.json: is written in UTF-16; save it as UTF-8$"):
        list_coco(coco_tree)


@pytest.mark.parametrize("outline", [[], [[]], None, "missing"])
def test_a_box_without_an_outline_is_refused(coco_tree: Path, outline: Any) -> None:
    def change(content: Content) -> None:
        one = content["annotations"][1]
        one.pop("segmentation") if outline == "missing" else one.update(segmentation=outline)

    edited(coco_tree, change)
    problem = r"train2014\.json: annotation 2 has no outline, only a box or nothing; [^\n]+$"
    with pytest.raises(UserError, match=problem):
        list_coco(coco_tree, ("train",))
    assert list_coco(coco_tree, ("train",), CocoLabels(labels_from="annotations")).entries
    with pytest.raises(UserError, match=problem):
        list(read_shapes(coco_tree, "train", ["a"]))


NAMES = {
    "batch 1/my photo (1).jpg": "my_photo_1_",
    "Übung.jpg": "_bung",
    "deep\\er\\a.b.jpeg": "a.b",
    "-x.jpg": "_x",
}


@pytest.mark.parametrize("name", NAMES)
def test_photographs_are_called_as_people_call_them(coco_tree: Path, name: str) -> None:
    edited(coco_tree, lambda content: first_image(content, file_name=name))
    entry = next(one for one in list_coco(coco_tree, ("train",)).entries if one.id == NAMES[name])
    assert Path(entry.image) == coco_tree / "train2014" / name.replace("\\", "/")
    assert next(read_shapes(coco_tree, "train", [entry.id]))[0] == entry.id


def test_names_that_would_get_one_id_stay_apart(coco_tree: Path) -> None:
    names = ["图片.jpg", "照片.jpg", "cat/1.jpg", "dog/1.jpg"]

    def change(content: Content) -> None:
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name

    edited(coco_tree, change)
    entries = list_coco(coco_tree, ("train",)).entries
    assert len({entry.id for entry in entries}) == len(entries) == 4
    assert [name for name, _, _ in read_shapes(coco_tree, "train", [one.id for one in entries])]


@pytest.mark.parametrize(
    "name", ["/etc/a.jpg", "x/../../a.jpg", "http://x/a.jpg", "C:\\a.jpg", "a//b.jpg"]
)
def test_names_that_lead_elsewhere_are_refused(coco_tree: Path, name: str) -> None:
    edited(coco_tree, lambda content: first_image(content, file_name=name))
    with pytest.raises(UserError, match=r"is no name of an image; write its path below [^\n]+$"):
        list_coco(coco_tree, ("train",))


@pytest.mark.parametrize("year", ["2017", ""])
def test_another_year_is_found(coco_tree: Path, year: str) -> None:
    before = [entry.id for entry in list_coco(coco_tree).entries]
    for path in [*coco_tree.iterdir(), *(coco_tree / "annotations").iterdir()]:
        if "2014" in path.name:
            path.rename(path.with_name(path.name.replace("2014", year)))
    listing = list_coco(coco_tree)
    assert [entry.id for entry in listing.entries] == before
    assert all(Path(entry.image).is_file() for entry in listing.entries)


def test_sizes_that_are_missing_are_asked_for(coco_tree: Path) -> None:
    edited(coco_tree, lambda content: first_image(content, width=None))
    with pytest.raises(UserError, match=r"'a\.jpg' has no width and height; add them$"):
        list_coco(coco_tree, ("train",))
