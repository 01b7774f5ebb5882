"""Stage: say what an experiment will take, from two miniatures of it that the workflow runs."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as numbers
from pathlib import Path

import pandas as pd
import yaml

from brnf.backbones.network import backbone_channels
from brnf.config.experiment import Experiment
from brnf.config.generate import load_schema
from brnf.config.schema import complete, reread
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.tables import markdown, write_table
from brnf.planning.disk import GIGABYTE, needed_bytes, planned_shares, shard_count
from brnf.planning.estimate import duration
from brnf.planning.jobs import HEAD, Job, configuration, snakemake, whole_jobs, workplace
from brnf.planning.miniature import counterpart, largest_batch, miniature, runtime_keys
from brnf.planning.pace import Measured, Pace, measured, wall_time, work_of
from brnf.planning.sizes import bytes_made, split_size
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]

HOUR = 3600
FEW = 4
"""Images and steps of the smaller miniature on a CPU, where a step costs as much as its batch."""
TIMES = 3
"""How many times as many the larger one has there."""
TRIES = 3
UNLEARNED = "flow.tau"
"""Key named by the refusal of a flow without labelled rows: the network has learned too little."""


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    configs: tuple[Path, ...]
    """``config.yaml`` of the experiment and of its companions, each beside its results; the image
    index there counts when there is one.
    """


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    csv: Path
    """A row for each rule: jobs, seconds of one, hours in all, memory of one, disk."""
    markdown: Path
    """The same for reading, with the sums."""


@dataclass(frozen=True)
class Options:
    """How it is planned."""

    keep_features: bool = True
    """Whether pixel stores stay."""
    devices: int = 1
    """Processes of a training."""
    at_once: int = 1
    """Jobs that will run at a time."""
    images: tuple[int, ...] = ()
    """Images of a split, and steps of a training, in both miniatures; none given: 4 and 12, or on a
    GPU so many that batches are full.
    """


Cost = tuple[Job, float, float]
"""A job, its seconds and its most memory (bytes)."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Say what an experiment will take: hours, memory and disk."""
    experiments = _experiments(inputs.configs, options.keep_features)
    results = inputs.configs[0].parent.parent
    with locked(outputs.csv):
        jobs = whole_jobs(
            experiments, lambda name, split: shard_count(experiments[name], results, split)
        )
        counts = options.images or _counts(experiments, options, runtime)
        measure = partial(_measure, experiments, jobs, options=options, runtime=runtime)
        (few, small), (more, large) = _both(measure, counts)
        costs = _costs(experiments, jobs, results, small, large)
        disk, missing = _disk(experiments, jobs, results)
        table = _table(costs, disk)
        free = shutil.disk_usage(results).free / GIGABYTE
        page = "\n".join(
            [
                markdown(_readable(table)),
                _times(costs, options.at_once),
                f"Measured with {few} and {more} images of each split and steps of each training.",
                f"Disk: {_gigabytes(missing / GIGABYTE)} still to make, {_gigabytes(free)} free; "
                "that of a CAM training is its cache, which goes when it ends.",
                "",
            ]
        )
        write_table(table, outputs.csv, digits=7)
        with atomic_file(outputs.markdown) as temporary:
            temporary.write_text(page)
    if runtime.progress != "none":
        print(page, end="")


def _experiments(configs: Sequence[Path], keep_features: bool) -> dict[str, Experiment]:
    """Read the records of the experiment and its companions."""
    schema, found = load_schema(), {}
    for path in configs:
        try:
            content = {**yaml.safe_load(path.read_text()), "keep_features": keep_features}
            settings = complete(reread(content, schema), schema)
            found[str(settings["name"])] = Experiment(settings)
        except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}: missing or damaged record of the configuration; remove it and run "
                "snakemake plan again"
            ) from error
    return found


def _counts(
    experiments: Mapping[str, Experiment], options: Options, runtime: Runtime
) -> tuple[int, int]:
    """Return images and steps of both miniatures: a GPU needs full batches to show its pace."""
    import torch  # not above: --help does without it

    if runtime.device != "cpu" and torch.cuda.is_available():
        batch = max(largest_batch(experiment) for experiment in experiments.values())
        return batch, 2 * batch
    few = max(FEW, options.devices)  # each process of a training needs an image
    return few, TIMES * few


def _both(
    measure: Callable[[int], dict[str, Measured]], counts: Sequence[int], tries: int = TRIES
) -> list[tuple[int, dict[str, Measured]]]:
    """Run both miniatures, with more images and steps where those were too few for a flow.

    Returns:
        For each how many they were, and what its jobs took.
    """
    try:
        return [(count, measure(count)) for count in counts]
    except UserError as error:
        if UNLEARNED not in str(error) or tries == 1:
            raise
    print(f"plan: {counts[0]} images teach too little for a flow", file=sys.stderr, flush=True)
    return _both(measure, [2 * count for count in counts], tries - 1)


