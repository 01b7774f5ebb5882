"""Go on with a workflow whose Snakemake was killed: `python -m brnf.workflow.resume --cores all
--configfile ...`.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from brnf.engine.controller import CONTROLLER
from brnf.errors import UserError
from brnf.store.files import NoLocksError, try_lock
from brnf.workflow.running_jobs import Job, controllers, jobs
from brnf.workflow.slurm import settle, was_killed

__all__ = ["claim", "main", "resume", "wait_for_jobs"]

SNAKEMAKE = (sys.executable, "-m", "snakemake")
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 60.0
PATIENCE = 120.0
"""Seconds that a job has to end after SIGTERM: a training ends its step and writes a checkpoint."""


def claim(folder: Path) -> None:
    """Make sure that no Snakemake lives in a folder, and keep others from resuming there until this
    process ends.

    The claim outlives :func:`os.execv`: it is Snakemake's own then.

    Raises:
        UserError: a Snakemake lives there, or another resumption has begun.
    """
    (folder / ".snakemake").mkdir(exist_ok=True)
    handle = os.open(folder / ".snakemake" / "resume.lock", os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(handle, True)
    try:
        alone = try_lock(handle)
    except NoLocksError:
        alone = True
    living = controllers(folder)
    if living or not alone:
        os.close(handle)
        owner = living[0] if living else "another resumption"
        raise UserError(
            f"{folder}: {owner} is at work here; wait for it or stop it (kill -TERM lets its "
            "running jobs finish)"
        )


def wait_for_jobs(folder: Path, survivors: str, patience: float = PATIENCE) -> None:
    """Wait until no job that outlived its Snakemake is left.

    Arguments:
        folder: in which the workflow runs.
        survivors: what to do with such jobs: ``wait`` for them, ``stop`` those of this machine
            (trainings leave a checkpoint), or ``refuse``.
        patience: seconds after which a job that was to stop is killed.

    Raises:
        UserError: there is one and it shall not be waited for, or one that nothing ends.
    """
    told, sent = -float("inf"), dict[int, dict[signal.Signals, float]]()
    while living := jobs(folder):
        names = ", ".join(map(str, living))
        if survivors == "refuse":
            raise UserError(
                f"{folder}: still at work after its Snakemake was killed: {names}; wait for it or "
                "stop it"
            )
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            print(
                f"resume: waiting for what outlived its Snakemake: {names}",
                file=sys.stderr,
                flush=True,
            )
        for job in living if survivors == "stop" else ():
            if job.process is not None:
                _stop(job, job.process, sent.setdefault(job.process, {}), patience)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _stop(job: Job, process: int, sent: dict[signal.Signals, float], patience: float) -> None:
    """Ask a job to end, and kill it when it has not in time.

    Arguments:
        job: for the line that tells.
        process: its number.
        sent: signal -> when it was sent to this job; is added to.
        patience: seconds that it has after each.

    Raises:
        UserError: it lives even after it was killed.
    """
    now = time.monotonic()
    signals: tuple[signal.Signals, ...] = ()
    if not sent:  # a job that was stopped (SIGSTOP, Ctrl-Z) hears nothing before it goes on
        signals = (signal.SIGTERM, signal.SIGCONT)
    elif signal.SIGKILL not in sent and now - sent[signal.SIGTERM] > patience:
        print(f"resume: {job}: has not ended in {patience:g} s, is killed", file=sys.stderr)
        signals = (signal.SIGKILL,)
    elif now - sent.get(signal.SIGKILL, now) > patience:
        raise UserError(f"{job}: lives even after SIGKILL; its disk may be lost, end it by hand")
    for one in signals:
        sent[one] = now
        with suppress(ProcessLookupError):
            os.kill(process, one)


def unlock(folder: Path, words: Sequence[str]) -> None:
    """Remove Snakemake's lock from a folder in which nobody is at work."""
    if not any((folder / ".snakemake" / "locks").glob("*.lock")):
        return
    done = subprocess.run(
        [*SNAKEMAKE, "--unlock", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(done.stdout, end="", file=sys.stderr)
        sys.exit(done.returncode)
    print("resume: no owner lives, the stale lock is removed", file=sys.stderr, flush=True)


def resume(words: Sequence[str], survivors: str) -> None:
    """Become the Snakemake that goes on; jobs that the dead one left in the queue of a cluster are
    cancelled.

    Arguments:
        words: of the call that was interrupted; they may differ.
        survivors: see :func:`wait_for_jobs`.

    Raises:
        UserError: somebody is at work in the folder, or the cluster does not answer.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--directory", "-d", type=Path, default=Path())
    folder = parser.parse_known_args(words)[0].directory.resolve()
    claim(folder)
    for line in settle(folder, words) if survivors != "refuse" and was_killed(folder) else []:
        print(f"resume: {line}", file=sys.stderr, flush=True)
    wait_for_jobs(folder, survivors)
    unlock(folder, words)
    os.environ.pop(CONTROLLER, None)
    os.execv(SNAKEMAKE[0], [*SNAKEMAKE, "--rerun-incomplete", *words])


def main() -> None:
    """Read the command line; status 2 and one line when somebody is at work in the folder."""
    parser = argparse.ArgumentParser(
        prog="python -m brnf.workflow.resume", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--survivors",
        choices=("wait", "stop", "refuse"),
        default="wait",
        help="what to do with jobs that outlived their Snakemake: wait until they end (default), "
        "stop them (a training leaves a checkpoint), or refuse to go on",
    )
    parser.add_argument(
        "snakemake",
        nargs=argparse.REMAINDER,
        help="arguments of Snakemake, as in the call that was interrupted",
    )
    known, words = parser.parse_known_args()
    words = [*words, *known.snakemake]
    try:
        resume(words[1:] if words[:1] == ["--"] else words, known.survivors)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
