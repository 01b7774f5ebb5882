"""Bad data end the workflow in one line that names the file and the remedy, and leave nothing half
written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image


def write_photographs(folder: Path) -> None:
    """Write four images with masks and their table."""
    generator = np.random.default_rng(0)
    rows = ["image,labels,mask,split"]
    for number in range(4):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(
            folder / f"photo{number}.jpg"
        )
        Image.fromarray(generator.integers(0, 3, (40, 50), dtype=np.uint8)).save(
            folder / f"mask{number}.png"
        )
        rows.append(
            f"photo{number}.jpg,cat;dog,mask{number}.png,{'train' if number < 2 else 'val'}"
        )
    (folder / "images.csv").write_text("\n".join(rows) + "\n")


def truncate_photograph(folder: Path) -> None:
    path = folder / "photo1.jpg"
    path.write_bytes(path.read_bytes()[:400])


def shrink_mask(folder: Path) -> None:
    Image.fromarray(np.zeros((20, 25), np.uint8)).save(folder / "mask2.png")


def rename_label(folder: Path) -> None:
    path = folder / "images.csv"
    path.write_text(path.read_text().replace("cat;dog", "cat;dgo", 1))


def lose_photograph(folder: Path) -> None:
    (folder / "photo3.jpg").unlink()


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (truncate_photograph, ["photo1.jpg"]),
        (shrink_mask, ["mask2.png", "25x20", "50x40"]),
        (rename_label, ["images.csv", "dgo"]),
        (lose_photograph, ["photo3.jpg"]),
    ],
)
def test_bad_data_are_one_line(
    workflow: Any, tmp_path: Path, spoil: Callable[[Path], None], fragments: list[str]
) -> None:
    write_photographs(tmp_path)
    spoil(tmp_path)
    dataset = {
        "kind": "table",
        "table": "images.csv",
        "classes": ["cat", "dog"],
        "train": "train",
        "eval_split": "train",
        "val": "val",
    }
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump({"name": "own", "protocol": "bench", "models": ["base"], "dataset": dataset})
    )
    output = workflow("--configfile", "own.yaml", "--", "results/own/index", fails=True)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert errors and len(set(errors)) == 1, output
    assert all(fragment in errors[0] for fragment in fragments), errors[0]
    assert "Traceback" not in output
    assert not (tmp_path / "results" / "own" / "index").exists()
