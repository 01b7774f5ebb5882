"""What is said to SLURM and what is made of its answers; SLURM itself is played by scripts (``make
test-cluster`` takes a real one).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brnf.errors import UserError
from brnf.workflow import slurm

PROPERTIES = {
    "rule": "train_flow",
    "wildcards": {"name": "tiny", "model": "base", "seed": "0"},
    "threads": 2,
    "resources": {
        "mem_mb": 16000,
        "runtime": 240,
        "gpu": 1,
        "slurm_partition": "long",
        "slurm_extra": "--nice=5 --exclude='a b'",
    },
}
TOY = """
rule all:
    input: "one", "two"
rule make:
    output: "{file}"
    log: "{file}.log"
    shell: "touch {output} {log}"
"""


class Played:
    """Programs of SLURM that note how they are called and answer as told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answer(self, program: str, text: str = "", error: str = "", status: int = 0) -> None:
        path = self.folder / program
        notes = (
            f"printf '%s\\n' \"$@\" >> {self.folder}/{program}.words; "
            f"cat > {self.folder}/{program}.input"
        )
        path.write_text(
            f"#!/bin/sh\n{notes}\ncat <<'END'\n{text}\nEND\necho '{error}' >&2\nexit {status}\n"
        )
        path.chmod(0o755)

    def words(self, program: str) -> list[str]:
        return (self.folder / f"{program}.words").read_text().splitlines()


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    return Played(programs)


def write_script(folder: Path, command: str = "true", **changes: object) -> Path:
    script = folder / "job.sh"
    script.write_text(
        f"#!/bin/sh\n# properties = {json.dumps(PROPERTIES | changes)}\n{command} && exit 0 || "
        "exit 1\n"
    )
    return script


def test_a_job_is_submitted_with_all_it_asks_for(played: Played, tmp_path: Path) -> None:
    played.answer("sbatch", "17;cluster")
    assert slurm.submit(write_script(tmp_path)) == "17"
    asked = {
        "--parsable",
        "--job-name=brnf_train_flow",
        "--comment=rule_train_flow_wildcards_tiny_base_0",
        "--cpus-per-task=2",
    }
    asked |= {
        "--mem=16000",
        "--time=240",
        "--gres=gpu:1",
        "--partition=long",
        "--nice=5",
        "--exclude=a b",
    }
    assert {word for word in played.words("sbatch") if not word.startswith("--output")} == asked


def test_what_is_not_asked_for_is_not_mentioned(played: Played, tmp_path: Path) -> None:
    played.answer("sbatch", "17")
    slurm.submit(write_script(tmp_path, wildcards={}, resources={"gpu": 0, "cpus_per_task": 6}))
    asked = [
        "--parsable",
        "--job-name=brnf_train_flow",
        "--comment=rule_train_flow",
        "--output=.snakemake/slurm_jobs/%j.log",
    ]
    assert played.words("sbatch") == [*asked, "--cpus-per-task=6"]


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [("true", 0, "success"), ("false", 1, "failed"), ("kill $$", -15, "failed")],
)
def test_a_job_notes_its_end_for_sites_that_forget_it(
    played: Played, tmp_path: Path, command: str, code: int, told: str
) -> None:
    played.answer("sbatch", "17")
    slurm.submit(write_script(tmp_path, command))
    script = (played.folder / "sbatch.input").read_text()
    ran = subprocess.run(
        ["/bin/sh"],
        input=script,
        text=True,
        env={**os.environ, "SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "1"},
    )
    assert ran.returncode == code
    played.answer("squeue", error="slurm_load_jobs error: Invalid job id specified", status=1)
    assert slurm.status("17") == told
    notes = (tmp_path / ".snakemake" / "slurm_jobs" / "17").read_text().splitlines()
    assert notes[0].endswith("gpu 1 rule_train_flow_wildcards_tiny_base_0") and len(notes) == (
        2 if code >= 0 else 1
    )


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("PENDING", "running"),
        ("RUNNING", "running"),
        ("COMPLETING", "running"),  # may still turn into a failure
        ("SUSPENDED", "running"),
        ("REQUEUED", "running"),
        ("COMPLETED", "success"),
        ("FAILED", "failed"),
        ("CANCELLED", "failed"),
        ("TIMEOUT", "failed"),
        ("OUT_OF_MEMORY", "failed"),
        ("NODE_FAIL", "failed"),
        ("PREEMPTED", "failed"),
    ],
)
def test_states(played: Played, state: str, told: str) -> None:
    played.answer("squeue", state)
    assert slurm.status("17") == told


def test_a_job_counts_as_running_while_slurm_does_not_answer(played: Played) -> None:
    played.answer(
        "squeue", error="slurm_load_jobs error: Unable to contact slurm controller", status=1
    )
    assert slurm.status("17") == "running"


