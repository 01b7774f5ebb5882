"""Three hundred classes through the whole workflow: shapes in colours and textures, as own
photographs with masks of two bytes. Run by ``make test-classes``.
"""

import subprocess
import sys
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix

from brnf.data.index import Index
from brnf.data.masks import read_mask, write_mask
from brnf.evaluate.records import read_evaluation

ROOT = Path(__file__).parents[2]
SIDE = 48
SHAPES = ("disc", "square", "triangle", "cross", "ring")
TEXTURES = ("plain", "rows", "columns", "checks", "dots")
COLOURS = {
    f"colour{number:02}": tuple(128 + 120 * np.cos(np.pi * (number / 6 + np.array([0, 2, 4]) / 3)))
    for number in range(12)
}
CLASSES = tuple(sorted(" ".join(words) for words in product(COLOURS, SHAPES, TEXTURES)))
SPLITS = ("train", "val")


def outline(shape: str, across: NDArray[np.floating], down: NDArray[np.floating]) -> NDArray:
    """Return which pixels a shape covers that reaches from -1 to 1."""
    radius, most = np.hypot(across, down), np.maximum(abs(across), abs(down))
    return {
        "disc": radius < 1,
        "square": most < 0.9,
        "triangle": (down < 0.9) & (abs(across) < (down + 1) / 2),
        "cross": (most < 1) & (np.minimum(abs(across), abs(down)) < 0.35),
        "ring": (radius < 1) & (radius > 0.5),
    }[shape]


def light(texture: str, across: NDArray[np.integer], down: NDArray[np.integer]) -> NDArray:
    """Return the share of its colour that a texture has at each pixel."""
    rows, columns = down // 4 % 2, across // 4 % 2
    dark = {
        "plain": np.zeros_like(rows),
        "rows": rows,
        "columns": columns,
        "checks": rows ^ columns,
        "dots": rows & columns,
    }[texture]
    return 1 - 0.6 * dark


def draw(folder: Path) -> None:
    """Write two photographs of each class, their masks and a table of them."""
    lines = ["image,labels,mask,split"]
    down, across = np.mgrid[:SIDE, :SIDE]
    for number, name in enumerate(CLASSES, 1):
        colour, shape, texture = name.split()
        for split in SPLITS:
            random = np.random.default_rng([number, SPLITS.index(split)])
            size = random.uniform(12, 18)
            row, column = random.uniform(size, SIDE - size, 2)
            inside = outline(shape, (across - column) / size, (down - row) / size)
            image = random.integers(90, 130, (SIDE, SIDE, 3)).astype(np.float64)
            image[inside] = (light(texture, across, down)[..., None] * COLOURS[colour])[inside]
            file, mask = f"{split}{number:03}.png", f"{split}{number:03}-mask.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / file)
            write_mask(folder / mask, inside.astype(np.uint16) * np.uint16(number))
            lines.append(f"{file},{name},{mask},{split}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the workflow and return the folder of its results."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "data").mkdir()
    draw(folder / "data")
    settings = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text()) | {
        "name": "many",
        "protocol": "bench",
        "companions": {},
        "dataset": {
            "kind": "table",
            "table": "data/table.csv",
            "classes": list(CLASSES),
            "train": "train",
            "seeds": "train",
            "val": "val",
        },
    }
    del settings["scenes"]
    (folder / "many.yaml").write_text(yaml.safe_dump(settings))
    words = ["--snakefile", ROOT / "workflow" / "Snakefile", "--cores", "1"]
    words += ["--quiet", "host", "--configfile", "many.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results" / "many"


def test_everything_is_held_in_two_bytes(results: Path) -> None:
    masks = [*(results / "brnf").rglob("pseudo_labels/**/*.png")]
    masks += (results / "brnf").rglob("predictions/**/*.png")
    assert len(masks) >= 2 * len(CLASSES)
    for path in masks:
        with Image.open(path) as image:
            assert image.mode == "I;16"
    files = [*results.rglob("*.h5")]
    kinds = set()
    for path in files:
        with h5py.File(path) as file:
            if "label" in file:
                kinds.add(file["label"].dtype)
            else:
                kinds |= {group.attrs["classes"].dtype for group in file.values()}
    assert kinds == {np.dtype(np.uint16)}


def test_scores_are_those_of_scikit_learn(results: Path) -> None:
    index = Index.of_split(results / "index", "train")
    assert index.classes == CLASSES
    made = {path.stem: path for path in results.rglob("brnf/seed0/pseudo_labels/train/**/*.png")}
    data = results.parents[1] / "data"
    pairs = [
        (
            read_mask(data / f"{image.id}-mask.png", index.mask_values),
            read_mask(path, range(1, 301)),
        )
        for image in index.images
        for path in [made[image.id]]
    ]
    truth, predicted = (
        np.concatenate([one.ravel() for one in side]) for side in zip(*pairs, strict=True)
    )
    expected = confusion_matrix(truth, predicted, labels=range(len(CLASSES) + 1))
    file = results / "brnf" / "seed0" / "evaluation" / "pseudo_labels-train.json"
    np.testing.assert_array_equal(read_evaluation(file)["confusion"], expected)


def test_tables_have_all_classes_and_the_report_some(results: Path) -> None:
    table = pd.read_csv(results / "tables" / "results.csv")
    assert set(CLASSES) <= set(table.columns)
    assert table.miou.notna().all()
    head = (results / "tables" / "results.md").read_text().splitlines()[0]
    assert sum(name in head for name in CLASSES) == 20
    page = (results / "report.html").read_text()
    assert "300 classes the 10 best and the 10 worst" in page
