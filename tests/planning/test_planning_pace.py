"""Constant and slopes from made-up benchmark files and logs; amounts of work; wall time."""

from pathlib import Path
from typing import Any

import pytest

from brnf.config.experiment import Experiment, merged
from brnf.config.generate import load_schema
from brnf.config.schema import complete
from brnf.errors import UserError
from brnf.planning.jobs import Job
from brnf.planning.pace import Measured, Pace, Work, measured, wall_time, work_of
from brnf.planning.sizes import SplitSize

TRAINING = {"name": "x", "model": "base", "seed": "0"}


def experiment(**changes: Any) -> Experiment:
    return Experiment(complete(merged({"name": "x", "dataset": {}}, changes), load_schema()))


def write_job(
    folder: Path, seconds: float, *loops: tuple[int, str, float], peak: float = 900.0
) -> Job:
    """Write what a job leaves: loops are a count, a unit and the seconds they took."""
    folder.mkdir()
    (folder / "job.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t-\n")
    lines = [f"work: {n // 2}/{n} {unit}s, 9/s, 1 s left" for n, unit, _ in loops]
    lines += [
        f"work on it: {n}/{n} {unit}s, {n / time:.3g}/s, 0 s left, loss 2"
        for n, unit, time in loops
    ]
    (folder / "job.log").write_text("\n".join([*lines, f"peak memory: {peak} MiB"]) + "\n")
    return Job("train_base", TRAINING, log="job.log", benchmark="job.tsv")


def test_constant_and_slopes_are_recovered_from_files(tmp_path: Path) -> None:
    """Each job takes 5 s, a second more to warm its loop up, 0.5 s an image and 0.25 s a sample."""
    runs = []
    for images, steps, batch in ((2, 2, 2), (6, 6, 6)):
        folder = tmp_path / str(images)
        over_images, over_steps = 1 + 0.5 * images, 0.25 * steps * batch
        loops = (images, "image", over_images), (steps, "step", over_steps)
        job = write_job(folder, 5 + over_images + over_steps, *loops, peak=500 + 100.0 * batch)
        runs.append(measured(folder, job, Work(images, steps * batch, batch)))
    pace = Pace.between(*runs)
    assert pace.image == pytest.approx(0.5, rel=0.01)
    assert pace.sample == pytest.approx(0.25, rel=0.01)
    assert pace.constant == pytest.approx(6, rel=0.01)
    assert pace.seconds(Work(1000, 16000, 16)) == pytest.approx(6 + 500 + 4000, rel=0.01)
    assert pace.peak(Work(1000, 16000, 16)) == pytest.approx((500 + 1600) * 2**20, rel=0.01)


def test_what_grows_with_nothing_is_constant(tmp_path: Path) -> None:
    runs = [
        measured(tmp_path / name, write_job(tmp_path / name, seconds), Work(images))
        for name, seconds, images in (("a", 4.0, 2), ("b", 5.0, 6))
    ]
    assert Pace.between(*runs).seconds(Work(1_000_000)) == 4.5


@pytest.mark.parametrize(("less", "more", "images"), [(3.0, 1.0, 4), (2.0, 2.0, 8), (1.0, 2.0, 8)])
def test_no_slope_is_negative_and_equal_jobs_have_one(
    less: float, more: float, images: float
) -> None:
    runs = [Measured(Work(4), 9, less, 0, 0), Measured(Work(images), 9, more, 0, 0)]
    pace = Pace.between(*runs)
    assert pace.image == pytest.approx(0.25) and 7 <= pace.constant <= 8.0


def test_all_processes_of_a_job_count_where_the_samples_saw_more(tmp_path: Path) -> None:
    job = write_job(tmp_path / "a", 3.0, peak=100)
    (tmp_path / "a" / "job.tsv").write_text("s\tmax_rss\n3\t250\n")
    assert measured(tmp_path / "a", job, Work(1)).memory == 250 * 2**20


@pytest.mark.parametrize("text", [None, "", "s\nnothing\n"])
def test_a_missing_or_cut_benchmark_file_is_one_line(tmp_path: Path, text: str | None) -> None:
    job = write_job(tmp_path / "a", 3.0)
    (tmp_path / "a" / "job.tsv").unlink()
    if text is not None:
        (tmp_path / "a" / "job.tsv").write_text(text)
    with pytest.raises(UserError, match="train_base left no benchmark file") as caught:
        measured(tmp_path / "a", job, Work(1))
    assert "\n" not in str(caught.value)


def work(rule: str, images: int, chosen: Experiment, **wildcards: str) -> Work:
    size = SplitSize(images, 20, 1.5, 0, 0, 1000 * images)
    job = Job(rule, {"name": "x", **wildcards})
    return work_of(job, chosen, lambda split: size, lambda split: 4)


def test_trainings_count_samples_and_all_others_images() -> None:
    chosen = experiment(
        base={"batch_size": 16, "epochs": 5},
        brnf={"batch_size": 8, "steps": 30},
        variants={"wide": {"batch_size": 10}},
        flow={"steps": 50, "batch_rows": 2000},
        segmentation={"iterations": 70, "batch_size": 10, "accumulate": 2},
        random_walk={"batch_size": 32, "epochs": 3},
    )
    of_model = {"seed": "0"}
    found = {
        rule: work(rule, 100, chosen, model=model, **of_model)
        for rule, model in (
            ("train_base", "base"),
            ("train_brnf", "wide"),
            ("train_flow", "base"),
            ("train_segmentation", "base"),
            ("train_boundaries", "base"),
        )
    }
    assert {rule: (one.samples, one.batch) for rule, one in found.items()} == {
        "train_base": (5 * 6 * 16, 16),
        "train_brnf": (30 * 10, 10),
        "train_flow": (50 * 2000, 2000),
        "train_segmentation": (70 * 20, 20),
        "train_boundaries": (3 * 3 * 32, 32),
    }
    assert {one.images for one in found.values()} == {100}
    few = work("train_base", 3, chosen, model="base", **of_model)
    assert few == Work(3, 5 * 3, 3)  # a step of 3 images an epoch
    assert work("train_flow", 1, chosen, model="base", **of_model).batch == 1000
    shard = work("compute_cams", 100, chosen, model="base", split="val", shard="2", **of_model)
    assert shard == Work(25)
    whole = work("evaluate", 100, chosen, model="base", split="val", product="seeds", **of_model)
    assert whole == Work(100)
    assert work("index_images", 100, chosen) == Work(300)  # train_aug, train, val
    assert work("tabulate", 100, chosen) == Work(0)


def test_jobs_wait_for_inputs_and_for_a_place() -> None:
    jobs = [
        Job("a", {}, ("index",)),
        *(Job("b", {}, (f"map{i}",), ("index/list.csv",)) for i in range(4)),
        Job("c", {}, ("table",), tuple(f"map{i}" for i in range(4))),
    ]
    seconds = [2.0, 3.0, 3.0, 3.0, 3.0, 1.0]
    assert [wall_time(jobs, seconds, places) for places in (1, 2, 4, 9)] == [15, 9, 6, 6]
    assert wall_time([], [], 2) == 0
