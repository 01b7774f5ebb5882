"""What a change of the data reruns, and no other: real runs on a table of own images. Run by ``make
test-invalidation``.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked_snakemake import SNAKEFILE
from invalidation import planned
from PIL import Image

from brnf.data.index import shard_of

TINY = SNAKEFILE.parents[1] / "config" / "tiny.yaml"
TRAIN, VAL = [f"train{i}" for i in range(8)], [f"val{i}" for i in range(6)]
COLOURS = np.array([(90, 90, 90), (220, 40, 30), (40, 60, 220)], np.uint8)

REPORTED = {"tabulate": 1, "draw scores": 1, "report": 1}
UNSEEN = {
    "evaluate base cam_classifier": 1,
    "evaluate base segmentation": 1,
    "draw predictions": 1,
    **REPORTED,
}
ONE_SHARD = {"index_images": 1, "compute_cams base": 1, "predict_segmentation base": 1, **UNSEEN}
TRAINED = {
    "train_base base": 1,
    "compute_cams base": 4,
    "make_pseudo_labels base": 2,
    "train_segmentation base": 1,
    "write_cam_model base": 1,
    "write_segmentation_model base": 1,
    "predict_segmentation base": 2,
    "evaluate base cam_classifier": 2,
    "evaluate base pseudo_labels": 1,
    "evaluate base segmentation": 1,
    "draw examples": 1,
    "draw predictions": 1,
    "draw curves": 1,
    **REPORTED,
}


class Table:
    """Images with one coloured square each, their masks and table, and a workflow on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir(parents=True)
        self.images: dict[str, str] = {}
        for name in (*TRAIN, *VAL):
            self.add(name)

    def add(self, name: str) -> None:
        """Write image and mask, and a row of the table."""
        number = int(name.removeprefix("train").removeprefix("val"))
        self.images[name] = ("red", "blue")[number % 2]
        self.draw(name, left=number)
        self.write()

    def draw(self, name: str, left: int) -> None:
        """Write image and mask with the square at a place."""
        truth = np.zeros((64, 64), np.uint8)
        truth[8:40, left : left + 32] = 1 + ["blue", "red"].index(self.images[name])
        noise = np.random.default_rng(left).integers(0, 20, (64, 64, 3))
        Image.fromarray(np.asarray(COLOURS[truth] + noise, np.uint8)).save(
            self.data / f"{name}.png"
        )
        Image.fromarray(truth).save(self.data / f"{name}-mask.png")

    def write(self) -> None:
        """Write the table."""
        rows = [
            f"{name}.png,{label},{name}-mask.png,{name.rstrip('0123456789')}"
            for name, label in self.images.items()
        ]
        (self.data / "table.csv").write_text("\n".join(["image,labels,mask,split", *rows]) + "\n")

    def run(self) -> dict[str, int]:
        """Run the workflow and return its jobs."""
        settings = yaml.safe_load(TINY.read_text()) | {
            "name": "own",
            "protocol": "bench",
            "models": ["base"],
            "products": ["cam_classifier", "pseudo_labels", "segmentation"],
            "evaluate": {"val_products": ["cam_classifier"]},
            "companions": {},
            "dataset": {
                "kind": "table",
                "table": f"{self.data.name}/table.csv",
                "train": "train",
                "eval_split": "train",
                "val": "val",
            },
        }
        del settings["scenes"]
        (self.folder / "own.yaml").write_text(yaml.safe_dump(settings))
        words = [
            "--snakefile",
            str(SNAKEFILE),
            "--cores",
            "2",
            "--quiet",
            "host",
            "--configfile",
            "own.yaml",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        return dict(planned(output))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    table = Table(tmp_path_factory.mktemp("table"))
    assert table.run() == {"index_images": 1, "write_config": 1, **TRAINED}
    return table


def change_mask(name: str) -> Callable[[Table], None]:
    return lambda table: Image.fromarray(np.full((64, 64), 1, np.uint8)).save(
        table.data / f"{name}-mask.png"
    )


def touch_everything(table: Table) -> None:
    for path in table.data.iterdir():
        os.utime(path)


def remove_index(table: Table) -> None:
    shutil.rmtree(table.folder / "results" / "own" / "index")


def remove_index_and_change(table: Table) -> None:
    remove_index(table)
    table.draw("train3", left=11)


def move(table: Table) -> None:
    table.data = table.data.rename(table.folder / "elsewhere")


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        pytest.param(lambda table: None, {}, id="nothing"),
        pytest.param(touch_everything, {}, id="all files touched"),
        pytest.param(remove_index, {"index_images": 1}, id="the index removed"),
        pytest.param(
            remove_index_and_change,
            {"index_images": 1, **TRAINED},
            id="the index removed and a training image changed",
        ),
        pytest.param(
            change_mask("val1"), {"index_images": 1, **UNSEEN}, id="a mask of an evaluation image"
        ),
        pytest.param(
            change_mask("train1"),
            {
                "index_images": 1,
                "evaluate base cam_classifier": 1,
                "evaluate base pseudo_labels": 1,
                "draw examples": 1,
                **REPORTED,
            },
            id="a mask of a training image",
        ),
        pytest.param(lambda table: table.add("val6"), ONE_SHARD, id="an evaluation image more"),
        pytest.param(
            move, {"index_images": 1, "write_config": 1, "report": 1}, id="the data set moved"
        ),
        pytest.param(
            lambda table: table.add("train8"),
            {"index_images": 1, **TRAINED},
            id="a training image more",
        ),
    ],
)
def test_a_change_of_the_data_reruns_what_reads_it(
    table: Table, change: Callable[[Table], None], jobs: dict[str, int]
) -> None:
    change(table)
    assert Counter(table.run()) == Counter(jobs)


def test_both_shards_hold_images_whatever_is_added() -> None:
    for names in (TRAIN, VAL):
        assert {shard_of(name, 2) for name in names} == {0, 1}
