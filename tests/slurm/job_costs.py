"""What a job costs beside its work, read from the logs of a real SLURM, Snakemake and the stage."""

import csv
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

from slurm_runs import ROOT, RUN_SECONDS, Run, Slurm

IMAGES = 4
"""Of a shard, on average."""
SHARD_SECONDS = 10
"""Of a call, for a shard; a hang ends then."""
RULE = "collect_masks"
PROFILES = ("slurm", "slurm-generic")
EVENT = re.compile(
    r"\[(\S+)\] .*?(_slurm_rpc_submit|Allocate|Started|_job_complete)\S*:? "
    r"JobId=(?:\d+_\d+\()?(\d+)\)? (?!WEXIT)"
)


@dataclass(frozen=True)
class Costs:
    """Seconds; of jobs and shards the medians."""

    shards: int
    """That hold images."""
    jobs: int
    """Of SLURM."""
    plan: float
    """From the call to the first submission: Snakemake's start, parse and graph."""
    submit: float
    """Between two submissions."""
    next: float
    """From the end of a job to the start of another that waits for it."""
    job: float
    """From the start of a job to its end."""
    stage: float
    """In a stage, which does next to no work."""
    beside: float
    """In a job, but not in the stage: mostly Snakemake, which starts and parses again."""
    notice: float
    """From the end of a job until Snakemake says so."""
    controller: float
    """Processor time of the whole call and of what it asks SLURM by."""


def table(rows: Sequence[tuple[str, Costs]]) -> str:
    """Return costs as a table in Markdown, a line for each way to run."""
    names = ["how", *(field.name for field in fields(Costs))]
    cells = [
        [how, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in one)]
        for how, one in ((how, astuple(costs)) for how, costs in rows)
    ]
    lines = [names, ["---", *("---:" for _ in names[1:])], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class ShardedRun:
    """Rendered scenes in so many shards, whose true masks are written: a rule with little work."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder = folder
        self.results = folder / "results" / "tiny"
        self.words = [
            *("--configfile", str(ROOT / "config" / "tiny.yaml"), "--config", "companions=null"),
            f"shards={shards}",
            f"scenes={{train: {IMAGES * max(shards, 4)}, val: 4, size: 48}}",
            "--",
        ]
        Run(folder, "default", ["--cores", "2", *self.words, "results/tiny/index"])()
        self.shards = sorted((self.results / "index" / "shards" / "train").glob("*.csv"))

    def masks(self) -> dict[str, bytes]:
        """Return the content of all masks by file."""
        found = self.results / "true_masks" / "train"
        return {str(path.relative_to(found)): path.read_bytes() for path in found.rglob("*.png")}

    def remove_masks(self) -> None:
        """Remove all masks."""
        shutil.rmtree(self.results / "true_masks", ignore_errors=True)

    def on_this_machine(self) -> dict[str, bytes]:
        """Write all masks anew without SLURM and return their content."""
        self.remove_masks()
        self._run("default", "--cores", "2")()
        return self.masks()

    def refused(self, profile: str, *words: str) -> str:
        """Return what is said by a call that fails."""
        return self._run(profile, *words)(fails=True)

    def _run(self, profile: str, *words: str) -> Run:
        """Return the call that writes all masks by a profile, on two CPUs a job."""
        asked = [f"results/tiny/true_masks/train/{path.stem}" for path in self.shards]
        two = ("--set-resources", f"{RULE}:cpus_per_task=2")
        return Run(self.folder, profile, [*two, *words, *self.words, *asked])

    def measure(self, slurm: Slurm, profile: str, *words: str) -> Costs:
        """Write all masks anew by a profile and return what that costs."""
        self.remove_masks()
        run = self._run(profile, *words)
        log = slurm.folder / "slurmctld.log"
        before, began = log.stat().st_size, time.time()
        noticed, seconds = _call(run, max(RUN_SECONDS, SHARD_SECONDS * len(self.shards)))
        submitted, started, ended = _events(log.read_text(errors="replace")[before:])
        starts, ends = sorted(started.values()), sorted(ended.values())
        lengths = [ended[number] - started[number] for number in started]
        stages = [_stage_seconds(self.results, path.stem) for path in self.shards]
        waited = [
            start - max(end for end in ends if end <= start)
            for start in starts
            if start > ends[0] and start > max(submitted.values())
        ]
        submissions = sorted(submitted.values())
        return Costs(
            shards=len(self.shards),
            jobs=len(lengths),
            plan=submissions[0] - began,
            submit=median([later - one for one, later in pairwise(submissions)] or [0.0]),
            next=median(waited or [0.0]),
            job=median(lengths),
            stage=median(stages),
            beside=median(lengths) - median(stages),
            notice=median(said - end for said, end in zip(noticed, ends, strict=False)),
            controller=seconds,
        )


def _call(run: Run, limit: int) -> tuple[list[float], float]:
    """Run Snakemake; return when it said that a job is done, and its processor time with that of
    its children, seconds.
    """
    noticed: list[float] = []
    with subprocess.Popen(
        run.command(seconds=limit),
        cwd=run.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as called:
        assert called.stdout is not None
        printed = []
        for line in called.stdout:
            printed.append(line)
            if f" done   {RULE}" in line:
                noticed.append(time.time())
        _, status, used = os.wait4(called.pid, 0)
        called.returncode = os.waitstatus_to_exitcode(status)
    assert called.returncode == 0, "".join(printed)
    return noticed, used.ru_utime + used.ru_stime


def _events(log: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return when jobs were submitted, started and ended, by their numbers."""
    submitted: dict[str, float] = {}
    started: dict[str, float] = {}
    ended: dict[str, float] = {}
    by_word = {"_slurm_rpc_submit": submitted, "_job_complete": ended}
    for date, word, number in EVENT.findall(log):
        by_word.get(word, started)[number] = datetime.fromisoformat(date).timestamp()
    assert started.keys() == ended.keys(), log
    return submitted, started, ended


def _stage_seconds(results: Path, shard: str) -> float:
    """Return the wall time of a stage, as Snakemake has noted it."""
    with (results / "benchmarks" / RULE / f"train-{shard}.tsv").open() as file:
        return float(next(csv.DictReader(file, delimiter="\t"))["s"])
