"""A small part of a whole experiment, run by the workflow itself in a temporary folder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brnf.config.experiment import RUNTIME_KEYS, Experiment, merged
from brnf.engine.runtime import Runtime
from brnf.planning.jobs import Job

__all__ = ["counterpart", "largest_batch", "miniature", "runtime_keys"]

FULL_BATCHES = 4
"""A training whose batches are full however few images there are takes that many times fewer steps.
"""
LEARNS_FROM = 1
"""Steps of the online flow before it is used: in a miniature all but the first step use it."""

BORDER = 0.89
"""Score between background and classes. The scores of a network that has hardly learned are all
high, and without rows of both kinds there is no flow: after 4 steps on 4 images those of SFC began
at 0.8, and those of SIPE ended at 0.95.
"""


def miniature(experiment: Experiment, count: int) -> Experiment:
    """Return an experiment with few images and steps, and all else as it is.

    Arguments:
        experiment: with any number of seeds and shards; the miniature has one of each.
        count: most images of each split, and most steps of each training.
    """
    settings = experiment.settings
    own_limit = settings["dataset"]["limit"]
    full = max(1, count // FULL_BATCHES)
    brnf = {"steps": _fewer(settings["brnf"]["steps"], count), "online_warmup": LEARNS_FROM}
    return Experiment(
        merged(
            settings,
            {
                "seeds": settings["seeds"][:1],
                "shards": 1,
                "protocol": "auto",
                "dataset": {"limit": _fewer(own_limit, count)},
                "scenes": {key: min(settings["scenes"][key], count) for key in ("train", "val")},
                "base": {"steps": _fewer(settings["base"]["steps"], count)},
                "flow": {
                    "steps": min(settings["flow"]["steps"], count),
                    "tau": {"low": BORDER, "high": BORDER},
                },
                "brnf": brnf,
                "variants": {
                    name: brnf | {"steps": _fewer(experiment.network(name)["steps"], count)}
                    for name in settings["variants"]
                },
                "random_walk": {"steps": _fewer(settings["random_walk"]["steps"], full)},
                "segmentation": {"iterations": min(settings["segmentation"]["iterations"], full)},
                "figures": {"images": []},  # those that are named may not be among the few
            },
        )
    )


def _fewer(own: int | None, count: int) -> int:
    return count if own is None else min(own, count)


def largest_batch(experiment: Experiment) -> int:
    """Return the most images of a step of the trainings that an experiment has."""
    settings = experiment.settings
    sections = [experiment.network(model) for model in ("base", *settings["models"])]
    sections.append(settings["segmentation"])
    if settings["pseudo_labels"]["refine"] == "random_walk":
        sections.append(settings["random_walk"])
    found: int = max(section["batch_size"] for section in sections)
    return found


def counterpart(job: Job, experiment: Experiment) -> Job:
    """Return the job of the miniature that does what a job of the whole experiment does.

    Arguments:
        job: of the whole experiment.
        experiment: the whole one.
    """
    wildcards = dict(job.wildcards)
    log, benchmark = Path(job.log), Path(job.benchmark)
    if "seed" in wildcards:
        own, wildcards["seed"] = wildcards["seed"], str(experiment.settings["seeds"][0])
        other = {f"seed{own}": f"seed{wildcards['seed']}"}
        log, benchmark = (
            Path(*(other.get(part, part) for part in path.parts)) for path in (log, benchmark)
        )
    if "shard" in wildcards:
        wildcards["shard"] = "0"
        log, benchmark = (
            path.with_name(f"{wildcards['split']}-0{path.suffix}") for path in (log, benchmark)
        )
    return Job(job.rule, wildcards, log=str(log), benchmark=str(benchmark) if job.benchmark else "")


def runtime_keys(runtime: Runtime, devices: int) -> Mapping[str, Any]:
    """Return the keys of the machine for a miniature, whose loops tell their pace in the logs."""
    keys = {key: value for key, value in asdict(runtime).items() if key in RUNTIME_KEYS}
    return {**keys, "progress": "lines", "devices": devices}
