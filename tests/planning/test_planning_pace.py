"""Made-up benchmark files and logs are extrapolated; amounts of work; wall time."""

from pathlib import Path
from typing import Any

import pytest

from brnf.config.experiment import Experiment, merged
from brnf.config.generate import load_schema
from brnf.config.schema import complete
from brnf.errors import UserError
from brnf.planning.jobs import Job
from brnf.planning.pace import extrapolated, measured, wall_time, work_table

RUN = {"name": "x", "model": "base", "seed": "0"}


def experiment(**changes: Any) -> dict[str, Experiment]:
    scenes = {"kind": "scenes", "train": "train", "eval_split": "train"}
    settings = merged({"name": "x", "dataset": scenes, "shards": 1}, changes)
    return {"x": Experiment(complete(settings, load_schema()))}


def small(images: int, steps: int = 0) -> dict[str, Experiment]:
    """Return an experiment of so many images and steps, whose batches are that large."""
    training = {"batch_size": images, "steps": steps}
    return experiment(scenes={"train": images, "val": images}, base=training)


def write_job(
    folder: Path,
    rule: str,
    seconds: float,
    *loops: tuple[int, str, float],
    peak: float = 900.0,
    rss: str = "-",
) -> Job:
    """Write what a job leaves: loops are a count, a unit and the seconds they took."""
    folder.mkdir(exist_ok=True)
    (folder / f"{rule}.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{rss}\n")
    lines = [f"work: {n // 2}/{n} {unit}s, 9/s, 1 s left" for n, unit, _ in loops]
    for n, unit, time in loops:
        lines.append(f"work on it: {n}/{n} {unit}s, {n / time:.6g}/s, 0 s left, loss 2")
    (folder / f"{rule}.log").write_text("\n".join([*lines, f"peak memory: {peak} MiB"]) + "\n")
    wildcards = RUN if rule.startswith("train") else {**RUN, "split": "train", "shard": "0"}
    return Job(rule, wildcards, log=f"{rule}.log", benchmark=f"{rule}.tsv")


def test_a_whole_is_on_the_line_through_both_small_ones(tmp_path: Path) -> None:
    """A job takes 5 s, a second more to warm its loop up, 0.5 s an image and 0.25 s a sample."""
    runs = []
    for images, steps in ((2, 2), (6, 6)):
        over_images, over_steps = 1 + 0.5 * images, 0.25 * steps * images
        loops = (images, "image", over_images), (steps, "step", over_steps)
        folder, seconds = tmp_path / str(images), 5 + over_images + over_steps
        job = write_job(folder, "train_base", seconds, *loops, peak=500 + 100.0 * images)
        other = write_job(folder, "store_pixels", 4.0 + images / 4)
        runs.append(measured(folder, small(images, steps), [job, other]))
    chosen = experiment(
        scenes={"train": 1000},
        base={"batch_size": 16, "steps": 1000},
        random_seeds=[0, 7],
        shards=4,
    )
    jobs = [Job("train_base", {**RUN, "seed": seed}, benchmark="b") for seed in "07"]
    store = {**RUN, "split": "train"}
    jobs += [Job("store_pixels", {**store, "shard": shard}, benchmark="b") for shard in "0123"]
    whole = extrapolated(*runs, work_table(chosen, jobs, tmp_path))
    assert whole.seconds.tolist() == pytest.approx(2 * [6 + 500 + 4000] + 4 * [5.0], rel=0.001)
    assert whole.memory.tolist()[:2] == pytest.approx(2 * [(500 + 1600) * 2**20], rel=0.001)


