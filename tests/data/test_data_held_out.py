"""A table without a split for validation, with masks of all, some or none of its photographs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data.entries import Entry, Listing
from brnf.data.held_out import with_held_out
from brnf.data.index import Index, has_images, has_masks
from brnf.data.masks import write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.index_images import Inputs, Options, Outputs, run

OPTIONS = Options(
    IndexedImages(kind="table"),
    splits=("train", "val"),
    val="val",
    measured=("train", "val"),
    shards=1,
)


def indexed(folder: Path, rows: list[str], head: str, options: Options = OPTIONS) -> Path:
    """Index a table of photographs that are made for it; a cell ``m`` is a mask of the first class.

    Arguments:
        folder: of the table.
        rows: cells behind the image.
        head: the columns behind the image.
        options: of the stage.
    """
    lines = [f"image,{head}"]
    for number, row in enumerate(rows):
        colour = np.full((4, 6, 3), number, np.uint8)
        Image.fromarray(colour).save(folder / f"{number}.png")
        write_palette_png(folder / f"{number}-mask.png", np.ones((4, 6), np.uint8))
        cells = [f"{number}-mask.png" if cell == "m" else cell for cell in row.split(",")]
        lines.append(",".join([f"{number}.png", *cells]))
    (folder / "own.csv").write_text("\n".join(lines) + "\n")
    run(Inputs(table=folder / "own.csv"), Outputs(folder / "index"), options, Runtime())
    return folder / "index"


def ids(index: Path, split: str) -> set[str]:
    return {image.id for image in Index.of_split(index, split).images}


def notes(index: Path) -> list[str]:
    lines = (index / "summary.md").read_text().splitlines()
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")]


def test_labels_alone_are_indexed_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = indexed(tmp_path, ["cat", "dog", "cat;dog"], "labels")
    assert len(ids(index, "train")) == 3
    assert not has_images(index, "val") and not has_masks(index, "train")
    line = "no image has a mask, so nothing is measured"
    assert [note.partition(":")[0] for note in notes(index)] == [line]
    assert capsys.readouterr().err.count(line) == 1


def test_masks_without_a_split_give_one_for_validation(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["cat,m"] * 30 + ["dog,"] * 5, "labels,mask")
    held, trained = ids(index, "val"), ids(index, "train")
    assert 2 <= len(held) <= 12 and not held & trained and len(held | trained) == 35
    assert has_masks(index, "val") and has_masks(index, "train")
    said = notes(index)
    assert f"it is made of {len(held)} of the 30 labelled images with a mask" in said[0]
    assert not any("measured" in note for note in said)


@pytest.mark.parametrize(("masked", "other"), [("train", "val"), ("val", "train")])
def test_masks_in_one_split_only_are_told(tmp_path: Path, masked: str, other: str) -> None:
    index = indexed(tmp_path, [f"cat,m,{masked}", f"dog,,{other}"], "labels,mask,split")
    assert has_masks(index, masked) and not has_masks(index, other)
    line = f"no image of split '{other}' has a mask, so nothing is measured on it"
    assert line in notes(index)


def test_only_a_split_that_nobody_misspelt_may_be_missing(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["cat,train", "dog,train", ",test"], "labels,split")
    assert not has_images(index, "val")
    with pytest.raises(UserError, match="split 'val' holds no image; the table has: train, vall"):
        indexed(tmp_path, ["cat,train", "dog,vall"], "labels,split")
    with pytest.raises(UserError, match="split 'train' holds no image; the table has: val"):
        indexed(tmp_path, ["cat,val", "dog,val"], "labels,split")


def test_a_mask_of_the_test_split_is_not_taken(tmp_path: Path) -> None:
    options = replace(OPTIONS, splits=("train", "val", "test"))
    index = indexed(tmp_path, ["cat,,train", "dog,,train", ",m,test"], "labels,mask,split", options)
    assert ids(index, "test") == {"2"} and not has_images(index, "val")
    assert "no image of split train or val has a mask, so nothing" in notes(index)[0]


def listing(labels: list[str], masked: int) -> Listing:
    """Return a listing of which the first images have a mask."""
    entries = [
        Entry(
            f"image{number}",
            f"{number}.png",
            frozenset([label] if label else []),
            ("train",),
            "mask.png" if number < masked else None,
            None,
        )
        for number, label in enumerate(labels)
    ]
    names = tuple(sorted({label for label in labels if label}))
    return Listing(names, tuple(range(1, 1 + len(names))), ("train",), tuple(entries), (), Path())


def held(found: Listing) -> set[str]:
    return {entry.id for entry in found.entries if entry.splits == ("val",)}


def test_added_images_move_no_other() -> None:
    few = with_held_out(listing(["cat", "dog"] * 50, 100), "val", 0.2, 0)
    more = with_held_out(listing(["cat", "dog"] * 300, 600), "val", 0.2, 0)
    names = {entry.id for entry in few.entries}
    assert 10 <= len(held(few)) <= 32 and held(few) == held(more) & names
    assert 90 <= len(held(more)) <= 150
    assert held(few) != held(with_held_out(listing(["cat", "dog"] * 50, 100), "val", 0.2, 1))


def test_one_image_is_always_held_out_and_the_last_of_a_class_never() -> None:
    assert len(held(with_held_out(listing(["cat"] * 4, 2), "val", 1e-9, 0))) == 1
    rare = with_held_out(listing(["cat", "dog", "dog", "dog", "dog"], 5), "val", 0.999, 0)
    assert "image0" not in held(rare) and len(held(rare)) == 3
    for labels, masked in ((["cat", "dog"], 2), (["cat", "cat"], 0), (["", "cat"], 1)):
        given = listing(labels, masked)
        assert with_held_out(given, "val", 0.2, 0) == given


def test_a_list_of_masks_that_changes_is_read_again(tmp_path: Path) -> None:
    assert not has_masks(tmp_path, "val")
    path = tmp_path / "masks" / "val.csv"
    path.parent.mkdir()
    for digest in ("", "0" * 32, "", "1" * 32):
        path.write_text(f'id,mask,context,digest\none,"a,{digest}\nb",,\n\ntwo,m,,{digest}\n')
        assert has_masks(tmp_path, "val") == bool(digest)
        assert has_masks(tmp_path, "val") == bool(digest)


@pytest.mark.parametrize("text", ["", "id,mask\n", "id,mask,context,digest\none\n", "\xff"])
def test_a_damaged_list_of_masks_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "val.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"val\.csv"):
        has_masks(tmp_path, "val")