def _measure(
    experiments: Mapping[str, Experiment],
    jobs: Sequence[Job],
    count: int,
    options: Options,
    runtime: Runtime,
) -> dict[str, Measured]:
    """Run a miniature and return what its jobs took, by their benchmark files."""
    minis = {name: miniature(experiment, count) for name, experiment in experiments.items()}
    twins = {}
    for job in jobs:
        twin = counterpart(job, _of(experiments, job))
        if twin.benchmark:
            twins[twin.benchmark] = twin
    config = {**configuration(minis), **runtime_keys(runtime, options.devices)}
    watch = _watch(f"plan: {count} images", twins, runtime)
    with workplace(experiments) as folder:
        snakemake(folder, config, "--quiet", "reason", "host", watch=watch)
        results = folder / "results"
        found = {}
        for path, twin in twins.items():
            mini = _of(minis, twin)
            size = partial(split_size, mini, index=results / mini.name / "index")
            found[path] = measured(folder, twin, work_of(twin, mini, size, lambda split: 1))
    return found


def _of(experiments: Mapping[str, Experiment], job: Job) -> Experiment:
    """Return the experiment of a job; the report belongs to the main one."""
    return experiments[job.wildcards.get("name", next(iter(experiments)))]


def _watch(name: str, twins: Mapping[str, Job], runtime: Runtime) -> Callable[[str], None]:
    """Return what tells of each job of a miniature when it starts."""
    rules = {twin.rule for twin in twins.values()}
    number = numbers(1)

    def watch(line: str) -> None:
        found = HEAD.match(line)
        if found and found[1] in rules and runtime.progress != "none":
            told = f"{name}: job {next(number)} of {len(twins)}, {found[1]}"
            print(told, file=sys.stderr, flush=True)

    return watch


def _costs(
    experiments: Mapping[str, Experiment],
    jobs: Sequence[Job],
    results: Path,
    small: Mapping[str, Measured],
    large: Mapping[str, Measured],
) -> list[Cost]:
    """Return what the jobs of the whole experiment will take; untimed ones take no time."""
    found = []
    for job in jobs:
        experiment = _of(experiments, job)
        path = counterpart(job, experiment).benchmark
        if not path:
            found.append((job, 0.0, 0.0))
            continue
        pace = Pace.between(small[path], large[path])
        size = partial(split_size, experiment, index=results / experiment.name / "index")
        work = work_of(job, experiment, size, partial(shard_count, experiment, results))
        found.append((job, pace.seconds(work), pace.peak(work)))
    return found


def _disk(
    experiments: Mapping[str, Experiment], jobs: Sequence[Job], results: Path
) -> tuple[dict[str, float], float]:
    """Return the bytes that each rule writes in all, and those still to be written."""
    found, missing = dict.fromkeys((job.rule for job in jobs), 0.0), 0.0
    everything = planned_shares(experiments, [replace(job, outputs=()) for job in jobs], results)
    shares = planned_shares(experiments, jobs, results)
    for name, experiment in experiments.items():
        index = results / name / "index"
        sizes = {one.split: split_size(experiment, one.split, index) for one in everything[name]}
        channels = backbone_channels(experiment.settings["backbone"]["name"])
        for one in everything[name]:
            made = bytes_made(one.rule, experiment, one.model, sizes[one.split], channels)
            found[one.rule] += one.share * made
        missing += needed_bytes(experiment, shares[name], sizes, channels)
    return found, missing


def _table(costs: Sequence[Cost], disk: Mapping[str, float]) -> pd.DataFrame:
    """Return a row for each rule, in the order of the workflow."""
    timed = [cost for cost in costs if cost[0].benchmark]
    rows = []
    for rule in dict.fromkeys(job.rule for job, _, _ in timed):
        seconds = [each for job, each, _ in timed if job.rule == rule]
        memory = max(each for job, _, each in timed if job.rule == rule)
        rows.append(
            {
                "rule": rule,
                "jobs": len(seconds),
                "seconds": sum(seconds) / len(seconds),
                "hours": sum(seconds) / HOUR,
                "memory_gb": memory / GIGABYTE,
                "disk_gb": disk[rule] / GIGABYTE,
            }
        )
    return pd.DataFrame(rows)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rule": table.rule,
            "jobs": table.jobs,
            "a job": table.seconds.map(duration),
            "in all": (HOUR * table.hours).map(duration),
            "memory": table.memory_gb.map(_gigabytes),
            "disk": table.disk_gb.map(_gigabytes),
        }
    )


def _gigabytes(value: float) -> str:
    return f"{value:.1f} GB" if value >= 1 else f"{1000 * value:.0f} MB"


def _times(costs: Sequence[Cost], at_once: int) -> str:
    seconds = [each for _, each, _ in costs]
    wall = wall_time([job for job, _, _ in costs], seconds, at_once)
    return (
        f"Time: {duration(sum(seconds))} of jobs one after the other; "
        f"about {duration(wall)} with {at_once} at a time."
    )


if __name__ == "__main__":
    run_stage(run)
