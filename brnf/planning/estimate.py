"""How long planned jobs will take, from the times of earlier jobs (benchmark files)."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from brnf.planning.work import FOLDERS

__all__ = ["estimate", "mean_seconds", "seconds_by_rule"]

SAME_WORK = {"fit_density": "train_flow"}
"""A rule that runs the stage of another -> that other, whose times count until it has some of its
own.
"""
SECONDS_OF_A_LIGHT_JOB = 4.0
"""Of rules that only gather and draw, and have no benchmark file."""
PROBED = frozenset({"train_base", "train_brnf", "train_segmentation", *FOLDERS})
"""Rules that ``snakemake plan`` measures."""
LIGHT = frozenset(
    {
        "compare_models",
        "compare_points",
        "draw",
        "draw_density",
        "draw_scaling",
        "draw_sensitivity",
        "report",
        "tabulate",
        "tabulate_comparison",
        "tabulate_sweeps",
        "write_config",
    }
)


def seconds_by_rule(results: Path, name: str) -> dict[str, float]:
    """Return the mean wall time of a job of each rule that has run, or that ``snakemake plan`` has
    measured.

    Arguments:
        results: folder of all results.
        name: experiment whose own times are preferred to what was planned for it, and that to the
            times of others.
    """
    return (
        mean_seconds(results)
        | _planned_seconds(results / name / "tables" / "plan.csv")
        | mean_seconds(results / name)
    )


def mean_seconds(folder: Path) -> dict[str, float]:
    """Return the mean wall time of a job of each rule that has run, from all benchmark files below
    a folder.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    for path in folder.rglob("benchmarks/**/*.tsv"):
        parts = path.parts
        rule = parts[len(parts) - parts[::-1].index("benchmarks")].removesuffix(".tsv")
        try:
            time = float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        except (OSError, ValueError, KeyError, IndexError):
            # a file that is being written, or was cut: it only makes the estimate a little worse
            continue
        times[rule].append(time)
    return {rule: sum(values) / len(values) for rule, values in times.items()}


def _planned_seconds(plan: Path) -> dict[str, float]:
    """Return the seconds of a job of each rule in a plan; none when there is no plan."""
    try:
        rows = pd.read_csv(plan).dropna(subset=["hours"]).groupby("stage")[["hours", "jobs"]].sum()
    except (OSError, ValueError, KeyError):
        return {}
    return {
        str(rule): float(3600 * hours / jobs) for rule, hours, jobs in rows.itertuples() if jobs > 0
    }


def estimate(jobs: Mapping[str, int], seconds: Mapping[str, float], cores: int) -> str:
    """Say in a few lines how long jobs will take.

    Arguments:
        jobs: rule -> how many jobs; rules without output files are left out by the caller or weigh
            nothing.
        seconds: rule -> wall time of a job.
        cores: jobs that run at once.
    """
    known: dict[str, float] = {}
    unknown: dict[str, int] = {}
    for rule, count in jobs.items():
        each = (
            SECONDS_OF_A_LIGHT_JOB
            if rule in LIGHT
            else seconds.get(rule, seconds.get(SAME_WORK.get(rule, ""), None))
        )
        if each is None:
            unknown[rule] = count
        else:
            known[rule] = count * each
    lines = []
    if known:
        total = sum(known.values())
        largest = sorted(known, key=lambda rule: (-known[rule], rule))[:3]
        parts = ", ".join(f"{jobs[rule]} {rule} {_duration(known[rule])}" for rule in largest)
        count = sum(jobs[rule] for rule in known)
        lines.append(
            f"estimate: {count} jobs take about {_duration(total / max(cores, 1))} on {cores} "
            f"cores ({parts})"
        )
    if unknown:
        parts = ", ".join(f"{count} {rule}" for rule, count in unknown.items())
        hint = "" if PROBED.isdisjoint(unknown) else "; the target `plan` probes what `all` needs"
        lines.append(f"estimate: not known for {parts}: none of these has run here yet{hint}")
    if "index_images" in jobs:
        lines.append(
            "estimate: what follows the image index is planned, and counted, when that is there"
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
