"""SLURM for the profile ``slurm-generic``, and the jobs that a dead controller of either profile
left behind.

``submit`` and ``status`` are called by Snakemake's executor cluster-generic. ``settle`` ends what a
dead run left in the queue and in the results, so that another may begin.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brnf.errors import UserError

__all__ = ["Job", "begin", "cancel_jobs", "discard_unrecorded", "end", "main", "queued_jobs"]
__all__ += ["settle", "status", "submit", "was_killed"]

PREFIX = "brnf_"
"""Begins the names of our jobs in both profiles."""
RECORDS = Path(".snakemake", "slurm_jobs")
"""Where a job of slurm-generic notes its start and its end, for sites that forget a job soon after
it has ended.
"""
OPTIONS = {
    "mem_mb": "--mem=",
    "runtime": "--time=",
    "gpu": "--gres=gpu:",
    "slurm_partition": "--partition=",
    "slurm_account": "--account=",
    "constraint": "--constraint=",
    "qos": "--qos=",
}
"""Resource of a rule -> option of sbatch that its value is appended to; a resource that is missing
or 0 is none.
"""
RUNS = Path(".snakemake", "slurm_runs")
"""A file for each experiment of which a run has begun and not ended by itself."""
FAILED = "BOOT_FAIL CANCELLED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT"
USAGE = """usage: python -m brnf.workflow.slurm submit SCRIPT
       python -m brnf.workflow.slurm status NUMBER
       python -m brnf.workflow.slurm settle [words of the Snakemake command of the dead run ...]"""
POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """A job in the queue."""

    number: str
    """Of SLURM."""
    state: str
    """Such as PENDING or RUNNING."""
    comment: str
    """Rule and wildcards."""

    def is_of(self, names: Collection[str]) -> bool:
        """Return whether it may write results of some experiments; a report belongs to any."""
        wildcards = self.comment.partition("_wildcards_")[2]
        return not wildcards or any(f"{wildcards}_".startswith(f"{name}_") for name in names)


def submit(script: Path) -> str:
    """Submit a job script and return the number of the job.

    Arguments:
        script: that Snakemake wrote, with the job's properties in a comment; notes of start and end
            are put around its command.

    Raises:
        UserError: SLURM refuses the job.
    """
    text = script.read_text()
    job = json.loads(text.split("# properties = ", 1)[1].splitlines()[0])
    resources = job["resources"]
    wildcards = ["wildcards", *job["wildcards"].values()] if job["wildcards"] else []
    comment = "_".join([f"rule_{job['rule']}", *wildcards]).replace("/", "_")  # as the plugin's
    options = [
        f"--job-name={PREFIX}{job['rule']}",
        f"--comment={comment}",
        f"--output={RECORDS}/%j.log",
        f"--cpus-per-task={resources.get('cpus_per_task', job['threads'])}",
    ]
    options += [
        f"{option}{resources[name]}" for name, option in OPTIONS.items() if resources.get(name)
    ]
    options += shlex.split(str(resources.get("slurm_extra", "")))
    RECORDS.mkdir(parents=True, exist_ok=True)
    record = f"{shlex.quote(str(RECORDS.resolve()))}/$SLURM_JOB_ID"
    gpus, quoted = "${CUDA_VISIBLE_DEVICES:-none}", shlex.quote(comment)
    start = f"echo start $(date +%s.%N) gpu {gpus} {quoted} >> {record}"
    end = f"trap 'echo end $? $(date +%s.%N) >> {record}' EXIT"
    shebang, _, body = text.partition("\n")
    told = _call(["sbatch", "--parsable", *options], "\n".join([shebang, start, end, body]))
    return told.strip().split(";")[0]


def status(number: str) -> str:
    """Return how a job is: ``running`` (or waiting), ``success`` or ``failed``.

    When SLURM does not answer the job counts as running: a failure would start it a second time.

    Arguments:
        number: of the job.
    """
    words = ["squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T"]
    try:
        state = _call(words).strip()
    except UserError as error:
        if "Invalid job id" not in str(error):
            return "running"
        state = ""
    if not state:  # SLURM has forgotten the job
        record = RECORDS / number
        last = record.read_text().splitlines()[-1] if record.exists() else ""
        return "success" if last.startswith("end 0 ") else "failed"
    ended = {"COMPLETED": "success", **dict.fromkeys(FAILED.split(), "failed")}
    return ended.get(state.split()[0], "running")


def queued_jobs(folder: Path) -> list[Job]:
    """Return our jobs that wait, run or are just ending and that work in a folder.

    Arguments:
        folder: from which Snakemake was called.

    Raises:
        UserError: SLURM does not answer.
    """
    table = _call(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%T|%j|%Z|%k"])
    found: dict[str, Job] = {}
    for line in filter(str.strip, table.splitlines()):
        number, state, name, place, comment = line.strip().split("|", 4)
        if name.startswith(PREFIX) and Path(place).resolve() == folder.resolve():
            found[number] = Job(number, state, comment)
    return list(found.values())


def begin(folder: Path, names: Collection[str], submits: bool) -> None:
    """Note that a run begins, unless an earlier one was killed and what it left has not been
    settled.

    Arguments:
        folder: from which Snakemake was called.
        names: of the experiments.
        submits: whether this run sends its jobs to SLURM; only such runs leave jobs behind.

    Raises:
        UserError: an earlier run was killed, or its jobs still write results of these experiments.
    """
    killed = [name for name in names if (folder / RUNS / name).exists()]
    if killed:
        raise UserError(
            f"results/{killed[0]}: its last run on SLURM was killed; end what that left as "
            "docs/cluster.md says"
        )
    others = [job.number for job in queued_jobs(folder) if job.is_of(names)] if submits else []
    if others:
        raise UserError(
            f"SLURM jobs {' '.join(others)}: of another run in this folder; wait for them, or end "
            "them as docs/cluster.md says"
        )
    for name in names if submits else ():
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        (folder / RUNS / name).touch()


def end(folder: Path, names: Collection[str]) -> None:
    """Note that a run has ended by itself.

    Arguments:
        folder: from which Snakemake was called.
        names: of the experiments.
    """
    for name in names:
        (folder / RUNS / name).unlink(missing_ok=True)


def was_killed(folder: Path) -> bool:
    """Return whether a run on SLURM began in a folder and did not end by itself."""
    return any((folder / RUNS).glob("*"))


def cancel_jobs(folder: Path) -> list[Job]:
    """Cancel our jobs that work in a folder and return once none is left.

    To be called when the run that submitted them is dead: a run to come would start the same jobs
    beside them. What they lose is bounded by the checkpoints of the trainings.

    Arguments:
        folder: from which Snakemake was called.

    Returns:
        The jobs that were found.

    Raises:
        UserError: SLURM does not answer.
    """
    found = left = queued_jobs(folder)
    while left:
        _call(["scancel", "--quiet", *(job.number for job in left)])
        time.sleep(POLL_SECONDS)
        left = queued_jobs(folder)
    return found


def settle(folder: Path, words: Sequence[str]) -> list[str]:
    """End what a killed run left in the queue and in the results, so that another may begin; a
    machine without SLURM has nothing.

    Arguments:
        folder: from which Snakemake was called.
        words: of the Snakemake command of that run.

    Returns:
        A line for each job and each result.

    Raises:
        UserError: SLURM does not answer, or Snakemake does not understand the words.
    """
    jobs = cancel_jobs(folder) if shutil.which("squeue") else []
    lines = [f"cancelled job {job.number}, {job.state.lower()}: {job.comment}" for job in jobs]
    removed = discard_unrecorded(folder, words)
    return lines + [
        f"removed {path}: made after the run was dead, by parameters that nobody wrote down"
        for path in removed
    ]


def discard_unrecorded(folder: Path, words: Sequence[str]) -> list[Path]:
    """Remove the results of jobs that ended after their run was dead, and return their paths.

    Nobody wrote down with which parameters they were made, so Snakemake would keep them whatever
    changes later. What is older than the run is not touched.

    Arguments:
        folder: from which Snakemake was called.
        words: of the Snakemake command that called for the results.

    Raises:
        UserError: Snakemake does not understand the words.
    """
    runs = list((folder / RUNS).glob("*"))
    if not runs:
        return []
    begun = min(run.stat().st_mtime for run in runs)
    found: list[Path] = []
    summary = _call([sys.executable, "-m", "snakemake", "--summary", *words], folder=folder)
    for name, date, _, log, *_ in (f"{line}\t\t\t".split("\t") for line in summary.splitlines()):
        unrecorded = log == "-" and date != "-"  # every rule has a log
        if unrecorded and (folder / name).stat().st_mtime >= begun:
            found.append(folder / name)
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    end(folder, [run.name for run in runs])
    return found


def _call(command: Sequence[str], script: str | None = None, folder: Path | None = None) -> str:
    """Call a program, in a folder or here, and return what it prints.

    Raises:
        UserError: it is missing or fails.
    """
    asked: dict[str, Any] = {
        "capture_output": True,
        "text": True,
        "check": True,
        "timeout": TIMEOUT_SECONDS,
    }
    try:
        return str(subprocess.run(command, input=script, cwd=folder, **asked).stdout)
    except FileNotFoundError as error:
        reason, remedy = "not found", "run where jobs can be submitted, or take another profile"
        raise UserError(f"{command[0]}: {reason}; {remedy}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]}: no answer in {TIMEOUT_SECONDS} s; is SLURM up?") from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split()) or f"exit status {error.returncode}"
        raise UserError(f"{command[0]}: {reason}; see docs/cluster.md") from error


def main(words: Sequence[str]) -> int:
    """Run a command; return the exit status."""
    try:
        match words:
            case ["submit", script]:
                print(submit(Path(script)))
            case ["status", number]:
                print(status(number))
            case ["settle", *rest]:
                print(*settle(Path.cwd(), rest), sep="\n")
            case _:
                print(f"{USAGE}\n\n{__doc__}")
                return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
