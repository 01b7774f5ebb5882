"""What a job costs beside its work on a real SLURM, at as many shards as ``SHARDS`` says."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from job_costs import PROFILES, RULE, Costs, ShardedRun, table
from slurm_runs import ROOT, Slurm

pytestmark = pytest.mark.timeout(7200)
SHARDS = [int(number) for number in os.environ.get("SHARDS", "4").split()]
HEAVIEST = "brnf.stages.compute_cams"
"""Of the stages with one job a shard, that which imports most."""
IMPORTS_OF_TORCH = 10
"""That a job may take beside its work. On the processor of docs/cluster.md these are 18 s, 3 % of a
job of 10 minutes; on another, and beside other work, both sides grow.
"""


def import_seconds(module: str) -> float:
    """Return the wall time of a Python that imports a module, a median of three."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        call = [sys.executable, "-c", f"import {module}"]
        subprocess.run(call, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        found.append(time.perf_counter() - began)
    return median(found)


@pytest.fixture(scope="module", params=SHARDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardedRun:
    return ShardedRun(tmp_path_factory.mktemp("shards"), request.param)


@pytest.fixture(scope="module")
def rows() -> Iterator[list[tuple[str, Costs]]]:
    """What was measured, printed in the end."""
    found: list[tuple[str, Costs]] = []
    yield found
    print(f"\n{table(found)}")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_job_costs_at_most_three_percent_of_ten_minutes(
    profile: str, run: ShardedRun, slurm: Slurm, rows: list[tuple[str, Costs]]
) -> None:
    before = import_seconds("torch")
    costs = run.measure(slurm, profile)
    heaviest, torch = import_seconds(HEAVIEST), max(before, import_seconds("torch"))
    rows.append((profile, costs))
    spent = costs.next + costs.beside + heaviest
    print(
        f"\n{profile}: {spent:.1f} s beside the work; torch {torch:.1f} s, stage {heaviest:.1f} s"
    )
    assert costs.jobs == costs.shards
    assert spent <= IMPORTS_OF_TORCH * torch


def test_an_array_writes_the_same_bytes_by_one_submission(
    run: ShardedRun, slurm: Slurm, rows: list[tuple[str, Costs]]
) -> None:
    alone = run.on_this_machine()
    words = ("--slurm-array-jobs", RULE, "--jobs", str(len(run.shards)))
    rows.append(("slurm, array", run.measure(slurm, "slurm", *words)))
    assert run.masks() == alone
    numbers = slurm.call("squeue", "--noheader", "--states=all", "--array", "--format=%i %Z")
    tasks = [line for line in numbers.splitlines() if Path(line.split()[1]) == run.folder]
    assert sum("_" in line for line in tasks) == len(run.shards)


@pytest.mark.parametrize("profile", PROFILES)
def test_groups_of_shards_are_refused(profile: str, run: ShardedRun, slurm: Slurm) -> None:
    run.remove_masks()
    words = ("--groups", f"{RULE}=some", "--group-components", "some=2")
    said = run.refused(profile, *words)
    assert said.count("error:") == 1 and "--groups: " in said and "Traceback" not in said
    assert not run.masks()