@pytest.mark.parametrize(("less", "more", "images"), [(3.0, 1.0, 4), (2.0, 2.0, 8), (1.0, 2.0, 8)])
def test_no_pace_is_negative_and_equal_jobs_have_one(
    tmp_path: Path, less: float, more: float, images: int
) -> None:
    runs = []
    for name, count, time in (("a", 4, less), ("b", images, more)):
        job = write_job(tmp_path / name, "compute_cams", 9, (count, "image", time))
        runs.append(measured(tmp_path / name, small(count), [job]))
    jobs = [Job("compute_cams", job.wildcards, benchmark="b")]
    one, thousand = (
        float(extrapolated(*runs, work_table(small(count), jobs, tmp_path)).seconds.iloc[0])
        for count in (1, 1001)
    )
    assert (thousand - one) / 1000 == pytest.approx(0.25, rel=1e-3) and 7 <= one <= 8.3


def test_all_processes_of_a_job_count_where_the_samples_saw_more(tmp_path: Path) -> None:
    job = write_job(tmp_path, "compute_cams", 3.0, peak=100, rss="250")
    assert measured(tmp_path, small(1), [job]).memory.tolist() == [250 * 2**20]


@pytest.mark.parametrize("text", [None, "", "s\nnothing\n"])
def test_a_missing_or_cut_benchmark_file_is_one_line(tmp_path: Path, text: str | None) -> None:
    job = write_job(tmp_path, "train_base", 3.0)
    (tmp_path / job.benchmark).unlink()
    if text is not None:
        (tmp_path / job.benchmark).write_text(text)
    with pytest.raises(UserError, match="train_base left no benchmark file") as caught:
        measured(tmp_path, small(1), [job])
    assert "\n" not in str(caught.value)


def test_trainings_count_samples_and_all_others_images(tmp_path: Path) -> None:
    chosen = experiment(
        scenes={"train": 100, "val": 100, "size": 64},  # 16 rows of the pixel store an image
        shards=4,
        base={"batch_size": 16, "epochs": 5},
        brnf={"batch_size": 8, "steps": 30},
        variants={"wide": {"batch_size": 10}},
        flow={"steps": 50, "batch_rows": 2000},
        segmentation={"iterations": 70, "batch_size": 10, "accumulate": 2},
        random_walk={"batch_size": 32, "epochs": 3},
    )
    expected: list[tuple[str, dict[str, str], tuple[float, ...]]] = [
        ("train_base", RUN, (100, 5 * 6 * 16, 16)),
        ("train_brnf", {**RUN, "model": "wide"}, (100, 30 * 10, 10)),
        ("train_flow", RUN, (100, 50 * 1600, 1600)),
        ("train_segmentation", RUN, (100, 70 * 20, 20)),
        ("train_boundaries", RUN, (100, 3 * 3 * 32, 32)),
        ("compute_cams", {**RUN, "split": "val", "shard": "2"}, (25, 0, 0)),
        ("evaluate", {**RUN, "split": "val", "product": "seeds"}, (100, 0, 0)),
        ("index_images", {"name": "x"}, (200, 0, 0)),
        ("tabulate", {"name": "x"}, (0, 0, 0)),
        ("report", {}, (0, 0, 0)),
    ]
    jobs = [Job(rule, wildcards, benchmark="b") for rule, wildcards, _ in expected]
    table = work_table(chosen, [*jobs, Job("write_config", {"name": "x"})], tmp_path)
    found = table[["images", "samples", "batch"]].itertuples(index=False, name=None)
    assert list(found) == [work for _, _, work in expected]
    few = experiment(scenes={"train": 3}, base={"batch_size": 16, "epochs": 5})
    row = work_table(few, jobs[:1], tmp_path).iloc[0]
    assert (row.samples, row.batch) == (5 * 3, 3)  # a step of 3 images an epoch


def test_jobs_wait_for_inputs_and_for_a_place() -> None:
    jobs = [
        Job("a", {}, ("index",)),
        *(Job("b", {}, (f"map{i}",), ("index/list.csv",)) for i in range(4)),
        Job("c", {}, ("table",), tuple(f"map{i}" for i in range(4))),
    ]
    seconds = [2.0, 3.0, 3.0, 3.0, 3.0, 1.0]
    assert [wall_time(jobs, seconds, places) for places in (1, 2, 4, 9)] == [15, 9, 6, 6]
    assert wall_time([], [], 2) == 0
