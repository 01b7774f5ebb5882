"""The workflow on a real SLURM: it goes through, asks for what it needs, repeats what was
cancelled, and never runs a job twice at once.
"""

import shutil
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from slurm_runs import Record, Run, kill

# The first test waits for three whole runs; each call has a limit of its own, so that a hang ends
# there.
pytestmark = pytest.mark.timeout(3600)
ROOT = Path(__file__).parents[2]
TINY = ["--configfile", str(ROOT / "config" / "tiny.yaml"), "--config", "workers=1"]
SMALL = [*TINY, "models=[base]", "products=[cam_classifier]", "companions=null"]
SMALL_TABLE = ["--", "results/tiny/tables/results.csv"]
FAST = ["--seconds-between-status-checks", "1", "--latency-wait", "10"]
WITH_GPU = tuple(
    f"rule_{rule}_"
    for rule in ("train_base", "compute_cams", "store_pixels", "train_flow", "denoise_seeds")
)
WITH_GPU += tuple(
    f"rule_{rule}_" for rule in ("train_brnf", "train_segmentation", "predict_segmentation")
)
OTHERWISE = [
    "--set-resources",
    "train_base:slurm_partition=gpu",
    "train_base:runtime=33",
    "compute_cams:gpu=2",
]


def tables(run: Run) -> dict[str, bytes]:
    """Read a run's tables, without their stamps: these hold times and a folder's own listing."""
    return {
        path.name: path.read_bytes()
        for path in (run.folder / "results" / "tiny" / "tables").iterdir()
        if path.suffix != ".stamp"
    }


def of_rule(records: list[Record], rule: str) -> list[Record]:
    return [record for record in records if record.comment.startswith(f"rule_{rule}_")]


def kill_and_continue(run: Run, slurm: Any, controller: Any, waiting_for: str) -> str:
    """Kill a controller while jobs of a rule run and others wait for a GPU; let those that run end;
    continue.

    Returns what Snakemake and the tool say meanwhile.
    """

    def states(prefix: str = "") -> set[str]:
        return {
            record.state
            for record in slurm.records(run.folder)
            if record.comment.startswith(prefix)
        }

    def switch(state: str) -> None:
        for partition in ("cpu", "gpu"):
            slurm.call("scontrol", "update", f"PartitionName={partition}", f"State={state}")

    run.wait_until(lambda: {"RUNNING", "PENDING"} <= states(waiting_for), controller)
    switch("DOWN")  # what waits keeps waiting
    kill(controller)
    run.wait_until(lambda: not states() & {"RUNNING", "COMPLETING"})
    assert "PENDING" in states()
    said = run("--unlock") + run(fails=True) + run.tool("settle", *run.words)
    assert "PENDING" not in states()
    switch("UP")
    return said + run()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run to compare with, without SLURM."""
    run = Run(tmp_path_factory.mktemp("local"), "default", ["--cores", "2", *TINY])
    run()
    return run


@pytest.fixture(scope="module")
def generic(slurm: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole workflow by slurm-generic: one job is cancelled, later the controller is killed."""
    run = Run(tmp_path_factory.mktemp("generic"), "slurm-generic", [*FAST, *OTHERWISE, *TINY])
    controller = run.start(SBATCH_EXPORT="NONE")
    run.wait_until(
        lambda: any(
            record.state == "RUNNING" for record in of_rule(slurm.records(run.folder), "train_flow")
        ),
        controller,
    )
    slurm.call("scancel", of_rule(slurm.records(run.folder), "train_flow")[0].number)
    run.said = kill_and_continue(run, slurm, controller, "rule_compute_cams_wildcards_tiny_brnf")
    run.records = slurm.records(run.folder)
    return run


@pytest.fixture(scope="module")
def plugin(slurm: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The base's classifier maps by the executor plugin; the controller is killed."""
    words = [
        "--slurm-init-seconds-before-status-checks",
        "1",
        *FAST,
        *OTHERWISE,
        *SMALL,
        *SMALL_TABLE,
    ]
    run = Run(tmp_path_factory.mktemp("plugin"), "slurm", words)
    run.said = kill_and_continue(run, slurm, run.start(), "rule_compute_cams_wildcards_tiny_base")
    run.records = slurm.records(run.folder)
    return run


@pytest.fixture(params=["generic", "plugin"])
def either(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


def test_whole_workflow_gives_the_tables_of_a_local_run(generic: Run, local: Run) -> None:
    assert tables(generic) == tables(local)


def test_plugin_gives_the_tables_of_a_local_run(plugin: Run, local: Run, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(local.folder, folder, symlinks=True)
    copy = Run(folder, "default", ["--cores", "2", *SMALL, *SMALL_TABLE])
    copy()
    assert tables(plugin)["results.csv"] == tables(copy)["results.csv"]


def test_slurm_is_asked_for_what_the_rules_need(either: Run) -> None:
    asked = {
        rule: {
            (record.memory, record.time, record.partition, record.cpus, record.gpus)
            for record in of_rule(either.records, rule)[:1]
        }
        for rule in ("render_scenes", "train_base", "compute_cams", "evaluate")
    }
    assert asked == {
        "render_scenes": {("4000M", "00:30:00", "cpu", "1", 0)},
        "train_base": {("16000M", "00:33:00", "gpu", "2", 1)},  # a thread and a worker
        "compute_cams": {("8000M", "08:00:00", "cpu", "2", 2)},  # likewise
        "evaluate": {("4000M", "04:00:00", "cpu", "1", 0)},
    }


def test_jobs_with_a_gpu_see_it_and_others_see_none(generic: Run) -> None:
    notes = [
        path.read_text().splitlines()[0].split()
        for path in (generic.folder / ".snakemake" / "slurm_jobs").glob("[0-9]*[0-9]")
    ]
    rules = ("train", "compute", "store", "denoise", "predict", "make_pseudo_labels")
    on_a_gpu = tuple(f"rule_{rule}" for rule in rules)
    seen = {(words[4].startswith(on_a_gpu), words[3]) for words in notes}
    assert seen == {(True, "0"), (True, "1"), (True, "0,1"), (False, "none")}


def test_a_cancelled_job_is_repeated_with_more_memory(generic: Run) -> None:
    first, second = of_rule(generic.records, "train_flow")[:2]
    assert first.comment == second.comment
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    assert (first.memory, second.memory) == ("16000M", "32000M")


def test_no_job_runs_twice_at_once(either: Run) -> None:
    begun = sorted(
        (record for record in either.records if record.start != "Unknown"),
        key=lambda record: (record.comment, record.start),
    )
    assert len(begun) > len({record.comment for record in begun}), "something was to be repeated"
    for _, same in groupby(begun, key=lambda record: record.comment):
        assert all(before.end <= after.start for before, after in pairwise(same))
    assert {record.state for record in either.records} <= {"COMPLETED", "CANCELLED"}


def test_a_run_after_a_killed_one_is_refused_until_that_is_settled(either: Run) -> None:
    errors = [line for line in either.said.splitlines() if line.startswith("error:")]
    assert (
        len(errors) == 1
        and "its last run on SLURM was killed" in errors[0]
        and "Traceback" not in either.said
    )


def test_what_ended_unrecorded_is_made_again(either: Run) -> None:
    assert "made after the run was dead" in either.said
    assert "-" not in {
        line.split("\t")[3]
        for line in either("--summary").splitlines()
        if line.startswith("results/")
    }
