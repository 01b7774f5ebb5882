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
from brnf.store.files import try_lock
from brnf.workflow.running_jobs import controllers, jobs
from brnf.workflow.slurm import settle, was_killed

__all__ = ["claim", "main", "resume", "wait_for_jobs"]

SNAKEMAKE = (sys.executable, "-m", "snakemake")
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 60.0


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
    alone = try_lock(handle)
    living = controllers(folder)
    if living or not alone:
        os.close(handle)
        owner = living[0] if living else "another resumption"
        raise UserError(
            f"{folder}: {owner} is at work here; wait for it or stop it (kill -TERM lets its "
            "running jobs finish)"
        )


def wait_for_jobs(folder: Path, survivors: str) -> None:
    """Wait until no job that outlived its Snakemake is left.

    Arguments:
        folder: in which the workflow runs.
        survivors: what to do with such jobs: ``wait`` for them, ``stop`` those of this machine
            (trainings leave a checkpoint), or ``refuse``.

    Raises:
        UserError: there is one and it shall not be waited for.
    """
    told, asked = -float("inf"), set[int]()
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
            if job.process is not None and job.process not in asked:
                asked.add(job.process)
                with suppress(ProcessLookupError):
                    os.kill(job.process, signal.SIGTERM)
        time.sleep(SECONDS_BETWEEN_LOOKS)


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
