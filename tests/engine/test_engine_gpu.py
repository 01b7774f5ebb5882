"""Jobs that run at once take different GPUs; a job that ends in any way returns its own."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brnf.engine import gpu
from brnf.engine.gpu import claim_gpu
from brnf.errors import UserError

ROOT = Path(__file__).parents[2]
JOB = """
import sys
from pathlib import Path
from brnf.engine.gpu import claim_gpu
gpus, folder = sys.argv[1].split(","), Path(sys.argv[2])
first, again = (claim_gpu(gpus, folder=folder) for _ in range(2))
print(first, again, flush=True)
sys.stdin.read()
"""
Begin = Callable[[list[str]], "subprocess.Popen[str]"]
ONE, TWO, THREE = ["GPU-a"], ["GPU-a", "GPU-b"], ["GPU-a", "GPU-b", "GPU-c"]
TOGETHER = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Begin a job that claims one of some GPUs and keeps it; return its process."""
    started: list[subprocess.Popen[str]] = []

    def job(gpus: list[str]) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", JOB, ",".join(gpus), str(tmp_path / "locks")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        started.append(process)
        return process

    yield job
    for process in started:
        process.kill()
        process.communicate()


def claimed(process: "subprocess.Popen[str]") -> int:
    """Return the GPU of a job once it has one."""
    assert process.stdout
    first, again = (int(word) for word in process.stdout.readline().split())
    assert first == again, "a process keeps what it has chosen"
    return first


def test_living_jobs_have_different_gpus(begin: Begin) -> None:
    assert [claimed(begin(THREE)) for _ in range(3)] == [0, 1, 2]


def test_a_killed_job_gives_its_gpu_back(begin: Begin) -> None:
    killed = begin(TWO)
    assert claimed(killed) == 0 and claimed(begin(TWO)) == 1
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert claimed(begin(TWO)) == 0


def test_gpus_are_those_of_the_machine_and_not_their_numbers_within_a_job(begin: Begin) -> None:
    assert claimed(begin(["GPU-a", "GPU-b"])) == 0
    assert claimed(begin(["GPU-b", "GPU-a"])) == 0, "its first is GPU b, which nobody has"
    assert claimed(begin(["GPU-a", "GPU-c"])) == 1


@pytest.mark.parametrize("gpus", [ONE, TWO])
def test_a_job_without_a_gpu_waits_for_one_and_says_for_whom(begin: Begin, gpus: list[str]) -> None:
    before = []
    for device in range(len(gpus)):
        before.append(begin(gpus))
        assert claimed(before[-1]) == device
    waiting = begin(gpus)
    assert waiting.stderr
    told = waiting.stderr.readline()
    assert "taken by other jobs" in told and "waiting for one" in told
    assert all(f"process {process.pid}" in told for process in before)
    before[-1].kill()
    before[-1].wait()
    assert claimed(waiting) == len(gpus) - 1


def test_what_only_uses_a_network_does_not_wait(
    begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claim_gpu(ONE, {}, tmp_path / "none", waits=False) == 0
    assert not (tmp_path / "none").exists(), "a notebook keeps no job from the only GPU"
    assert [claimed(begin(TWO)) for _ in range(2)] == [0, 1]
    assert claim_gpu(TWO, {}, tmp_path / "locks", waits=False) == os.getpid() % 2
    assert "all 2 GPUs are taken by other jobs" in capsys.readouterr().err


def test_processes_that_train_together_take_a_gpu_each(tmp_path: Path) -> None:
    for rank in "01":
        one = TOGETHER | {"LOCAL_RANK": rank}
        assert claim_gpu(TWO, one, tmp_path / f"apart{rank}") == int(rank)
    with pytest.raises(UserError, match="2 devices finds 1 visible GPU; lower devices"):
        claim_gpu(ONE, TOGETHER | {"LOCAL_RANK": "0"}, tmp_path)


@pytest.mark.parametrize("gpus", [TWO, THREE])
def test_processes_that_train_together_never_share_nor_wait_for_long(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[str]
) -> None:
    monkeypatch.setattr(gpu, "PATIENCE_TOGETHER", 0.0)
    assert sorted(claimed(begin(gpus)) for _ in gpus) == list(range(len(gpus)))
    with pytest.raises(UserError, match=r"GPUs are taken [^\n]+ 2 devices; wait for other jobs"):
        claim_gpu(gpus, TOGETHER | {"LOCAL_RANK": "0"}, tmp_path / "locks")


def test_what_others_than_torchrun_export_means_nothing(tmp_path: Path) -> None:
    exported = {"LOCAL_WORLD_SIZE": "8", "LOCAL_RANK": "7", "WORLD_SIZE": "8", "RANK": "x"}
    assert claim_gpu(ONE, exported, tmp_path / "locks") == 0


def test_a_folder_that_others_can_write_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "file").touch()
    (tmp_path / "mine" / "GPU-a.lock").symlink_to(tmp_path / "elsewhere")
    for name in ("link", "open", "file", "mine"):
        assert claim_gpu(THREE, {}, tmp_path / name) == os.getpid() % 3
        told = capsys.readouterr().err
        assert told.startswith("which of 3 GPUs are free cannot be told (") and name in told
        assert told.count("\n") == 1
    assert not (tmp_path / "elsewhere").exists() and not list((tmp_path / "open").iterdir())


def test_a_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "theirs").stat().st_uid + 1)
    claim_gpu(THREE, {}, tmp_path / "theirs")
    assert "theirs is not a folder of this user alone" in capsys.readouterr().err
    assert not list((tmp_path / "theirs").iterdir())


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert claim_gpu(THREE, {}, tmp_path / "locks") == os.getpid() % 3
    told = capsys.readouterr().err
    assert "cannot be told ([Errno 37] No locks available); this one takes cuda:" in told
