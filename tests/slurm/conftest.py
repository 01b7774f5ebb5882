"""A real SLURM on this machine."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_runs import HERE, Slurm


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="brnf-slurm-"))
    try:
        command = [
            "timeout",
            "-k",
            "5",
            "60",
            str(HERE / "start.sh"),
            str(folder),
            str(os.getpid()),
        ]
        started = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        assert started.returncode == 0, started.stderr
        running = Slurm(folder)
        yield running
        running.stop()
    finally:
        shutil.rmtree(folder)
