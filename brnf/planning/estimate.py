"""How long planned jobs will take, from the times of earlier jobs (benchmark files)."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from brnf.evaluate.making import duration

__all__ = ["estimate", "seconds_by_rule"]

SAME_WORK = {"fit_density": "train_flow"}
"""A rule that runs the stage of another -> that other, whose times count until it has some of its
own.
"""


def seconds_by_rule(results: Path, name: str) -> dict[str, float]:
    """Return the mean wall time of a job of each rule that has run, or that ``snakemake plan`` has
    measured.

    Arguments:
        results: folder of all results.
        name: experiment whose own times are preferred to what was planned for it, and that to the
            times of others.
    """
    try:
        plan = pd.read_csv(results / name / "tables" / "plan.csv").dropna(subset=["seconds"])
        planned = dict(zip(plan["rule"].map(str), plan["seconds"].map(float), strict=True))
    except (OSError, ValueError, KeyError):
        planned = {}
    return _mean_seconds(results) | planned | _mean_seconds(results / name)


def _mean_seconds(folder: Path) -> dict[str, float]:
    """Return the mean wall time of a job of each rule, from all benchmark files below a folder."""
    times: dict[str, list[float]] = {}
    for path in folder.rglob("benchmarks/**/*.tsv"):
        parts = path.parts
        rule = parts[len(parts) - parts[::-1].index("benchmarks")].removesuffix(".tsv")
        try:
            time = float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        except (OSError, ValueError, KeyError, IndexError):
            continue  # is being written, or was cut: it only makes the estimate a little worse
        times.setdefault(rule, []).append(time)
    return {rule: sum(values) / len(values) for rule, values in times.items()}


def estimate(
    jobs: Mapping[str, int], seconds: Mapping[str, float], cores: int, whole: bool = True
) -> str:
    """Say in a few lines how long jobs will take.

    Arguments:
        jobs: rule -> how many jobs, of the rules that have benchmark files.
        seconds: rule -> wall time of a job.
        cores: jobs that run at once.
        whole: whether these are all jobs; else those that follow the image index are still unknown.
    """
    each = {rule: seconds.get(rule, seconds.get(SAME_WORK.get(rule, ""))) for rule in jobs}
    known = {rule: jobs[rule] * time for rule, time in each.items() if time is not None}
    lines = []
    if known:
        largest = sorted(known, key=lambda rule: (-known[rule], rule))[:3]
        parts = ", ".join(f"{jobs[rule]} {rule} {duration(known[rule])}" for rule in largest)
        count, time = sum(jobs[rule] for rule in known), sum(known.values()) / max(cores, 1)
        lines.append(
            f"estimate: {count} jobs take about {duration(time)} on {cores} cores ({parts})"
        )
    if jobs and not known:
        lines.append(
            f"estimate: {sum(jobs.values())} jobs, whose time is not known: none of their kind has "
            "run here yet; the target `plan` measures what `all` needs"
        )
    elif unknown := [f"{jobs[rule]} {rule}" for rule in jobs if rule not in known]:
        lines.append(
            f"estimate: not known for {', '.join(unknown)}: none of these has run here yet; "
            "the target `plan` measures what `all` needs"
        )
    if not whole:
        lines.append(
            "estimate: what follows the image index is planned, and counted, when that is there"
        )
    return "\n".join(lines)
