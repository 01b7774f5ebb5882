"""A small part of a whole experiment, run by the workflow itself in a temporary folder."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from itertools import count as numbers

import pandas as pd

from brnf.backbones.network import backbone_channels
from brnf.config.experiment import RUNTIME_KEYS, Experiment, merged
from brnf.engine.runtime import Runtime
from brnf.planning.disk import written_bytes
from brnf.planning.jobs import HEAD, configuration, read_jobs, snakemake, workplace
from brnf.planning.pace import measured

__all__ = ["miniature", "run_miniature"]

FULL_BATCHES = 4
"""A training whose batches are full however few images there are takes that many times fewer steps.
"""
BORDER = 0.5
"""Score between background and classes: with one border every pixel has a label."""


def miniature(experiment: Experiment, count: int) -> Experiment:
    """Return an experiment with few images and steps, and all else as it is.

    Arguments:
        experiment: with any number of seeds and shards; the miniature has one of each.
        count: most images of each split, and most steps of each training.
    """
    settings = experiment.settings

    def fewer(own: int | None, most: int = count) -> int:
        return most if own is None else min(own, most)

    def network(model: str) -> dict[str, int]:  # all but the first step use the online flow
        return {"steps": fewer(experiment.network(model)["steps"]), "online_warmup": 1}

    full = max(1, count // FULL_BATCHES)
    flow = {"steps": fewer(settings["flow"]["steps"]), "tau": {"low": BORDER, "high": BORDER}}
    changes = {
        "random_seeds": settings["random_seeds"][:1],
        "shards": 1,
        "protocol": "auto",
        "dataset": {"limit": fewer(settings["dataset"]["limit"])},
        "scenes": {key: fewer(settings["scenes"][key]) for key in ("train", "val")},
        "base": {"steps": fewer(settings["base"]["steps"])},
        "flow": flow,
        "brnf": network("brnf"),
        "variants": {name: network(name) for name in settings["variants"]},
        "random_walk": {"steps": fewer(settings["random_walk"]["steps"], full)},
        "segmentation": {"iterations": fewer(settings["segmentation"]["iterations"], full)},
        "figures": {"images": []},  # those that are named may not be among the few
    }
    return Experiment(merged(settings, changes))


def run_miniature(
    experiments: Mapping[str, Experiment], count: int, devices: int, runtime: Runtime
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run a miniature and return what its jobs took, and what they wrote.

    See :func:`brnf.planning.pace.measured` and :func:`brnf.planning.disk.written_bytes`.

    Arguments:
        experiments: the whole ones by name, the main one first.
        count: images and steps.
        devices: processes of a training.
        runtime: settings of the machine.
    """
    minis = {name: miniature(experiment, count) for name, experiment in experiments.items()}
    machine = {key: value for key, value in asdict(runtime).items() if key in RUNTIME_KEYS}
    machine |= {"progress": "lines", "devices": devices}  # loops tell their pace in the logs
    number = numbers(1)

    def watch(line: str) -> None:
        if (found := HEAD.match(line)) and runtime.progress != "none":
            told = f"plan: {count} images: job {next(number)}, {found[1]}"
            print(told, file=sys.stderr, flush=True)

    with workplace(experiments) as folder:
        words = ("--quiet", "host")
        output = snakemake(folder, {**configuration(minis), **machine}, *words, watch=watch)
        jobs = read_jobs(output)
        products = written_bytes(minis, jobs, folder, cache(backbone_channels))
        return measured(folder, minis, jobs), products
