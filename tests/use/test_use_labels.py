"""``brnf labels``: pseudo-labels as other programs read them."""

import csv
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brnf.data.images import read_image
from brnf.data.masks import colour_map
from brnf.errors import UserError
from brnf.use.cli import main
from brnf.use.labels import write_labels

PLACE = Path("VOCdevkit", "VOC2012")
ROTATED = 6


@pytest.fixture(scope="module")
def labels(results: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "out"
    with pytest.raises(SystemExit) as ended:
        main(["labels", str(results.run), str(out)])
    assert not ended.value.code
    return out


def test_masks_hold_the_values_of_the_data_set(results: Any, labels: Path) -> None:
    own = {0: 0, 1: 8, 2: 12, 255: 255}
    masks = sorted((labels / PLACE / "SegmentationClass").iterdir())
    assert [path.stem for path in masks] == [record.id for record in results.records]
    seen: set[int] = set()
    for path in masks:
        found = Image.open(path)
        assert found.mode == "P"
        made = next(results.run.glob(f"pseudo_labels/train/*/{path.name}"))
        expected = np.vectorize(own.__getitem__)(np.array(Image.open(made)))
        assert np.array_equal(np.array(found), expected)
        seen |= set(np.unique(expected).tolist())
        assert found.getpalette() == colour_map().flatten().tolist()
    assert seen & {8, 12}
    with (labels / "classes.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:2] for row in rows[1:]] == [["0", "background"], ["8", "cat"], ["12", "dog"]]
    assert rows[2][2:] == [str(part) for part in colour_map()[8]]


def test_torchvision_reads_them_by_the_lines_of_the_readme(results: Any, labels: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (labels / "README.md").read_text(), re.DOTALL)
    assert code
    space: dict[str, Any] = {}
    exec(code[1], space)
    dataset = space["dataset"]
    assert len(dataset) == len(results.records)
    for record, (image, mask) in zip(results.records, dataset, strict=True):
        assert np.array_equal(np.array(image), read_image(record.path))
        assert set(np.unique(np.array(mask))) <= {0, 8, 12, 255}


def test_mmsegmentation_is_told_every_value(labels: Path) -> None:
    told = runpy.run_path(str(labels / "mmsegmentation.py"))
    names = told["metainfo"]["classes"]
    assert len(names) == len(told["metainfo"]["palette"]) == 13
    assert (names[0], names[8], names[12], names[5]) == ("background", "cat", "dog", "unused 5")
    dataset = told["train_dataloader"]["dataset"]
    root = Path(dataset["data_root"])
    for image in (root / dataset["ann_file"]).read_text().split():
        for key, ending in (("img_path", "img_suffix"), ("seg_map_path", "seg_map_suffix")):
            assert (root / dataset["data_prefix"][key] / f"{image}{dataset[ending]}").is_file()


def test_a_turned_photograph_fits_its_mask_in_every_program(results: Any, tmp_path: Path) -> None:
    """Others do not look at EXIF, and a link would show them the picture on its side."""
    run = tmp_path / "results" / "mini" / "base" / "seed0"
    shutil.copytree(results.root, tmp_path / "results" / "mini")
    record = results.records[0]
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    turned = tmp_path / "turned.jpg"
    Image.open(record.path).transpose(Image.Transpose.ROTATE_90).save(
        turned, exif=exif, quality=100
    )
    for file in (tmp_path / "results" / "mini" / "index").rglob("*.csv"):
        file.write_text(file.read_text().replace(str(record.path), "turned.jpg"))
    write_labels(run, tmp_path / "out")
    image = tmp_path / "out" / PLACE / "JPEGImages" / f"{record.id}.jpg"
    assert not image.is_symlink() and Image.open(image).size == (64, 48)
    assert np.abs(np.array(Image.open(image)).astype(int) - read_image(turned)).mean() < 8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("there", "is there already"),
        ("foreign", "is not of brnf labels, and stays"),
        ("split", "no pseudo-labels of split 'val'; there are those of train"),
        ("nothing", "no pseudo-labels here"),
    ],
)
def test_a_mistake_ends_in_one_line(
    results: Any, labels: Path, tmp_path: Path, change: str, told: str
) -> None:
    out = labels if change == "there" else tmp_path / "out"
    if change == "foreign":
        out.mkdir()
        (out / "thesis.tex").touch()
    run = results.root if change == "nothing" else results.run
    with pytest.raises(UserError, match=told):
        write_labels(run, out, "val" if change == "split" else None, change == "foreign")
    if change == "foreign":
        assert (out / "thesis.tex").exists()
    if change == "there":
        write_labels(run, out, overwrite=True)
