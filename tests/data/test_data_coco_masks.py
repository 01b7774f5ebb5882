"""Masks from COCO's outlines."""

import contextlib
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools.coco import COCO

from benchmarks.synthetic_coco import TRAIN, write_coco
from brnf.config.sections.data import Crowds, IndexedImages, Masks, Overlap
from brnf.data.coco_file import CocoShape, read_shapes
from brnf.data.coco_masks import (
    draw_mask,
    draw_outline,
    run_lengths,
    visible_values,
)
from brnf.data.masks import read_mask
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages import index_images
from brnf.stages.draw_masks import Inputs, Options, Outputs, run

QUIET = Runtime(workers=0, progress="none")
REGIONS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays.arrays(np.bool_, shape)
)


def lengths_of(region: np.ndarray) -> list[int]:
    """Count runs of equal pixels column by column, the first of background, by walking through the
    pixels.
    """
    runs, value = [0], False
    for pixel in region.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@given(REGIONS)
def test_run_lengths_of_all_kinds_draw_the_region(region: np.ndarray) -> None:
    size = [*region.shape]
    compressed = pycocotools.mask.encode(np.asfortranarray(region, np.uint8))["counts"].decode()
    assert run_lengths(compressed) == lengths_of(region)
    for counts in (compressed, lengths_of(region)):
        assert np.array_equal(draw_outline({"size": size, "counts": counts}, region.shape), region)


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    expected = np.zeros((6, 8), bool)
    expected[1:4, 1:5] = True
    assert np.array_equal(draw_outline([[1, 1, 5, 1, 5, 4, 1, 4]], (6, 8)), expected)
    both = draw_outline([[1, 1, 5, 1, 5, 4, 1, 4], [6, 0, 8, 0, 8, 2, 6, 2]], (6, 8))
    expected[0:2, 6:8] = True
    assert np.array_equal(both, expected)


@pytest.mark.parametrize("outline", [[], [[1, 1, 5, 4]], [[2, 2]], [[]]])
def test_points_and_lines_enclose_nothing(outline: Any) -> None:
    assert not draw_outline(outline, (6, 8)).any()


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_later_annotations_lie_over_earlier_and_crowds_under_all() -> None:
    crowd = CocoShape(3, 9, True, {"size": [4, 6], "counts": [0, 24]})
    shapes = [
        CocoShape(1, 5, False, box(0, 0, 4, 4)),
        CocoShape(2, 7, False, box(2, 0, 5, 2)),
        crowd,
    ]
    first = [[5, 5, 7, 7, 7, 0], [5, 5, 7, 7, 7, 0], [5, 5, 5, 5, 0, 0], [5, 5, 5, 5, 0, 0]]
    plain = Masks(overlap="later_on_top", crowds="background")
    assert draw_mask(shapes, (4, 6), plain).tolist() == first
    ignored = [[value or 255 for value in row] for row in first]
    assert (
        draw_mask(shapes, (4, 6), Masks(overlap="later_on_top", crowds="ignore")).tolist()
        == ignored
    )
    assert (
        draw_mask(shapes, (4, 6), Masks(overlap="later_on_top", crowds="object")).tolist()
        == [[9] * 6] * 4
    )
    assert draw_mask(shapes[:2][::-1], (4, 6), plain).tolist() != first
    assert draw_mask([], (4, 6), plain).tolist() == [[0] * 6] * 4


def test_smaller_annotations_lie_over_larger_by_the_area_of_the_file() -> None:
    """The crowd is the smallest here, and covers all; of equal areas the first lies on top."""
    crowd = CocoShape(3, 9, True, {"size": [4, 6], "counts": [0, 24]}, 1.5)
    large = CocoShape(1, 5, False, box(0, 0, 4, 4), 16.0)
    small = CocoShape(2, 7, False, box(2, 0, 5, 2), 6.0)
    on_top = [[5, 5, 7, 7, 7, 0]] * 2 + [[5, 5, 5, 5, 0, 0]] * 2
    plain = Masks(overlap="smallest_on_top", crowds="background")
    for shapes in ([small, large, crowd], [crowd, large, small]):
        assert draw_mask(shapes, (4, 6), plain).tolist() == on_top
        assert draw_mask(shapes, (4, 6), Masks()).tolist() == [[9] * 6] * 4
        ignored = draw_mask(shapes, (4, 6), Masks(overlap="smallest_on_top", crowds="ignore"))
        assert ignored.tolist() == [[value or 255 for value in row] for row in on_top]
    equal = CocoShape(4, 5, False, box(0, 0, 4, 4), 6.0)
    assert draw_mask([small, equal], (4, 6), plain).tolist() == on_top
    assert draw_mask([equal, small], (4, 6), plain)[0].tolist() == [5, 5, 5, 5, 7, 0]


SIDES = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted)
SHAPES = st.lists(
    st.builds(
        lambda value, crowd, across, down, area: CocoShape(
            0, value, crowd, box(across[0], down[0], across[1], down[1]), area
        ),
        st.integers(1, 4),
        st.booleans(),
        SIDES,
        SIDES,
        st.sampled_from([1.0, 2.0, 3.0]),
    ),
    max_size=6,
)


@given(
    SHAPES,
    st.sampled_from(["smallest_on_top", "later_on_top"]),
    st.sampled_from(["object", "background", "ignore"]),
)
def test_visible_values_are_those_of_the_mask(
    shapes: list[CocoShape], overlap: Overlap, crowds: Crowds
) -> None:
    """Boxes without an inside are among them."""
    masks = Masks(overlap=overlap, crowds=crowds)
    drawn = set(draw_mask(shapes, (5, 5), masks).ravel().tolist())
    assert visible_values(shapes, (5, 5), masks) == drawn - {0, 255}