def test_jobs_of_this_folder_and_this_program_are_told_from_others(
    played: Played, tmp_path: Path
) -> None:
    rows = [
        f"1|RUNNING|brnf_train_flow|{tmp_path}|rule_train_flow_wildcards_tiny_base_0",
        f"2|PENDING|brnf_6f1c|{tmp_path}/.|rule_tabulate_wildcards_demo",
        f"3|PENDING|brnf_report|{tmp_path}|rule_report",
        f"4|RUNNING|jupyter|{tmp_path}|(null)",
        f"5|RUNNING|brnf_report|{tmp_path}/elsewhere|rule_report",
    ]
    played.answer("squeue", "\n".join(rows))
    jobs = slurm.queued_jobs(tmp_path)
    assert [job.number for job in jobs] == ["1", "2", "3"]
    assert [job.number for job in jobs if job.is_of(["tiny"])] == ["1", "3"]
    assert [job.number for job in jobs if job.is_of(["tin", "demo"])] == ["2", "3"]


def test_cancelling_returns_when_no_job_is_left(played: Played, tmp_path: Path) -> None:
    """The played queue loses a job at each look: first two, then one that is ending, then none."""
    row = f"RUNNING|brnf_x|{tmp_path}|rule_x"
    played.answer("scancel")
    played.answer("squeue")
    script = played.folder / "squeue"
    for number, rows in enumerate(
        (f"1|{row}\n2|{row}", f"2|COMPLETING|brnf_x|{tmp_path}|rule_x", "")
    ):
        (played.folder / f"look{number}").write_text(rows)
    script.write_text(
        f"#!/bin/sh\ncd {played.folder}; echo >> looks; cat look$(($(wc -l < looks) - 1))\n"
    )
    assert [job.number for job in slurm.cancel_jobs(tmp_path)] == ["1", "2"]
    assert played.words("scancel") == ["--quiet", "1", "2", "--quiet", "2"]


def test_refusals_of_slurm_are_one_line(played: Played, tmp_path: Path) -> None:
    played.answer(
        "sbatch",
        error="sbatch: error: invalid partition\nsbatch: error: Batch job submission failed",
        status=1,
    )
    with pytest.raises(UserError, match=r"^sbatch: .*invalid partition.*submission failed"):
        slurm.submit(write_script(tmp_path))


def test_a_run_is_refused_after_a_killed_one_and_not_after_one_that_ended(
    played: Played, tmp_path: Path
) -> None:
    played.answer("squeue")
    slurm.begin(tmp_path, ["tiny"], submits=True)
    slurm.begin(tmp_path, ["demo"], submits=True)
    for submits in (True, False):
        with pytest.raises(UserError, match=r"^results/tiny: its last run on SLURM was killed"):
            slurm.begin(tmp_path, ["tiny"], submits)
    slurm.end(tmp_path, ["tiny"])
    slurm.begin(tmp_path, ["tiny"], submits=False)
    slurm.begin(tmp_path, ["tiny"], submits=True)


def test_a_run_is_refused_beside_jobs_that_write_the_same_results(
    played: Played, tmp_path: Path
) -> None:
    played.answer("squeue", f"7|RUNNING|brnf_x|{tmp_path}|rule_x_wildcards_tiny_0")
    slurm.begin(tmp_path, ["demo"], submits=True)
    with pytest.raises(UserError, match=r"^SLURM jobs 7: "):
        slurm.begin(tmp_path, ["tiny"], submits=True)
    assert not (tmp_path / slurm.RUNS / "tiny").exists()


def test_results_that_nobody_recorded_are_removed_and_older_ones_kept(tmp_path: Path) -> None:
    """``one`` was made before the dead run began, ``two`` by a job that ended after its run was
    dead: neither has a record.
    """
    (tmp_path / "Snakefile").write_text(TOY)
    run = tmp_path / slurm.RUNS / "tiny"
    run.parent.mkdir(parents=True)
    for moment, path in enumerate((tmp_path / "one", run, tmp_path / "two")):
        path.touch()
        os.utime(path, (1e9 + moment, 1e9 + moment))
    assert slurm.discard_unrecorded(tmp_path, ["--cores", "1"]) == [tmp_path / "two"]
    assert (tmp_path / "one").exists() and not (tmp_path / "two").exists() and not run.exists()


def test_recorded_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(TOY)
    (tmp_path / slurm.RUNS).mkdir(parents=True)
    (tmp_path / slurm.RUNS / "tiny").touch()
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (
        slurm.discard_unrecorded(tmp_path, ["--cores", "1"]) == [] and (tmp_path / "one").exists()
    )
