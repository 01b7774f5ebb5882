"""COCO in the image index, and bad images that are left out of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.synthetic_coco import TRAIN, write_coco
from brnf.config.sections.data import IndexedImages
from brnf.data.contents import FIRST, data_state
from brnf.data.index import Index, read_masks
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.index_images import Inputs, Options, Outputs, run

QUIET = Runtime(workers=0, progress="none")
LABELLED = IndexedImages(kind="coco", negatives=False)


def build(root: Path, folder: Path, options: Options) -> Path:
    run(Inputs(root=root), Outputs(folder), options, QUIET)
    return folder


def images(folder: Path, split: str) -> list[str]:
    return [image.id for image in Index.of_split(folder, split).images]


def test_the_index_of_coco(coco_tree: Path, tmp_path: Path) -> None:
    folder = build(
        coco_tree,
        tmp_path / "index",
        Options(replace(LABELLED, crowds="background"), shards=2),
    )
    index = Index.of_split(folder, "train")
    assert index.classes == ("person", "traffic light", "toothbrush")
    assert [(image.id, image.height, image.width, image.labels) for image in index.images] == [
        ("a", 6, 8, (1, 3)),
        ("b", 4, 4, (2,)),
    ]
    assert index.images[0].path == coco_tree / "train2014" / "a.jpg" and images(folder, "val") == [
        "e"
    ]
    summary = (folder / "summary.md").read_text()
    assert (
        "| images | 2 | 1 |" in summary
        and "| left out: no label | 2 | 0 |" in summary
        and "| with a mask | 2 | 1 |" in summary
    )


def test_masks_are_known_by_the_annotations_they_are_drawn_from(
    coco_tree: Path, tmp_path: Path
) -> None:
    """Another outline changes the list of masks of its split, and nothing that training reads.

    Labels, too, stay the same as long as the same classes can be seen.
    """
    build(coco_tree, tmp_path / "index", Options(LABELLED))
    before = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.csv")}
    assert all(
        mask.mask is None and mask.digest
        for mask in read_masks(tmp_path / "index", "train").values()
    )
    path = coco_tree / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[0, 0, 5, 1, 5, 4]]
    path.write_text(json.dumps(content))
    assert data_state(tmp_path / "index") != FIRST
    build(coco_tree, tmp_path / "index", Options(LABELLED))
    assert {
        path.relative_to(tmp_path / "index").as_posix()
        for path in before
        if path.read_bytes() != before[path]
    } == {"masks/train.csv"}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (
            Options(LABELLED),
            {"a": (1, 3), "b": (2, 3), "c": (1,)},
        ),
        (
            Options(replace(LABELLED, overlap="later_on_top")),
            {"a": (1, 3), "b": (3,), "c": (1,)},
        ),
        (
            Options(replace(LABELLED, crowds="ignore")),
            {"a": (1, 3), "b": (2, 3)},
        ),
        (
            Options(
                IndexedImages(
                    kind="coco", negatives=False, overlap="later_on_top", labels_from="annotations"
                )
            ),
            {"a": (1, 3), "b": (2, 3), "c": (1,)},
        ),
    ],
)
def test_labels_follow_what_is_drawn(
    coco_tree: Path, tmp_path: Path, options: Options, labels: dict[str, tuple[int, ...]]
) -> None:
    """A toothbrush that comes last covers b and its traffic light."""
    path = coco_tree / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    outline = {"size": [4, 4], "counts": [0, 16]}
    one = {"image_id": 2, "category_id": 90, "iscrowd": 0, "id": 9, "area": 16}
    content["annotations"].append({**one, "segmentation": outline})
    path.write_text(json.dumps(content))
    index = Index.of_split(build(coco_tree, tmp_path / "index", options), "train")
    assert {image.id: image.labels for image in index.images} == labels


def test_a_damaged_outline_is_one_line(coco_tree: Path, tmp_path: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text().replace("[24, 24]", "[24, 25]"))
    problem = r"instances_val2014\.json: e: annotation 2 is damaged \([^\n]+\); restore the file$"
    with pytest.raises(UserError, match=problem):
        build(coco_tree, tmp_path / "index", Options(LABELLED))
    build(
        coco_tree,
        tmp_path / "index",
        Options(replace(LABELLED, labels_from="annotations")),
    )


def test_a_photograph_of_another_size_than_its_annotations_is_bad(
    coco_tree: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (6, 8)).save(coco_tree / "train2014" / "a.jpg")
    with pytest.raises(
        UserError, match=r"a\.jpg: is 6x8 pixels, its annotations are of 8x6; [^\n]+$"
    ):
        build(coco_tree, tmp_path / "index", Options(LABELLED))


def test_a_subset_of_coco_leaves_out_other_images(coco_tree: Path, tmp_path: Path) -> None:
    options = Options(replace(LABELLED, classes=("person",), crowds="background"))
    folder = build(coco_tree, tmp_path / "index", options)
    assert images(folder, "train") == ["a"]
    assert "| left out: none of the classes | 1 | 0 |" in (folder / "summary.md").read_text()


def test_bad_images_are_left_out_and_listed_by_option(coco_tree: Path, tmp_path: Path) -> None:
    options = Options(replace(LABELLED, skip_bad=True, crowds="background"))
    whole = (coco_tree / "train2014" / "b.jpg").read_bytes()
    (coco_tree / "train2014" / "b.jpg").write_bytes(whole[:100])
    folder = build(coco_tree, tmp_path / "index", options)
    assert images(folder, "train") == ["a"] and list(read_masks(folder, "train")) == ["a"]
    summary = (folder / "summary.md").read_text()
    assert (
        "1 bad images were left out (skip_bad: true):" in summary
        and "\n- b: " in summary
        and "b.jpg: image cannot be read" in summary
    )
    assert data_state(folder) == FIRST
    (coco_tree / "train2014" / "b.jpg").write_bytes(whole)
    assert data_state(folder) != FIRST
    build(coco_tree, folder, options)
    assert (
        images(folder, "train") == ["a", "b"]
        and "No problem found." in (folder / "summary.md").read_text()
    )


def test_a_missing_image_that_comes_back_is_noticed(coco_tree: Path, tmp_path: Path) -> None:
    (coco_tree / "train2014" / "b.jpg").rename(tmp_path / "away.jpg")
    folder = build(
        coco_tree,
        tmp_path / "index",
        Options(replace(LABELLED, skip_bad=True)),
    )
    assert images(folder, "train") == ["a", "c"] and data_state(folder) == FIRST
    (tmp_path / "away.jpg").rename(coco_tree / "train2014" / "b.jpg")
    assert data_state(folder) != FIRST


def test_a_split_of_bad_images_stops_all_the_same(coco_tree: Path, tmp_path: Path) -> None:
    (coco_tree / "val2014" / "e.jpg").unlink()
    with pytest.raises(UserError, match=r"e\.jpg: image is missing; [^\n]+$"):
        build(
            coco_tree,
            tmp_path / "index",
            Options(replace(LABELLED, skip_bad=True)),
        )


def test_a_hundredth_of_coco_is_indexed_whole(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", "train", TRAIN.scaled(0.01))
    folder = build(
        tmp_path / "coco",
        tmp_path / "index",
        Options(replace(LABELLED, verify=False), ("train",), shards=4),
    )
    index = Index.of_split(folder, "train")
    assert len(index.images) == 821 and len(index.classes) == 80
    assert sorted(path.stem for path in (folder / "shards" / "train").iterdir()) == [
        "0",
        "1",
        "2",
        "3",
    ]
    assert max(label for image in index.images for label in image.labels) == 80
