"""Who is at work in a folder, and going on after the Snakemake there was killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from brnf.engine.controller import controllers_folder
from brnf.errors import UserError
from brnf.store.files import locked
from brnf.workflow import resume
from brnf.workflow.running_jobs import controllers, jobs

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "config" / "tiny.yaml")
RULE = """
import subprocess, sys
from pathlib import Path
from brnf.engine.controller import announce
announce(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
"""
CLAIM = """
import sys
from pathlib import Path
from brnf.workflow.resume import claim
claim(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""
HELD = """
import os, sys, time
until = time.monotonic() + 300
while "brnf.stages.render_scenes" in sys.orig_argv and time.monotonic() < until:
    if os.path.exists({go!r}):
        break
    time.sleep(0.05)
"""
"""Loaded by every Python at its start: the job waits until it may go on, however fast it is."""


@pytest.fixture
def ruler(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a process that announces itself in the folder; yield it and its job's number."""
    command = [sys.executable, "-c", RULE, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        job = int(process.stdout.readline())
        yield process, job
        for number in (process.pid, job):
            if psutil.pid_exists(number):
                os.kill(number, signal.SIGKILL)


def eventually(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until a condition holds; so long only where something hangs."""
    patience = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_a_living_snakemake_is_seen_and_not_disturbed(
    tmp_path: Path, ruler: tuple[subprocess.Popen[str], int]
) -> None:
    process, _ = ruler
    (line,) = controllers(tmp_path)
    assert line.startswith(f"process {process.pid} on ")
    with pytest.raises(UserError, match=f"process {process.pid} on .* is at work here"):
        resume.claim(tmp_path)
    assert controllers(tmp_path / "elsewhere") == []


def test_a_snakemake_that_could_not_announce_itself_is_seen_by_its_folder(tmp_path: Path) -> None:
    with subprocess.Popen(["snakemake", "600"], executable="/bin/sleep", cwd=tmp_path) as process:
        assert controllers(tmp_path) == [f"process {process.pid}: snakemake 600"]
        assert controllers(tmp_path.parent) == []
        process.kill()
    assert controllers(tmp_path) == []


def test_an_orderly_end_leaves_nothing(
    tmp_path: Path, ruler: tuple[subprocess.Popen[str], int]
) -> None:
    process, _ = ruler
    process.communicate("")
    assert list(controllers_folder(tmp_path).iterdir()) == [] and jobs(tmp_path) == []


def test_a_job_that_outlives_its_snakemake_is_seen_and_its_lock_is_not_inherited(
    tmp_path: Path, ruler: tuple[subprocess.Popen[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    process, job = ruler
    process.kill()
    process.wait()
    assert controllers(tmp_path) == [] and list(controllers_folder(tmp_path).iterdir()) == []
    assert [(found.name, found.process) for found in jobs(tmp_path)] == [("sleep", job)]
    with pytest.raises(UserError, match=rf"sleep \(process {job}\); wait for it or stop it"):
        resume.wait_for_jobs(tmp_path, "refuse")
    resume.wait_for_jobs(tmp_path, "stop")
    assert not psutil.pid_exists(job) or psutil.Process(job).status() == psutil.STATUS_ZOMBIE
    assert (
        capsys.readouterr().err
        == f"resume: waiting for what outlived its Snakemake: sleep (process {job})\n"
    )


STUBBORN = """
import os, signal, sys, time
from pathlib import Path
from brnf.engine.controller import CONTROLLER, controllers_folder
if sys.argv[2:] == ["deaf"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if CONTROLLER not in os.environ:
    os.environ[CONTROLLER] = str(controllers_folder(Path(sys.argv[1])) / "gone")
    os.execv(sys.executable, sys.orig_argv)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["stopped", "deaf", "stopped deaf"])
def test_a_job_that_was_stopped_or_does_not_listen_is_ended(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [sys.executable, "-c", STUBBORN, str(tmp_path), *kind.split()[-1:]]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as job:
        try:
            assert job.stdout is not None and job.stdout.readline() == "ready\n"
            if "stopped" in kind:
                os.kill(job.pid, signal.SIGSTOP)
            resume.wait_for_jobs(tmp_path, "stop", patience=60 if kind == "stopped" else 1)
            assert job.wait(60) == (-signal.SIGTERM if kind == "stopped" else -signal.SIGKILL)
        finally:
            job.kill()
    told = "has not ended in 1 s, is killed" in capsys.readouterr().err
    assert told == ("deaf" in kind)


def test_a_writer_on_another_machine_is_seen_by_its_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "results" / "x" / "flow.pt"):
        assert [str(job) for job in jobs(tmp_path)] == ["the writer of results/x/flow.pt"]
    assert jobs(tmp_path) == []


def test_only_one_resumption_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(UserError, match="another resumption is at work here"):
            resume.claim(tmp_path)
        process.kill()


@pytest.mark.parametrize(
    ("left", "survivors", "settled"),
    [(True, "wait", True), (True, "refuse", False), (False, "wait", False)],
)
def test_what_a_dead_run_left_on_slurm_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool, survivors: str, settled: bool
) -> None:
    done: list[tuple[object, ...]] = []
    words = ["--cores", "1", "--directory", str(tmp_path)]
    monkeypatch.setattr(resume, "settle", lambda *given: done.append(given) or [])
    monkeypatch.setattr(os, "execv", lambda program, given: done.append(tuple(given)))
    if left:
        (tmp_path / ".snakemake" / "slurm_runs").mkdir(parents=True)
        (tmp_path / ".snakemake" / "slurm_runs" / "tiny").touch()
    resume.resume(words, survivors)
    expected = [(tmp_path, words)] if settled else []
    assert done == [*expected, (sys.executable, "-m", "snakemake", "--rerun-incomplete", *words)]


def test_a_killed_run_is_refused_while_it_lives_and_resumed_when_it_is_dead(tmp_path: Path) -> None:
    """The real thing on the first job of the tiny run: its Snakemake is killed, its job lives on,
    the resumption waits for it.
    """
    words = [
        "--snakefile",
        str(ROOT / "workflow" / "Snakefile"),
        "--cores",
        "1",
        "--configfile",
        TINY,
    ]
    words += ["--config", "scenes={train: 80}", "companions=null", "--", "results/tiny/data"]
    going = [sys.executable, "-m", "brnf.workflow.resume", *words]
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "snakemake", *words]
    (held := tmp_path / "held").mkdir()
    (held / "sitecustomize.py").write_text(HELD.format(go=str(held / "go")))
    holding = environment | {"PYTHONPATH": os.pathsep.join([str(held), str(ROOT)])}
    told_to: dict[str, Any] = {"cwd": tmp_path, "text": True}
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(command, env=holding, stdout=said, stderr=said, **told_to) as run,
    ):
        eventually(lambda: [job.name for job in jobs(tmp_path)] == ["render_scenes"])
        early = subprocess.run(going, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (
            early.returncode == 2
            and f"process {run.pid} on " in early.stderr
            and early.stderr.count("\n") == 1
        )
        run.kill()
    assert [job.name for job in jobs(tmp_path)] == ["render_scenes"] and not (
        tmp_path / "results" / "tiny" / "data"
    ).exists()
    told = ""
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(going, env=environment, **piped, **told_to) as done:
        assert done.stdout is not None
        for line in done.stdout:
            told += line
            if "waiting for what outlived its Snakemake: render_scenes" in line:
                (held / "go").touch()
    assert done.returncode == 0 and (held / "go").exists(), told
    assert "no owner lives, the stale lock is removed" in told
    assert len(list((tmp_path / "results" / "tiny" / "data").rglob("*.jpg"))) >= 80
    hidden = {path.name for path in (tmp_path / "results").rglob(".*")}
    assert hidden == {".snakemake_timestamp", ".brnf", ".data.stamp"}, "no lock, no part"


def test_make_resume_hands_on_all_configuration_files() -> None:
    command = ["make", "--dry-run", "--directory", str(ROOT), "resume"]
    done = subprocess.run(
        [*command, "CONFIG=a.yaml b.yaml", "ARGS=--config random_seeds=[1]"],
        capture_output=True,
        text=True,
        check=True,
    )
    called = done.stdout.replace("\\\n", " ").split("brnf.workflow.resume ")[1].splitlines()[0]
    words = "--survivors wait -- --cores all --config random_seeds=[1] --configfile a.yaml b.yaml"
    assert called.split() == words.split()
