"""What the index says of data sets that are whole and may yet mean something else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data.contents import data_state
from brnf.data.index import Index
from brnf.data.masks import write_palette_png
from brnf.data.voc import find_voc, list_voc
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.index_images import Inputs, Options, Outputs, run
from tests.data.conftest import write_voc_image

TABLE = Options(IndexedImages(kind="table"), shards=1)


def photograph(path: Path, orientation: int = 1, size: tuple[int, int] = (4, 6)) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path, exif=exif)


def summary(folder: Path, rows: str, options: Options = TABLE) -> str:
    """Index a table below ``folder`` and return the summary."""
    (folder / "own.csv").write_text(rows)
    run(Inputs(table=folder / "own.csv"), Outputs(folder / "index"), options, Runtime())
    return (folder / "index" / "summary.md").read_text()


@pytest.mark.parametrize("labels", [("cat", "cat"), ("cat;dog", "cat")])
def test_a_class_on_every_training_image_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: tuple[str, str]
) -> None:
    for number in range(3):
        photograph(tmp_path / f"{number}.png")
    rows = "image,labels,split\n" + "".join(
        f"{number}.png,{cell},train;val\n" for number, cell in enumerate(labels)
    )
    line = "on every image of split train: cat; nothing can be learnt"
    assert f"- {line}" in summary(tmp_path, rows)
    assert f"warning: {line}" in capsys.readouterr().err
    found = summary(tmp_path, rows + "2.png,,train\n")
    assert "every image" not in found and "| without labels | 1 | 0 |" in found
    line = "images without a label count as showing none of the classes: 1 of 3 in train"
    assert line in found and capsys.readouterr().err.count(line) == 1


def test_negative_images_may_be_left_out(tmp_path: Path) -> None:
    for number in range(2):
        photograph(tmp_path / f"{number}.png")
    options = replace(TABLE, dataset=replace(TABLE.dataset, negatives=False))
    found = summary(tmp_path, "image,labels\n0.png,cat\n1.png,\n", options)
    assert "| images | 1 |" in found and "| left out: no label | 1 |" in found


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_lie_on_the_upright_photograph(tmp_path: Path, orientation: int, name: str) -> None:
    photograph(tmp_path / name, orientation)
    size = (6, 4) if orientation > 4 else (4, 6)
    rows = f"image,labels,mask\n{name},cat,m.png\n"
    write_palette_png(tmp_path / "m.png", np.ones(size, np.uint8))
    found = summary(tmp_path, rows)
    assert "1 photographs are turned upright" in found
    assert ("does not tell of 1 (a): look at them" in found) == (orientation < 5)
    image = Index.of_split(tmp_path / "index", "train").images[0]
    assert (image.height, image.width) == size
    if orientation > 4:
        write_palette_png(tmp_path / "m.png", np.ones((4, 6), np.uint8))
        with pytest.raises(
            UserError,
            match=rf"m\.png: the mask is 6x4 pixels like the photograph before its EXIF orientation"
            rf" {orientation} turns it; turn it likewise, or [^\n]+$",
        ):
            summary(tmp_path, rows)


def test_a_square_photograph_that_is_turned_is_told(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg", 6, (5, 5))
    write_palette_png(tmp_path / "m.png", np.ones((5, 5), np.uint8))
    found = summary(tmp_path, "image,labels,mask\na.jpg,cat,m.png\n")
    assert "does not tell of 1 (a): look at them" in found


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_a_mask_with_an_orientation_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    photograph(tmp_path / "a.jpg", 3)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / name, exif=exif)
    with pytest.raises(UserError, match=r"must not carry an EXIF orientation[^\n]+$"):
        summary(tmp_path, f"image,labels,mask\na.jpg,cat,{name}\n")


def test_photographs_of_more_than_8_bits_are_told(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 4000, np.uint16)).save(tmp_path / "a.png")
    found = summary(tmp_path, "image,labels\na.png,cat\n")
    assert "1 photographs of more than 8 bits a channel are brought to 8" in found


def test_rows_that_are_left_out_come_back_when_they_are_mended(tmp_path: Path) -> None:
    photograph(tmp_path / "a.png")
    options = replace(TABLE, dataset=replace(TABLE.dataset, skip_bad=True))
    found = summary(tmp_path, "image,labels\na.png,cat\nb.png,dog\n", options)
    assert "1 bad images were left out (skip_bad: true):" in found
    assert "\n- line 3: " in found and "b.png is missing" in found
    before = data_state(tmp_path / "index")
    photograph(tmp_path / "b.png")
    assert data_state(tmp_path / "index") != before


@pytest.mark.parametrize("name", ["background", "_background_", "Background", "BG", "void"])
def test_background_is_no_class_unless_images_are_labelled_so(tmp_path: Path, name: str) -> None:
    photograph(tmp_path / "a.png")
    options = replace(TABLE, dataset=replace(TABLE.dataset, classes=(name, "cat")))
    with pytest.raises(UserError, match=rf"dataset\.classes: '{name}' labels no image; [^\n]+$"):
        summary(tmp_path, "image,labels\na.png,cat\n", options)
    summary(tmp_path, f"image,labels\na.png,cat;{name}\n", options)


def own_voc(root: Path, *names: str) -> Path:
    """Let image a1 of a VOC tree show objects of these names and return its folder."""
    folder = find_voc(root)
    write_voc_image(folder, "a1", names, np.zeros((10, 12), np.uint8))
    return folder


def test_classes_of_an_own_set_in_vocs_layout(voc_tree: Path) -> None:
    own_voc(voc_tree, "raccoon", "dog")
    with pytest.raises(
        UserError, match=r"a1\.xml: unknown class 'raccoon'; [^\n]*dataset\.classes"
    ):
        list_voc(voc_tree, ("train",))
    classes = ("raccoon", "dog", "person")
    listing = list_voc(voc_tree, ("train",), classes)
    assert listing.classes == classes and listing.mask_values == (1, 2, 3)
    assert listing.entries[0].labels == {"raccoon", "dog"}
    skipped = list_voc(voc_tree, ("train",), skip_bad=True)
    assert [entry.id for entry in skipped.entries] == ["a2"]
    assert [fault.name for fault in skipped.faults] == ["a1"]
    of_voc = list_voc(voc_tree, ("val",), ("Dog", "cat"))  # no class of its own, so VOC's values
    assert of_voc.mask_values == tuple(range(1, 21))


def test_names_in_another_spelling_are_counted_and_background_is_none(voc_tree: Path) -> None:
    own_voc(voc_tree, "Dog ", "CAT", "_background_")
    listing = list_voc(voc_tree, ("train",))
    assert listing.entries[0].labels == {"dog", "cat"}
    (note,) = listing.notes
    assert note.endswith("names in another spelling: 1 of 'CAT' (cat), 1 of 'Dog' (dog)")


def test_an_annotation_without_an_object_is_a_negative_image(voc_tree: Path) -> None:
    own_voc(voc_tree)
    assert list_voc(voc_tree, ("train",)).entries[0].labels == frozenset()


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "png", "PNG", "webp", "tif"])
def test_photographs_of_vocs_layout_have_other_endings(voc_tree: Path, ending: str) -> None:
    folder = find_voc(voc_tree) / "JPEGImages"
    (folder / "a1.jpg").rename(folder / f"a1.{ending}")
    assert list_voc(voc_tree, ("train",)).entries[0].image == str(folder / f"a1.{ending}")
    (folder / "a1.jpg").touch()
    assert list_voc(voc_tree, ("train",)).entries[0].image == str(folder / "a1.jpg")


@pytest.mark.parametrize(
    "text",
    [
        "a1\nb1\n",
        "\ufeffa1\r\nb1\r\n",
        "/JPEGImages/a1.jpg /SegmentationClassAug/a1.png\nJPEGImages/b1.jpg x\n",
        "a1 1\nb1 -1\n",
    ],
)
@pytest.mark.parametrize("masks", [True, False])
def test_a_list_of_train_aug_counts_and_needs_no_masks(
    voc_tree: Path, text: str, masks: bool
) -> None:
    folder = find_voc(voc_tree)
    path = folder / "ImageSets" / "Segmentation" / "train_aug.txt"
    path.write_text(text, encoding="utf-8")
    if not masks:
        (folder / "SegmentationClassAug").rename(folder / "away")
    listing = list_voc(voc_tree, ("train_aug",))
    assert [entry.id for entry in listing.entries] == ["a1", "b1"] and path in listing.sources
    assert "train_aug" in list_voc(voc_tree).splits
