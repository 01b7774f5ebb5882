"""The tiny run in a folder of its own: started, killed, resumed, compared with an unbroken one."""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SNAKEMAKE = (sys.executable, "-m", "snakemake")
RESUME = (sys.executable, "-m", "brnf.workflow.resume", "--")
CALL = (
    "--snakefile",
    str(ROOT / "workflow" / "Snakefile"),
    "--cores",
    "2",
    "--configfile",
    str(ROOT / "config" / "tiny.yaml"),
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
NO_OUTPUT = ("logs", "benchmarks")
UNDECLARED = (".checkpoint.pt", ".part", ".files.csv", ".partial.csv")
"""Ends of files beside outputs: states and histories of trainings, half-written files, what the
index remembers of times.
"""
PATIENCE = 600.0


@dataclass(frozen=True)
class Job:
    """A job that runs.

    Attributes:
        process: its number.
        stage: what it does.
        checkpoint: of a training.
    """

    process: psutil.Process
    stage: str
    checkpoint: Path | None

    def lives(self) -> bool:
        """Return whether it still runs."""
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def lost(self, end: float) -> float:
        """Return the seconds of its work, at this time of the clock, since its start or since its
        state was last kept.
        """
        kept = self.checkpoint is not None and self.checkpoint.exists()
        since = self.checkpoint.stat().st_mtime if kept and self.checkpoint else 0.0
        return max(0.0, end - max(since, self.process.create_time()))


@dataclass
class TinyRun:
    """The tiny run in one folder; its Snakemake leads a process group of its own.

    Arguments:
        folder: in which the results will stand.
        settings: at least one word for ``--config``.
        targets: files to make, all by default.
    """

    folder: Path
    settings: Sequence[str]
    targets: Sequence[str] = ()
    controller: subprocess.Popen[bytes] = field(init=False)

    def start(self, call: Sequence[str] = SNAKEMAKE) -> None:
        """Start, or with RESUME go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [*call, *CALL, "--config", *self.settings, "--", *self.targets]
        with (self.folder / "said.txt").open("a") as said:
            self.controller = subprocess.Popen(
                words,
                cwd=self.folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        atexit.register(_end, self.controller)

    def said(self) -> str:
        """Return all that was printed in this folder."""
        return (self.folder / "said.txt").read_text()

    def ends(self, seconds: float) -> bool:
        """Wait at most so long for the end; return whether it came."""
        try:
            self.controller.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> int:
        """Wait for the end and return the exit status."""
        return self.controller.wait(PATIENCE)

    def jobs(self) -> list[Job]:
        """Return the jobs that are running in this folder, whoever started them."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                stage = next((word for word in words if word.startswith("brnf.stages.")), None)
                if stage is not None and Path(process.cwd()) == self.folder.resolve():
                    process.create_time()  # which psutil remembers after its end
                    found.append(
                        Job(process, stage.removeprefix("brnf.stages."), self._checkpoint(words))
                    )
            except psutil.Error:
                continue
        return found

    def _checkpoint(self, words: Sequence[str]) -> Path | None:
        """Return where a job would keep its state."""
        if not any(word.startswith("brnf.stages.train_") for word in words):
            return None
        output = self.folder / next(
            after for flag, after in pairwise(words) if flag in ("--flow", "--network")
        )
        return output.with_name(f"{output.stem}.checkpoint.pt")

    def wait_until(self, condition: Callable[[], bool], pause: float = 0.2) -> bool:
        """Wait until a condition holds, or the run has ended; return whether it holds."""
        patience = time.monotonic() + PATIENCE
        while not condition():
            if self.controller.poll() is not None or time.monotonic() > patience:
                return condition()
            time.sleep(pause)
        return True

    def signal(self, number: signal.Signals, whole_group: bool) -> None:
        """Send a signal to the Snakemake alone or to all processes of its group."""
        (os.killpg if whole_group else os.kill)(self.controller.pid, number)

    def outputs(self) -> dict[str, Path]:
        """Return all files with the final name of an output, or inside an output folder."""
        found = {}
        for path in sorted((self.folder / "results").rglob("*")):
            inside = path.relative_to(self.folder)
            hidden = any(part.startswith(".") for part in inside.parts) or path.name.endswith(
                UNDECLARED
            )
            if path.is_file() and not hidden and not set(inside.parts) & set(NO_OUTPUT):
                found[str(inside)] = path
        return found


def _end(controller: subprocess.Popen[bytes]) -> None:
    """End a run that the test leaves behind, when it is itself interrupted."""
    if controller.poll() is None:
        os.killpg(controller.pid, signal.SIGKILL)


def differences(run: TinyRun, reference: TinyRun, complete: bool) -> list[str]:
    """Return the outputs of a run that are not those of the reference.

    Arguments:
        run: maybe killed.
        reference: an unbroken run.
        complete: whether all outputs must be there.
    """
    found, expected = run.outputs(), reference.outputs()
    wrong = [
        name for name in found if name not in expected or not _equal(found[name], expected[name])
    ]
    return wrong + (sorted(set(expected) - set(found)) if complete else [])


def _equal(one: Path, other: Path) -> bool:
    """Compare to the byte, but of a report, which shows wall times, the end."""
    ours, theirs = one.read_bytes(), other.read_bytes()
    return ours[-16:] == theirs[-16:] if one.name == "report.html" else ours == theirs
