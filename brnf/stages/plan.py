"""Stage: say what an experiment will take, from two miniatures of it that the workflow runs."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import yaml

from brnf.backbones.network import backbone_channels
from brnf.config.experiment import Experiment
from brnf.config.generate import load_schema
from brnf.config.schema import complete, reread
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.making import duration
from brnf.evaluate.tables import markdown, write_table
from brnf.planning.disk import (
    GIGABYTE,
    gigabytes,
    needed_bytes,
    product_table,
    stored_shares,
)
from brnf.planning.jobs import whole_jobs
from brnf.planning.miniature import run_miniature
from brnf.planning.pace import extrapolated, wall_time, work_table
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]

HOUR = 3600
FEW, TIMES = 4, 3
"""Images and steps of the smaller miniature on a CPU, where a step costs as much as its batch, and
how many times as many the larger one has there.
"""


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


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Say what an experiment will take: hours, memory and disk."""
    experiments = _experiments(inputs.configs, options.keep_features)
    results = inputs.configs[0].parent.parent
    with locked(outputs.csv):
        jobs = whole_jobs(experiments, results)
        few, more = options.images or _counts(experiments, options, runtime)
        measure = partial(run_miniature, experiments, devices=options.devices, runtime=runtime)
        work = work_table(experiments, jobs, results)
        (small, small_products), (large, large_products) = measure(few), measure(more)
        costs = extrapolated(small, large, work)
        products = product_table(experiments, jobs, results, cache(backbone_channels))
        stored = stored_shares(small_products, large_products)
        products["bytes"] *= products.kind.map(stored).fillna(1.0)
        table = _table(costs, products)
        seconds = costs.seconds.tolist()
        wall = wall_time([job for job in jobs if job.benchmark], seconds, options.at_once)
        free = shutil.disk_usage(results).free
        page = "\n".join(
            [
                markdown(_readable(table)),
                f"Time: {duration(sum(seconds))} of jobs one after the other; "
                f"about {duration(wall)} with {options.at_once} at a time.",
                f"Measured with {few} and {more} images of each split and steps of each training.",
                f"Disk: {gigabytes(needed_bytes(products))} still to make, "
                f"{gigabytes(free)} free; "
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
        batch = max(
            int(one.network(model)["batch_size"])
            for one in experiments.values()
            for model in ("base", *one.settings["models"])
        )
        return batch, 2 * batch
    few = max(FEW, options.devices)  # each process of a training needs an image
    return few, TIMES * few


def _table(costs: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each rule, in the order of the workflow."""
    table = costs.groupby("rule", sort=False).agg(
        jobs=("seconds", "size"),
        seconds=("seconds", "mean"),
        hours=("seconds", "sum"),
        memory_gb=("memory", "max"),
    )
    disk = products.groupby("rule").bytes.sum().reindex(table.index, fill_value=0.0)
    table = table.assign(
        hours=table.hours / HOUR, memory_gb=table.memory_gb / GIGABYTE, disk_gb=disk / GIGABYTE
    )
    return table.reset_index()


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    columns = {
        "a job": table.seconds.map(duration),
        "in all": (HOUR * table.hours).map(duration),
        "memory": (GIGABYTE * table.memory_gb).map(gigabytes),
        "disk": (GIGABYTE * table.disk_gb).map(gigabytes),
    }
    return table[["rule", "jobs"]].assign(**columns)


if __name__ == "__main__":
    run_stage(run)
