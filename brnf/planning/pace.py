"""What a job costs, from two small ones: a constant, and seconds for an image and a sample.

A stage tells in its log how long its loops took (``engine.runtime.Progress``); what the benchmark
file of the job has beyond them is the constant: interpreter, imports, networks, and what a loop
costs once.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import pandas as pd

from brnf.config.experiment import Experiment
from brnf.engine.memory import peak_told
from brnf.engine.schedule import total_steps
from brnf.errors import UserError
from brnf.planning.jobs import Job
from brnf.planning.sizes import SplitSize, splits_of

__all__ = ["TRAININGS", "Measured", "Pace", "Work", "measured", "wall_time", "work_of"]

LOOP = re.compile(r"^.+: (\d+)/\1 (\w+)s, ([0-9.e+-]+)/s", re.MULTILINE)
"""The last line of a loop's progress."""
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Work:
    """How much a job has to do.

    Attributes:
        images: that it goes through.
        samples: that a training sees, steps times batch: crops, or rows of a pixel store.
        batch: samples of a step, 0 where there is none.
    """

    images: float
    samples: float = 0.0
    batch: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What a small job took.

    Attributes:
        work: that it did.
        seconds: in all.
        over_images: seconds of them in loops over images or blocks of rows.
        over_steps: seconds of them in loops over the steps of a training.
        memory: most main memory, bytes.
    """

    work: Work
    seconds: float
    over_images: float
    over_steps: float
    memory: float


@dataclass(frozen=True)
class Pace:
    """What jobs of one kind cost.

    Attributes:
        constant: seconds of any job.
        image: seconds more for each image.
        sample: seconds more for each sample.
        memory: bytes of a job with a batch of 0.
        memory_of_sample: bytes more for each sample of a batch.
    """

    constant: float
    image: float
    sample: float
    memory: float
    memory_of_sample: float = 0.0

    @classmethod
    def between(cls, small: Measured, large: Measured) -> "Pace":
        """Return the line through two jobs; what grows with nothing is the constant."""
        image = _slope(small.over_images, large.over_images, small.work.images, large.work.images)
        sample = _slope(small.over_steps, large.over_steps, small.work.samples, large.work.samples)
        rest = [
            one.seconds - image * one.work.images - sample * one.work.samples
            for one in (small, large)
        ]
        wider = large.work.batch - small.work.batch
        growth = max(0.0, large.memory - small.memory) / wider if wider > 0 else 0.0
        memory = max(small.memory, large.memory) - growth * large.work.batch
        return cls(max(0.0, sum(rest) / len(rest)), image, sample, memory, growth)

    def seconds(self, work: Work) -> float:
        """Return the seconds of a job."""
        return self.constant + self.image * work.images + self.sample * work.samples

    def peak(self, work: Work) -> float:
        """Return the most main memory of a job, bytes."""
        return self.memory + self.memory_of_sample * work.batch


def _slope(small: float, large: float, less: float, more: float) -> float:
    """Return the seconds of a unit.

    Where both jobs did the same, or the larger was not slower, what a loop costs once cannot be
    told from the rest: then it counts as part of the units.
    """
    if more > less and large > small:
        return (large - small) / (more - less)
    return large / more if more else 0.0


def measured(folder: Path, job: Job, work: Work) -> Measured:
    """Read what a job took from its benchmark file and its log.

    Arguments:
        folder: in which Snakemake ran.
        job: that it ran there.
        work: that the job did.

    Raises:
        UserError: the benchmark file is missing or damaged.
    """
    try:
        row = pd.read_csv(folder / job.benchmark, sep="\t", na_values="-").iloc[0]
        seconds, rss = float(row["s"]), float(row["max_rss"])  # not a number of very short jobs
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"plan: {job.rule} left no benchmark file ({error})") from error
    log = folder / job.log
    text = log.read_text(errors="replace") if job.log and log.is_file() else ""
    loops = {"step": 0.0, "image": 0.0}
    for count, unit, rate in LOOP.findall(text):
        loops["step" if unit == "step" else "image"] += int(count) / float(rate)
    told = [one for one in (rss, peak_told(log)) if not math.isnan(one)]
    memory = MEBIBYTE * max(told, default=0.0)
    return Measured(work, seconds, loops["image"], loops["step"], memory)


Samples = Callable[[Experiment, str, SplitSize], tuple[float, float]]
"""From experiment, model and training split to steps and samples of a step."""


def _cam_training(experiment: Experiment, model: str, size: SplitSize) -> tuple[float, float]:
    training = experiment.network(model)
    batch = training["batch_size"]
    steps = total_steps(size.images, batch, training["epochs"], training["steps"])[1]
    return steps, min(batch, size.images)


def _flow(experiment: Experiment, model: str, size: SplitSize) -> tuple[float, float]:
    flow = experiment.settings["flow"]
    return flow["steps"], min(flow["batch_rows"], size.rows)


def _segmentation(experiment: Experiment, model: str, size: SplitSize) -> tuple[float, float]:
    training = experiment.settings["segmentation"]
    return training["iterations"], training["batch_size"] * training["accumulate"]


def _boundaries(experiment: Experiment, model: str, size: SplitSize) -> tuple[float, float]:
    training = experiment.settings["random_walk"]
    batch = training["batch_size"]
    steps = total_steps(size.images, batch, training["epochs"], training["steps"])[1]
    return steps, batch


TRAININGS: Mapping[str, Samples] = {
    "train_base": _cam_training,
    "train_brnf": _cam_training,
    "train_flow": _flow,
    "train_segmentation": _segmentation,
    "train_boundaries": _boundaries,
}
"""Rules whose jobs take steps; those of all others go through images."""


def work_of(
    job: Job,
    experiment: Experiment,
    sizes: Callable[[str], SplitSize],
    shards: Callable[[str], int],
) -> Work:
    """Return how much a job has to do.

    Arguments:
        job: of the experiment.
        experiment: its settings.
        sizes: from a split to its size.
        shards: from a split to the number of its shards.
    """
    images: float = sum(sizes(split).images for split in splits_of(job, experiment))
    if "shard" in job.wildcards:
        images /= shards(job.wildcards["split"])
    if job.rule not in TRAININGS:
        return Work(images)
    train = sizes(experiment.settings["dataset"]["train"])
    steps, batch = TRAININGS[job.rule](experiment, job.wildcards["model"], train)
    return Work(images, steps * batch, batch)


def wall_time(jobs: Sequence[Job], seconds: Sequence[float], at_once: int) -> float:
    """Return how long jobs take when each starts as soon as its inputs and a place are there.

    Arguments:
        jobs: whose inputs, or folders above them, are outputs of others.
        seconds: of each.
        at_once: places.
    """
    makers = {output: number for number, job in enumerate(jobs) for output in job.outputs}
    needs = [
        {
            makers[place]
            for file in job.inputs
            for place in (file, *map(str, Path(file).parents))
            if place in makers
        }
        for job in jobs
    ]
    followers: defaultdict[int, list[int]] = defaultdict(list)
    for number, before in enumerate(needs):
        for need in before:
            followers[need].append(number)
    missing = [len(before) for before in needs]
    begins = [0.0] * len(jobs)
    ready = [(0.0, number) for number, count in enumerate(missing) if not count]
    free = [0.0] * max(at_once, 1)
    while ready:
        begin, number = heappop(ready)
        end = max(begin, heappop(free)) + seconds[number]
        heappush(free, end)
        for follower in followers[number]:
            begins[follower] = max(begins[follower], end)
            missing[follower] -= 1
            if not missing[follower]:
                heappush(ready, (begins[follower], follower))
    return max(free)
