"""What a job costs, from two small ones: a constant, and seconds for an image and a sample.

A stage tells in its log how long its loops took (``engine.runtime.Progress``); what the benchmark
file of the job has beyond them is the constant: interpreter, imports, networks, and what a loop
costs once.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import pandas as pd

from brnf.config.experiment import Experiment
from brnf.engine.memory import peak_told
from brnf.engine.schedule import fewest_steps, total_steps
from brnf.errors import UserError
from brnf.planning.jobs import Job
from brnf.planning.sizes import SplitSize, sizes_of, splits_of

__all__ = ["extrapolated", "measured", "wall_time", "work_table"]

LOOP = re.compile(r"^.+: (\d+)/\1 (\w+)s, ([0-9.e+-]+)/s", re.MULTILINE)
"""The last line of a loop's progress."""
MEBIBYTE = 2**20


def work_table(
    experiments: Mapping[str, Experiment], jobs: Iterable[Job], results: Path
) -> pd.DataFrame:
    """Return how much jobs have to do.

    Arguments:
        experiments: by name, the main one first.
        jobs: of these; those without a benchmark file take no time.
        results: folder of all results.

    Returns:
        For each job its rule, its kind, the images that it goes through, the samples that a
        training sees (steps times batch: crops, or rows of a pixel store), and those of a step.
    """
    size_of, rows = sizes_of(experiments, results), []
    for job in (job for job in jobs if job.benchmark):
        experiment = job.of(experiments)
        sizes = [size_of(experiment.name, split) for split in splits_of(job, experiment)]
        images = sum(size.images for size in sizes)
        steps, batch = _steps(job, experiment, sizes)
        share = images / sizes[0].shards if "shard" in job.wildcards else images
        rows.append((job.rule, job.kind, share, steps * batch, batch))
    return pd.DataFrame(rows, columns=["rule", "kind", "images", "samples", "batch"])


def _steps(job: Job, experiment: Experiment, sizes: Sequence[SplitSize]) -> tuple[int, float]:
    """Return the steps of a training and the samples of one, 0 and 0 of any other job."""
    settings = experiment.settings
    match job.rule:
        case "train_base" | "train_brnf" | "train_boundaries":
            boundaries = job.rule == "train_boundaries"  # whose batches are always full
            network = experiment.network(job.wildcards["model"])
            training: Mapping[str, Any] = settings["random_walk"] if boundaries else network
            images, batch = sizes[0].images, training["batch_size"]
            steps = total_steps(images, batch, training["epochs"], training["steps"])[1]
            return steps, batch if boundaries else min(batch, images)
        case "train_flow":
            return settings["flow"]["steps"], min(settings["flow"]["batch_rows"], sizes[0].rows)
        case "train_segmentation":
            training = settings["segmentation"]
            batch = training["batch_size"] * training["accumulate"]
            limits = training["iterations"], training["epochs"]
            return fewest_steps(sizes[0].images, batch, *limits), batch
    return 0, 0


def measured(
    folder: Path, experiments: Mapping[str, Experiment], jobs: Iterable[Job]
) -> pd.DataFrame:
    """Read what jobs took from their benchmark files and logs.

    Arguments:
        folder: in which Snakemake ran.
        experiments: by name, the main one first.
        jobs: that it ran there, one of each kind.

    Returns:
        By the kind of a job: its work, the seconds it took, those of them in loops over images (or
        blocks of rows) and over the steps of a training, and its most memory in bytes.

    Raises:
        UserError: a benchmark file is missing or damaged.
    """
    timed = [job for job in jobs if job.benchmark]
    rows = []
    for job in timed:
        try:
            row = pd.read_csv(folder / job.benchmark, sep="\t", na_values="-").iloc[0]
            seconds, rss = float(row["s"]), float(row["max_rss"])  # nan of very short jobs
        except (OSError, ValueError, LookupError) as error:
            raise UserError(f"plan: {job.rule} left no benchmark file ({error})") from error
        log = folder / job.log
        loops = {"step": 0.0, "image": 0.0}
        for count, unit, rate in LOOP.findall(log.read_text(errors="replace")):
            loops["step" if unit == "step" else "image"] += int(count) / float(rate)
        memory = MEBIBYTE * pd.Series([rss, peak_told(log), 0.0]).max()
        rows.append((seconds, loops["image"], loops["step"], memory))
    took = pd.DataFrame(rows, columns=["seconds", "over_images", "over_steps", "memory"])
    return work_table(experiments, timed, folder / "results").join(took).set_index("kind")


def extrapolated(small: pd.DataFrame, large: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Return jobs with their seconds and memory: on the line through two small ones of their kind.

    What grows with nothing is constant.

    Arguments:
        small: see :func:`measured`.
        large: the same with more work.
        whole: see :func:`work_table`.
    """
    image = _slope(small, large, "over_images", "images")
    sample = _slope(small, large, "over_steps", "samples")
    rest = (small.seconds - image * small.images - sample * small.samples) + (
        large.seconds - image * large.images - sample * large.samples
    )
    wider = large.batch - small.batch
    growth = ((large.memory - small.memory).clip(lower=0) / wider).where(wider > 0, 0.0)
    memory = small.memory.combine(large.memory, max) - growth * large.batch
    constant = (rest / 2).clip(lower=0)
    paces = pd.DataFrame(
        {"constant": constant, "image": image, "sample": sample, "least": memory, "growth": growth}
    )
    one = whole.join(paces, on="kind")
    return one.assign(
        seconds=one.constant + one["image"] * one.images + one["sample"] * one.samples,
        memory=one.least + one.growth * one.batch,
    )


def _slope(small: pd.DataFrame, large: pd.DataFrame, loop: str, unit: str) -> pd.Series:
    """Return the seconds of a unit of work.

    Where both jobs did the same, or the larger was not slower, what a loop costs once cannot be
    told from the rest: then it counts as part of the units.
    """
    more, longer = large[unit] - small[unit], large[loop] - small[loop]
    return (longer / more).where((more > 0) & (longer > 0), large[loop] / large[unit]).fillna(0.0)


def wall_time(
    jobs: Sequence[Job], seconds: Sequence[float], at_once: int, places: Sequence[int] = ()
) -> float:
    """Return how long jobs take when each starts as soon as its inputs and its places are there.

    Arguments:
        jobs: whose inputs, or folders above them, are outputs of others.
        seconds: of each.
        at_once: places.
        places: that each job takes, at most all; none given: one each.
    """
    makers = {output: number for number, job in enumerate(jobs) for output in job.outputs}
    followers: defaultdict[int, list[int]] = defaultdict(list)
    missing, begins = [0] * len(jobs), [0.0] * len(jobs)
    for number, job in enumerate(jobs):
        needs = {place for file in job.inputs for place in (file, *map(str, Path(file).parents))}
        for need in {makers[place] for place in needs & makers.keys()}:
            followers[need].append(number)
            missing[number] += 1
    ready = [(0.0, number) for number, count in enumerate(missing) if not count]
    free = [0.0] * max(at_once, 1)
    while ready:
        begin, number = heappop(ready)
        taken = [heappop(free) for _ in range(places[number] if places else 1)]
        end = max(begin, taken[-1]) + seconds[number]
        for _ in taken:
            heappush(free, end)
        for follower in followers[number]:
            begins[follower] = max(begins[follower], end)
            missing[follower] -= 1
            if not missing[follower]:
                heappush(ready, (begins[follower], follower))
    return max(free)
