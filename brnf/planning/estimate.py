"""How long planned jobs will take, from the times of earlier jobs (benchmark files)."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

__all__ = ["duration", "estimate", "mean_seconds", "seconds_by_rule"]

MINUTE, HOUR, DAY = 60, 3600, 86400
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
        table = pd.read_csv(plan).dropna(subset=["rule", "seconds"])
        return {
            str(rule): float(seconds) for rule, seconds in table[["rule", "seconds"]].to_numpy()
        }
    except (OSError, ValueError, KeyError):
        return {}


def estimate(jobs: Mapping[str, int], seconds: Mapping[str, float], cores: int) -> str:
    """Say in a few lines how long jobs will take.

    Arguments:
        jobs: rule -> how many jobs, of the rules that have benchmark files.
        seconds: rule -> wall time of a job.
        cores: jobs that run at once.
    """
    known: dict[str, float] = {}
    unknown: dict[str, int] = {}
    for rule, count in jobs.items():
        each = seconds.get(rule, seconds.get(SAME_WORK.get(rule, "")))
        if each is None:
            unknown[rule] = count
        else:
            known[rule] = count * each
    lines = []
    if known:
        total = sum(known.values())
        largest = sorted(known, key=lambda rule: (-known[rule], rule))[:3]
        parts = ", ".join(f"{jobs[rule]} {rule} {duration(known[rule])}" for rule in largest)
        count = sum(jobs[rule] for rule in known)
        lines.append(
            f"estimate: {count} jobs take about {duration(total / max(cores, 1))} on {cores} "
            f"cores ({parts})"
        )
    if unknown:
        parts = ", ".join(f"{count} {rule}" for rule, count in unknown.items())
        lines.append(
            f"estimate: not known for {parts}: none of these has run here yet; "
            "the target `plan` measures what `all` needs"
        )
    if "index_images" in jobs:
        lines.append(
            "estimate: what follows the image index is planned, and counted, when that is there"
        )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time as one says it.

    >>> [duration(seconds) for seconds in (4.2, 1300, 12000, 1036800)]
    ['4 s', '22 min', '3 h 20 min', '12 days']
    """
    if seconds < 1.5 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        hours, minutes = divmod(round(seconds / MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days = seconds / DAY
    return f"{days:.1f} days" if days < 10 else f"{days:.0f} days"
