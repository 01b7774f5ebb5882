"""A real SLURM on this machine, and runs of the workflow on it; see ``make test-cluster``."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CALL_SECONDS = 30
RUN_SECONDS = 900
WAIT_SECONDS = 600


@dataclass(frozen=True)
class Record:
    """What SLURM tells of a job."""

    number: str
    comment: str
    state: str
    partition: str
    cpus: str
    start: str
    end: str
    memory: str
    time: str
    gpus: int


class Slurm:
    """The running SLURM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *words: str) -> str:
        """Call one of its programs."""
        command = ["timeout", "-k", "2", str(CALL_SECONDS), *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def records(self, folder: Path) -> list[Record]:
        """Return all jobs that were submitted from a folder, ended or not, in the order of their
        numbers.
        """
        found = []
        for line in self.call("scontrol", "--oneliner", "--details", "show", "jobs").splitlines():
            fields = dict(re.findall(r"(\S+?)=(\S*)", line))
            if Path(fields.get("WorkDir", "/")) == folder:
                keys = (
                    "JobId",
                    "Comment",
                    "JobState",
                    "Partition",
                    "NumCPUs",
                    "StartTime",
                    "EndTime",
                    "MinMemoryNode",
                    "TimeLimit",
                )
                gpus = re.search(
                    r"gres:gpu:(\d+)", fields.get("TresPerJob", fields.get("TresPerNode", ""))
                )
                found.append(
                    Record(*(fields.get(key, "") for key in keys), gpus=int(gpus[1]) if gpus else 0)
                )
        return sorted(found, key=lambda record: int(record.number))

    def stop(self) -> None:
        """Print the list of all jobs and end it."""
        print(
            "\n"
            + self.call(
                "squeue",
                "--states=all",
                "--sort=i",
                "--format=%.5i %.4P %.11T %.8M %.10l %.7m %.12b %.20V %k",
            )
        )
        subprocess.run(
            ["timeout", "-k", "2", "60", str(HERE / "stop.sh"), str(self.folder)], check=True
        )


class Run:
    """The workflow, called from a folder of its own with words that stay the same."""

    records: list[Record]
    said: str

    def __init__(self, folder: Path, profile: str, words: list[str]) -> None:
        self.folder = folder
        self.printed = folder / "printed.txt"
        profiles = ROOT / "workflow" / "profiles" / profile
        self.words = [
            "--snakefile",
            str(ROOT / "workflow" / "Snakefile"),
            "--workflow-profile",
            str(profiles),
            *words,
        ]

    def command(self, *words: str, seconds: int = RUN_SECONDS) -> list[str]:
        """Return the call of Snakemake, which ends after a while."""
        limit = ["timeout", "-k", "5", str(seconds)]
        return [*limit, sys.executable, "-m", "snakemake", *words, *self.words]

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start Snakemake in a process group of its own."""
        command = self.command(*words)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        with self.printed.open("w") as file:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __call__(self, *words: str, fails: bool = False, **environment: str) -> str:
        """Run Snakemake and return what it prints."""
        started = self.start(*words, **environment)
        try:
            code = started.wait()
        except BaseException:  # whoever interrupts the tests does not want them to go on
            kill(started)
            raise
        printed = self.printed.read_text()
        assert (code != 0) == fails, printed
        return printed

    def wait_until(
        self, happens: Callable[[], bool], controller: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        """Wait until something is so, as long as a controller lives if one is given."""
        limit = time.monotonic() + WAIT_SECONDS
        while not happens():
            alive = controller is None or controller.poll() is None
            assert alive and time.monotonic() < limit, self.printed.read_text()
            time.sleep(0.2)

    def tool(self, *words: str) -> str:
        """Call ``brnf.workflow.slurm`` in the folder."""
        command = ["timeout", "-k", "2", "60", sys.executable, "-m", "brnf.workflow.slurm", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=self.folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its group, as losing the machine would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
