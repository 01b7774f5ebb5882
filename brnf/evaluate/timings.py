"""Gather Snakemake's benchmark files: ``python -m brnf.evaluate.timings results/voc-animals``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from brnf.engine.memory import peak_told
from brnf.errors import UserError

__all__ = ["main", "stage_timings"]

COLUMNS = ["stage", "jobs", "seconds", "longest", "cpu_seconds", "peak_mb"]


def stage_timings(folder: Path) -> pd.DataFrame:
    """Sum wall and CPU time over all jobs of each stage of an experiment.

    Arguments:
        folder: ``results/<name>``.

    Returns:
        One row a stage, longest first: jobs, seconds (wall, summed over jobs), longest (wall, of
            one job), cpu_seconds, and
        peak_mb (largest resident memory of a job in MiB: what its process says at the end of its
        log, or all its processes in Snakemake's samples, which are half a second and later half a
        minute apart, whichever is more).

    Raises:
        UserError: there is no benchmark file, or one is damaged.
    """
    rows = []
    for path in sorted(folder.rglob("benchmarks/**/*.tsv")):
        parts = path.relative_to(folder).parts
        stage = parts[parts.index("benchmarks") + 1].removesuffix(".tsv")
        try:
            table = pd.read_csv(path, sep="\t", na_values="-")
            told = peak_told(_log_beside(folder, parts))
            rows += [
                (stage, *values, np.fmax(sampled, told))
                for *values, sampled in table[["s", "cpu_time", "max_rss"]].to_numpy(float)
            ]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: damaged benchmark file ({error}); remove it") from error
    if not rows:
        raise UserError(f"{folder}: no benchmark files; run the workflow on this experiment first")
    jobs = pd.DataFrame(rows, columns=["stage", "s", "cpu", "rss"])
    found = jobs.groupby("stage").agg(
        jobs=("s", "size"),
        seconds=("s", "sum"),
        longest=("s", "max"),
        cpu_seconds=("cpu", "sum"),
        peak_mb=("rss", "max"),
    )
    return found.sort_values("seconds", ascending=False).reset_index()[COLUMNS]


def _log_beside(folder: Path, parts: Sequence[str]) -> Path:
    """Return the log of the job whose benchmark file has these parts below its experiment."""
    at = parts.index("benchmarks")
    return folder.joinpath(*parts[:at], "logs", *parts[at + 1 :]).with_suffix(".log")


def main(words: Sequence[str]) -> int:
    """Print an experiment's timings as Markdown; return the exit status."""
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print(f"usage: python -m brnf.evaluate.timings results/<name>\n\n{__doc__}")
        return 0 if words and words[0] in ("-h", "--help") else 2
    try:
        table = stage_timings(Path(words[0]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * (len(COLUMNS) - 1))
    for row in table.itertuples(index=False):
        print(
            "| "
            + " | ".join(
                str(value) if isinstance(value, str | int) else f"{value:.0f}" for value in row
            )
            + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
