"""Stage: say what an experiment will take: disk for each product, memory, and hours from a short
probe on this machine.
"""

import multiprocessing
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import nn

from brnf.backbones.network import backbone_channels
from brnf.config.experiment import Experiment
from brnf.config.generate import load_schema
from brnf.config.schema import complete, reread
from brnf.engine.runtime import Progress, Runtime
from brnf.engine.schedule import total_steps
from brnf.errors import UserError
from brnf.evaluate.tables import markdown, write_table
from brnf.planning.configured import cam_network, job_options, new_flow
from brnf.planning.disk import GIGABYTE, missing_work, needed_bytes, shard_count
from brnf.planning.estimate import mean_seconds
from brnf.planning.probes import Measured, probe
from brnf.planning.sizes import SplitSize, bytes_made, split_size
from brnf.planning.trials import TRIALS
from brnf.planning.work import Work, planned_work
from brnf.segment.deeplab import build_deeplab
from brnf.stages import train_segmentation
from brnf.stages._cli import run_stage
from brnf.store.files import locked

__all__ = ["Inputs", "Options", "Outputs", "run"]

HOUR = 3600


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    config: Path
    """``config.yaml`` of the experiment, beside its results; the image index there counts when
    there is one.
    """


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    csv: Path
    """A row for each model and stage: jobs, images or steps, hours in all, memory of a job, disk of
    its products.
    """


@dataclass(frozen=True)
class Options:
    """How it is planned."""

    keep_features: bool = True
    """Whether pixel stores stay."""
    seconds: float = 60.0
    """About as long as all probes may take."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Say what an experiment will take: disk, memory and hours."""
    experiment = _experiment(inputs.config, options.keep_features)
    results = inputs.config.absolute().parent.parent
    work = planned_work(experiment)
    index = results / experiment.name / "index"
    sizes = {split: split_size(experiment, split, index) for split in {one.split for one in work}}
    train = sizes[experiment.settings["dataset"]["train"]]
    channels = backbone_channels(experiment.settings["backbone"]["name"])
    shares, before = missing_work(experiment, results), mean_seconds(results / experiment.name)
    seeds = len(experiment.settings["seeds"])
    with locked(outputs.csv):
        measured = _measure(work, experiment, train, runtime, options.seconds)
        rows = []
        # Evaluations of several products are one line.
        for one, times in Counter(replace(one, product="") for one in work).items():
            jobs = (
                seeds * times * (shard_count(experiment, results, one.split) if one.sharded else 1)
            )
            amount, hours, memory = _time(one, experiment, sizes[one.split], measured.get(one.rule))
            disk = bytes_made(
                one.rule, experiment, one.model, sizes[one.split], channels
            ) + _network_bytes(one, experiment, train)
            missing = [
                share.share
                for share in shares
                if (share.rule, share.model, share.split) == (one.rule, one.model, one.split)
            ]
            rows.append(
                {
                    "model": one.model,
                    "stage": one.rule,
                    "split": one.split,
                    "jobs": jobs,
                    "amount": amount,
                }
                | {
                    "hours": seeds * times * hours,
                    "hours_before": jobs * before.get(one.rule, float("nan")) / HOUR,
                    "memory_gb": memory,
                }
                | {
                    "disk_gb": seeds * disk / GIGABYTE,
                    "disk_missing_gb": sum(missing) * disk / GIGABYTE,
                }
            )
        table = pd.DataFrame(rows)
        write_table(table, outputs.csv, digits=7)
    if runtime.progress != "none":
        needed = needed_bytes(experiment, shares, sizes, channels)
        print(_page(table, train, measured, needed, float(shutil.disk_usage(results).free)), end="")


def _experiment(config: Path, keep_features: bool) -> Experiment:
    try:
        content = yaml.safe_load(config.read_text())
        schema = load_schema()
        return Experiment(
            complete(reread({**content, "keep_features": keep_features}, schema), schema)
        )
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise UserError(
            f"{config}: missing or damaged record of the configuration; remove it and run "
            "snakemake plan again"
        ) from error