@pytest.mark.parametrize(
    ("outline", "problem"),
    [
        ({"size": [4, 5], "counts": [5, 5]}, "do not add up"),
        ({"size": [4, 5], "counts": [10, 100]}, "do not add up"),
        ({"size": [4, 5], "counts": [-5, 25]}, "do not add up"),
        ({"size": [4, 5], "counts": [10.0, 10.0]}, "do not add up"),
        ({"size": [4, 5], "counts": "55"}, "do not add up"),
        ({"size": [4, 5], "counts": "5o"}, "end within a number"),
        ({"size": [4, 5], "counts": "5\u00e9"}, "unknown character"),
        ({"size": [5, 4], "counts": [20]}, "its run lengths are of 4x5 pixels, its image has 5x4"),
        ({"size": [4], "counts": [20]}, "index"),
        ({"counts": [20]}, "size"),
        ([[1, 1, 5, 1, 5]], "odd number"),
        ([[1, 1], [5, 1], [5, 5]], "points are pairs"),
        ([[1, 1, 5, 1, 5, float("nan")]], "far out"),
        ([[1, 1, 5, 1, 5, 1e9]], "far out"),
        ([[1, 1, 5, 1, 5, 10**400]], "too large"),
        ([["1", "1", "5", "1", "5", "4"]], "real number"),
        (None, "NoneType"),
    ],
)
def test_damaged_outlines_name_the_annotation(outline: Any, problem: str) -> None:
    for read in (draw_mask, visible_values):
        with pytest.raises(
            ValueError, match=rf"^annotation 12 is damaged \([^\n]*{problem}[^\n]*\)$"
        ):
            read([CocoShape(12, 1, False, outline, 1.0)], (4, 5), Masks())


def drawn(
    coco_tree: Path,
    folder: Path,
    split: Literal["train", "val"],
    overlap: Overlap = "smallest_on_top",
    crowds: Crowds = "object",
) -> Path:
    """Index in one shard, with labels from annotations, and draw the masks of a split."""
    index = folder / "index"
    dataset = IndexedImages(kind="coco", labels_from="annotations", crowds=crowds)
    options = index_images.Options(dataset, shards=1)
    index_images.run(index_images.Inputs(coco_tree), index_images.Outputs(index), options, QUIET)
    images = index / "shards" / split / "0.csv"
    chosen = Options(split, Masks(overlap=overlap, crowds=crowds))
    run(Inputs(index, images), Outputs(folder / crowds), chosen, QUIET)
    return folder / crowds


@pytest.mark.parametrize(
    ("overlap", "row"),
    [
        ("smallest_on_top", [0, 1, 1, 1, 1, 3, 3, 3]),
        ("later_on_top", [0, 1, 1, 1, 3, 3, 3, 3]),
    ],
)
def test_the_stage_writes_palette_masks_of_a_shard(
    coco_tree: Path, tmp_path: Path, overlap: Overlap, row: list[int]
) -> None:
    folder = drawn(coco_tree, tmp_path, "train", overlap)
    masks = {path.stem: read_mask(path, (1, 2, 3)) for path in folder.glob("*.png")}
    assert (
        set(masks) == {"a", "b", "c", "d"} and not masks["d"].any() and masks["a"].shape == (6, 8)
    )
    assert masks["a"][2].tolist() == row
    assert masks["b"].tolist() == [[0, 2, 0, 0]] * 4


@pytest.mark.parametrize(("crowds", "value"), [("object", 2), ("background", 0), ("ignore", 255)])
def test_crowds_are_what_the_option_says(
    coco_tree: Path, tmp_path: Path, crowds: Crowds, value: int
) -> None:
    mask = read_mask(drawn(coco_tree, tmp_path, "val", crowds=crowds) / "e.png", (1, 2, 3))
    assert mask[0, 6] == value and mask[2, 4] == 1 and mask[0, 0] == 0


def test_a_damaged_outline_is_one_line_and_leaves_nothing(coco_tree: Path, tmp_path: Path) -> None:
    path = coco_tree / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text().replace("[24, 24]", "[24, 25]"))
    with pytest.raises(
        UserError,
        match=r"instances_val2014\.json: e: annotation 2 is damaged \([^\n]+\); restore the file$",
    ):
        drawn(coco_tree, tmp_path, "val")
    assert not (tmp_path / "object").exists()


def test_masks_agree_with_the_librarys_own_reader(tmp_path: Path) -> None:
    """Draw the annotations of 83 images as pycocotools' class COCO does, which knows nothing of
    this reader.
    """
    write_coco(tmp_path, "train", TRAIN.scaled(0.001))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(tmp_path / "annotations" / "instances_train2014.json"))
    names = {image["id"]: Path(image["file_name"]).stem for image in reference.imgs.values()}
    rank = {category: number for number, category in enumerate(sorted(reference.cats), 1)}
    found = {
        name: (size, shapes)
        for name, size, shapes in read_shapes(tmp_path, "train", list(names.values()))
    }
    for image, name in names.items():
        size, shapes = found[name]
        expected = np.zeros(size, np.uint8)
        for annotation in reference.imgToAnns[image]:
            if not annotation["iscrowd"]:
                expected[reference.annToMask(annotation) > 0] = rank[annotation["category_id"]]
        assert np.array_equal(
            draw_mask(shapes, size, Masks(overlap="later_on_top", crowds="background")), expected
        ), name
