"""Jobs run the code that the workflow knows, whatever lies in the folder that it is called from."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import yaml

from brnf.engine import controller
from brnf.stages._cli import run_stage
from brnf.store import files
from brnf.workflow import resume

ROOT = Path(__file__).parents[2]
SMALL = ("--config", "scenes={train: 2, val: 2, size: 96}", "companions=null")
STAGE = [
    sys.executable,
    "-m",
    "brnf.stages.render_scenes",
    "--scenes",
    "out",
    "--scenes.train",
    "1",
]
FOREIGN = "open('imported', 'a').write(__name__)\nraise ImportError('foreign')\n"


def foreign_modules(folder: Path) -> None:
    """Write what would end, and note, an import of it."""
    for name in ("brnf/__init__", "brnf/stages/__init__", "cv2", "yaml", "tyro", "numpy"):
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FOREIGN)


def test_a_job_imports_nothing_from_the_folder_it_runs_in(
    workflow: Any, config: Callable[[str], str]
) -> None:
    foreign_modules(workflow.folder)
    workflow("--configfile", config("tiny"), *SMALL, "--", "results/tiny/data")
    assert (workflow.folder / "results" / "tiny" / "data" / "VOC2012" / "classes.txt").exists()
    assert not (workflow.folder / "imported").exists()


def test_a_stage_of_another_source_than_the_workflows_refuses(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "brnf", tmp_path / "brnf", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "BRNF_SOURCE": str(ROOT)}
    done = subprocess.run(STAGE, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    said = f"error: {tmp_path / 'brnf'}: is run in the place of {ROOT / 'brnf'}, whose code the"
    assert done.stderr.startswith(said) and not (tmp_path / "out").exists()


def test_numbers_that_others_than_torchrun_export_change_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").touch()
    exported = {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **exported}
    environment.pop("TORCHELASTIC_RUN_ID", None)
    done = subprocess.run(STAGE, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: out: holds photo.jpg")


NO_LOCKS = """
import errno, fcntl

def refuse(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = refuse
"""


def test_a_stage_without_locks_says_so_and_works(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LOCKS)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(STAGE, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("its file system has no locks (No locks available)") == 1
    assert (tmp_path / "out" / "VOC2012" / "classes.txt").exists()


def test_a_workflow_without_locks_begins_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    monkeypatch.setenv(controller.CONTROLLER, "")
    controller.announce(tmp_path)
    assert controller.is_alone(tmp_path)
    resume.claim(tmp_path)
    resume.wait_for_jobs(tmp_path, "refuse")


def test_a_locale_without_utf_8_changes_nothing(
    tmp_path: Path, config: Callable[[str], str]
) -> None:
    folder = tmp_path / "é"
    folder.mkdir()
    settings = Path(config("tiny")).read_text().replace("name: tiny", "name: x")
    (folder / "é.yaml").write_text(f"{settings}\nfigures: {{images: [é]}}\n", encoding="utf-8")
    ascii_only = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
    command += ["--cores", "1", "--configfile", "é.yaml", *SMALL]
    done = subprocess.run(
        [*command, "--", "results/x/data", "results/x/config.yaml"],
        cwd=folder,
        env={**os.environ, **ascii_only},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((folder / "results/x/config.yaml").read_bytes())
    assert written["figures"]["images"] == ["é"]


def test_a_missing_folder_for_temporary_files_is_not_needed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "missing")}
    done = subprocess.run(STAGE, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # Python takes another one


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "full/x"), "full/x: cannot be written"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), f"{gettempdir()}: cannot be written"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "set TMPDIR"),
    ],
)
def test_a_full_folder_for_temporary_files_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as ended:
        run_stage(fails)
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1 and said in line