def _measure(
    work: list[Work], experiment: Experiment, size: SplitSize, runtime: Runtime, seconds: float
) -> dict[str, Measured]:
    """Probe every rule once, each in a process of its own, whose memory is nobody else's."""
    rules = list(dict.fromkeys(one.rule for one in work if one.rule in TRIALS))
    if experiment.settings["flow"]["density"] != "flow":
        rules = [
            rule for rule in rules if rule not in ("train_flow", "denoise_seeds")
        ]  # other densities do not learn in steps
    # Forked from a server that has imported torch once: a new interpreter for each probe would cost
    # more than most probes.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["brnf.planning.probes"])
    found = {}
    for rule in Progress(rules, "probe stages", runtime, unit="stage"):
        try:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                found[rule] = pool.submit(
                    probe, rule, experiment, size, runtime, seconds / len(rules)
                ).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"plan: the probe of {rule} died; free memory, or lower its crop, scales or rows"
            ) from error
    return found


def _time(
    work: Work, experiment: Experiment, size: SplitSize, measured: Measured | None
) -> tuple[str, float, float]:
    """Return how much one seed has to do, its hours, and the gigabytes of memory; nan where nothing
    was measured.
    """
    steps = _steps(work, experiment, size.images)
    amount = f"{size.images} images" if steps is None else f"{steps} steps"
    if measured is None:
        return amount, float("nan"), float("nan")
    seconds = (
        measured.seconds * (size.images if steps is None else steps)
        + 2 * size.images * measured.look
    )
    return amount, seconds / HOUR, measured.memory / GIGABYTE


def _steps(work: Work, experiment: Experiment, images: int) -> int | None:
    """Return the steps of a training, None for what goes through images."""
    settings = experiment.settings
    if work.rule in ("train_base", "train_brnf"):
        training = experiment.network(work.model)
        return total_steps(images, training["batch_size"], training["epochs"], training["steps"])[1]
    return {
        "train_flow": settings["flow"]["steps"],
        "train_segmentation": settings["segmentation"]["iterations"],
    }.get(work.rule)


def _network_bytes(work: Work, experiment: Experiment, size: SplitSize) -> float:
    """Return the bytes of what a training writes, 0 for other rules."""
    meta = torch.device("meta")
    if work.rule in ("train_base", "train_brnf"):
        network: nn.Module = cam_network(experiment, size.classes, meta)
    elif work.rule == "train_segmentation":
        with meta:
            network = build_deeplab(
                job_options(train_segmentation, experiment, work.model),
                size.classes + 1,
                load=False,
            )
    elif work.rule == "train_flow":
        network = new_flow(experiment, size, torch.device("cpu"))
    else:
        return 0.0
    return float(
        sum(value.numel() * value.element_size() for value in network.state_dict().values())
    )


def _page(
    table: pd.DataFrame, size: SplitSize, measured: dict[str, Measured], needed: float, free: float
) -> str:
    """Return the plan for reading."""
    share = min((one.share for one in measured.values()), default=1.0)
    device = next(iter(measured.values())).device if measured else "nothing"
    source = (
        "the image index"
        if size.known
        else "docs/method.md section 1, since there is no image index yet"
    )
    lines = [
        markdown(table),
        f"Images: {size.images} to train on, {size.classes} classes, of {size.width:.0f} x "
        f"{size.height:.0f} pixels; from {source}.",
        f"Time: {table.hours.sum():.3g} hours of jobs one after the other on {device} that does "
        "nothing else, without reading images;"
        f" every probe saw at least {100 * share:.2g} % of its step or image, and every BRNF "
        "network counts as the full one."
        " hours_before: from jobs of this experiment that have run.",
        f"Disk: {needed / GIGABYTE:.3g} GB still to make of {table.disk_gb.sum():.3g}, "
        f"{free / GIGABYTE:.3g} GB free."
        " The disk of a CAM training is its cache, which goes when it ends.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(run)
