"""Jobs that run at once take different GPUs; a job that ends in any way returns its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brnf.engine.gpu import claim_gpu
from brnf.errors import UserError

ROOT = Path(__file__).parents[2]
JOB = """
import sys
from pathlib import Path
from brnf.engine.gpu import claim_gpu
first, again = (claim_gpu(int(sys.argv[1]), folder=Path(sys.argv[2])) for _ in range(2))
print(first, again, flush=True)
sys.stdin.read()
"""
Start = Callable[..., tuple[int, "subprocess.Popen[str]"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a job that claims one of so many GPUs and keeps it; return the GPU and the process."""
    started: list[subprocess.Popen[str]] = []

    def job(count: int, visible: str | None = None) -> tuple[int, "subprocess.Popen[str]"]:
        environment = {
            name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"
        }
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        command = [sys.executable, "-c", JOB, str(count), str(tmp_path / "locks")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
        started.append(process)
        assert process.stdout
        first, again = (int(word) for word in process.stdout.readline().split())
        assert first == again, "a process keeps what it has chosen"
        return first, process

    yield job
    for process in started:
        process.kill()
        process.communicate()


def test_living_jobs_have_different_gpus(start: Start) -> None:
    assert [start(3)[0] for _ in range(3)] == [0, 1, 2]


def test_a_killed_job_gives_its_gpu_back(start: Start) -> None:
    _, killed = start(2)
    assert start(2)[0] == 1
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert start(2)[0] == 0


def test_gpus_are_those_of_the_machine_and_not_their_numbers_within_a_job(start: Start) -> None:
    assert start(2, "0,1")[0] == 0
    assert start(2, "1,0")[0] == 0, "its first is GPU 1, which nobody has"
    assert start(2, "0,2")[0] == 1


def test_more_jobs_than_gpus_share_and_say_so(start: Start) -> None:
    taken = [start(2)[0] for _ in range(2)]
    shared, process = start(2)
    assert sorted(taken) == [0, 1] and shared in (0, 1)
    process.kill()
    assert "all 2 GPUs are taken by other jobs" in process.communicate()[1]


def test_a_single_gpu_needs_no_lock(tmp_path: Path) -> None:
    assert claim_gpu(1, folder=tmp_path / "locks") == 0 and not (tmp_path / "locks").exists()


def test_processes_that_train_together_take_a_gpu_each(tmp_path: Path) -> None:
    together = {"LOCAL_WORLD_SIZE": "2"}
    assert [claim_gpu(2, together | {"LOCAL_RANK": rank}, tmp_path / "locks") for rank in "01"] == [
        0,
        1,
    ]
    assert not (tmp_path / "locks").exists(), "all that SLURM shows are this job's"
    with pytest.raises(UserError, match="2 devices finds 1 visible GPU; lower devices"):
        claim_gpu(1, together | {"LOCAL_RANK": "0"}, tmp_path)


def test_processes_that_train_together_never_share(start: Start, tmp_path: Path) -> None:
    assert sorted(start(3)[0] for _ in range(3)) == [0, 1, 2]
    with pytest.raises(UserError, match="too few of the 3 GPUs free; wait for other jobs"):
        claim_gpu(3, {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}, tmp_path / "locks")
