"""The synthetic data set of ImageNet's size, at a tiny one, and what is planned with it."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.imagenet_plan import DISK, START, Pace, elapsed, scheduled
from benchmarks.imagenet_scale import pretend_seen
from benchmarks.index_rate import decoded, indexed, write_table
from benchmarks.synthetic_imagenet import write_imagenet, write_index
from brnf.config.sections.data import IndexedImages
from brnf.data.index import Index, has_masks
from brnf.engine.runtime import Runtime
from brnf.planning.jobs import Job
from brnf.stages.index_images import Inputs, Options, Outputs, run


def test_what_is_pretended_is_what_a_first_indexing_leaves(tmp_path: Path) -> None:
    table = write_imagenet(tmp_path / "data", 1100)
    options = Options(IndexedImages(kind="table"), splits=("train",))
    run(
        Inputs(table=table),
        Outputs(tmp_path / "index"),
        options,
        Runtime(workers=0, progress="none"),
    )
    left = (tmp_path / "index.files.csv").read_bytes()
    pretend_seen(table, tmp_path / "pretended")
    pretended = (tmp_path / "pretended.files.csv").read_bytes()
    assert left.startswith(pretended) and left.count(b"\n") == pretended.count(b"\n") + 1


def test_an_index_of_files_that_are_nowhere_is_read(tmp_path: Path) -> None:
    write_index(tmp_path, {"train": 1200, "val": 30}, 4, (375, 500), masked="val")
    index = Index.of_split(tmp_path, "train")
    assert len(index.images) == 1200 and len(index.classes) == 1000
    assert {(image.height, image.width) for image in index.images} == {(375, 500)}
    assert has_masks(tmp_path, "val") and not has_masks(tmp_path, "train")
    lists = (tmp_path / "shards" / "train").iterdir()
    assert sum(len(Index.of_list(tmp_path, path).images) for path in lists) == 1200


def test_both_sides_of_the_rate_see_all_pictures(tmp_path: Path) -> None:
    table = write_table(tmp_path, 50, (20, 30))
    assert indexed(table, 2).wall > 0 and decoded(table, 2).wall > 0


@pytest.mark.parametrize(
    ("gpus", "hours"), [(1, 100 + 4 * 20), (4, 100 / 4 + 20), (8, 100 / 4 + 20)]
)
def test_a_training_takes_its_places_and_shards_share_them(gpus: int, hours: float) -> None:
    jobs = [Job("train_base", {}, ("network",), benchmark="yes")]
    jobs += [
        Job("compute_cams", {"shard": str(number)}, (f"{number}.h5",), ("network",), "", "yes")
        for number in range(4)
    ]
    work = pd.DataFrame(
        [("train_base", "train_base", 0, 1600.0, 16.0)] + [("compute_cams", "cams", 10, 0, 0)] * 4,
        columns=["rule", "kind", "images", "samples", "batch"],
    )
    devices = min(gpus, 4)
    training = Pace(step=1 / devices, samples=16, devices=devices)
    paces = {"train_base": training, "compute_cams": Pace(image=2.0)}
    each, wall = scheduled(jobs, work, paces, gpus, {"compute_cams": 20 * DISK / 4})
    rounds = 1 + max(4 // gpus, 1)  # four at a time take 20 s to write, and as long to compute
    assert wall == pytest.approx(hours + START * rounds)
    assert elapsed(each, gpus)["train_base"] == pytest.approx(100 / devices + START)
