"""``brnf predict``: the workflow's own masks, of whatever photographs."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import brnf
from brnf.errors import UserError
from brnf.store.tensors import read_tensors, write_tensors
from brnf.use.cli import main
from brnf.use.model_file import read_model

ROTATED = 6
"""EXIF: the picture's upper side is on the right of the scene."""


def run(words: Sequence[object], status: int = 0) -> None:
    """Run the command, which must end with a status."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert (ended.value.code or 0) == status


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder).with_suffix("")): path.read_bytes()
        for path in folder.rglob("*.png")
    }


def table(results: Any, folder: Path) -> Path:
    """Write the true labels of the photographs as a CSV."""
    names = ("cat", "dog")
    rows = [f"{one.path},{names[one.labels[0] - 1]}\n" for one in results.records]
    path = folder / "labels.csv"
    path.write_text("image,labels\n" + "".join(rows))
    return path


@pytest.mark.parametrize("file", ["model.pt", "network.pt"])
def test_a_segmenter_predicts_what_the_workflow_does(
    results: Any, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = results.segmenter.with_name(file)
    run(["predict", network, results.photographs, "--out", tmp_path / "out"])
    assert written(tmp_path / "out" / "masks") == results.masks("predictions")
    assert "default" not in capsys.readouterr().err


@pytest.mark.parametrize("file", ["model.pt", "network.pt"])
def test_a_cam_network_predicts_the_pseudo_labels_of_the_workflow(
    results: Any, tmp_path: Path, file: str
) -> None:
    words = ["--labels", table(results, tmp_path), "--out", tmp_path / "out"]
    run(["predict", results.cam.with_name(file), results.photographs, *words])
    assert written(tmp_path / "out" / "masks") == results.masks("pseudo_labels")


def test_a_network_alone_takes_the_defaults_and_says_so(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.pt"
    shutil.copy(results.segmenter.with_name("network.pt"), alone)
    model = brnf.load(alone)
    assert model.file.use.test.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert len([line for line in capsys.readouterr().err.splitlines() if "default" in line]) == 1


@pytest.mark.parametrize(("amp", "precision"), [(False, "fp32"), (True, "bf16")])
def test_a_model_of_an_earlier_version_tells_its_precision(
    results: Any, tmp_path: Path, amp: bool, precision: str
) -> None:
    content = read_tensors(results.segmenter, "")
    del content["use"]["precision"]
    content["use"]["amp"] = amp
    write_tensors(tmp_path / "model.pt", content)
    assert read_model(tmp_path / "model.pt").use.precision == precision


def test_folders_patterns_and_turned_photographs(results: Any, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    (photographs / "deep").mkdir(parents=True)
    image = Image.open(results.records[0].path)
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    image.save(photographs / "deep" / "turned.JPG", exif=exif, quality=95)
    shutil.copy(results.records[1].path, photographs / "a b.png")
    (photographs / ".hidden.png").write_bytes(b"")
    (photographs / "notes.txt").write_text("no photograph")
    products = ["--overlay", "--confidence"]
    run(["predict", results.segmenter, photographs, *products, "--out", photographs / "out"])
    out = photographs / "out"
    found = {str(path.relative_to(out)) for path in out.rglob("*.*g")}
    assert found == {
        f"{folder}/{name}{ending}"
        for folder, ending in (("masks", ".png"), ("overlays", ".jpg"), ("confidence", ".png"))
        for name in ("a b", "deep/turned")
    }
    for folder in ("masks/deep/turned.png", "overlays/deep/turned.jpg"):
        assert Image.open(out / folder).size == (48, 64), "upright"
    run(["predict", results.segmenter, photographs / "**" / "*.JPG", "--out", tmp_path / "other"])
    assert set(written(tmp_path / "other" / "masks")) == {"turned"}
    rows = (out / "classes.csv").read_text().splitlines()
    assert rows[:2] == ["index,name,mask_value,red,green,blue", "0,background,0,0,0,0"]
    assert rows[3].startswith("2,dog,12,")


def test_a_bad_photograph_is_named_and_the_rest_goes_on(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = tmp_path / "photographs"
    shutil.copytree(results.photographs, photographs)
    (photographs / "image0.png").write_bytes(results.records[0].path.read_bytes()[:500])
    (photographs / "empty.jpg").write_bytes(b"")
    run(["predict", results.segmenter, photographs, "--out", tmp_path / "out"], 2)
    assert set(written(tmp_path / "out" / "masks")) == {"image1", "image2", "image3"}
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [word in line for word, line in zip(("empty", "image0", "2 of 5"), errors, strict=True)]
    assert len(errors) == 3


def test_masks_that_are_there_are_kept_unless_they_are_to_be_written_again(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", results.segmenter, results.photographs, "--out", tmp_path / "out"]
    run(words)
    mask = tmp_path / "out" / "masks" / "image1.png"
    mask.write_bytes(b"mine")
    run(words)
    assert mask.read_bytes() == b"mine"
    run([*words, "--overwrite"])
    assert mask.read_bytes() == results.masks("predictions")["image1"]
    run([*words, "--no-crf"], 2)
    assert "other options" in capsys.readouterr().err


def test_no_photograph_and_no_foreign_mask_is_written_over(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(results.photographs, folder / "masks")
    before = written(folder)
    for images in (folder / "masks", folder / "masks" / "image1.png", results.photographs):
        run(["predict", results.segmenter, images, "--out", folder, "--overwrite"], 2)
    assert {name: written(folder)[name] for name in before} == before
    (tmp_path / "image1.jpg").write_bytes(results.records[1].path.read_bytes())
    pair = [results.photographs, tmp_path / "image1.jpg"]
    run(["predict", results.segmenter, *pair, "--out", tmp_path / "out"], 2)
    assert "would have the output image1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["network", "no-such-folder"], "no such file or folder"),
        (["network", "PHOTOGRAPHS"], "needs --labels"),
        (["network", "PHOTOGRAPHS", "--labels", "cow"], "'cow' is none of the network's classes"),
        (["segmentation", "PHOTOGRAPHS", "--labels", "cat"], "omit --labels"),
        (["segmentation", "EMPTY"], "holds no photograph"),
        (["missing", "PHOTOGRAPHS"], "no such file"),
    ],
)
def test_a_mistake_ends_in_one_line(
    results: Any,
    tmp_path: Path,
    words: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"PHOTOGRAPHS": str(results.photographs), "EMPTY": str(tmp_path / "empty")}
    network = results.run / words[0] / "model.pt"
    rest = [places.get(word, word) for word in words[1:]]
    run(["predict", network, *rest, "--out", tmp_path / "out"], 2)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and told in errors[0]


def test_a_model_in_the_hand(results: Any) -> None:
    model = brnf.load(results.segmenter)
    path = results.records[0].path
    result = model(path)
    assert result.mask.shape == (48, 64) and result.probabilities.shape == (3, 48, 64)
    assert np.allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.mask)
    assert result.confidence.max() <= 1 + 1e-5
    assert set(result.names) <= {"cat", "dog"}
    overlay = result.overlay()
    image = np.array(Image.open(path))
    assert np.array_equal(overlay[result.mask == 0], image[result.mask == 0])
    assert not np.array_equal(overlay, image)
    assert np.array_equal(model(image).mask, result.mask)
    with pytest.raises(UserError, match="segmenter finds the classes itself"):
        model(path, labels=["cat"])
    with pytest.raises(UserError, match="uint8"):
        model(image / 255)


def test_a_cam_network_is_told_what_an_image_shows(results: Any) -> None:
    model = brnf.load(results.cam)
    path = results.records[0].path
    assert set(model(path, labels=["dog"]).names) <= {"dog"}
    assert not model(path, labels=[]).mask.any()
    with pytest.raises(UserError, match="'cow' is none of the network's classes: cat, dog"):
        model(path, labels=["cow"])
    with pytest.raises(UserError, match="told which of cat, dog"):
        model(path)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, brnf, brnf.use.cli; print('torch' in sys.modules, 'load' in dir(brnf))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
    assert not hasattr(brnf, "no_such_name")
