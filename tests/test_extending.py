"""The worked examples of docs/extending.md: each applies to this code, in its style, and runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = {
    text.partition("\n")[0]: text for text in re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)[1:]
}
PARTS = ("brnf", "workflow", "config", "tests", "envs", "pyproject.toml", "README.md")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def done(command: str, folder: Path, given: str | None = None) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    found = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
    )
    assert not found.returncode, f"{command}\n{found.stdout[-2000:]}{found.stderr[-2000:]}"
    return found.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "brnf"
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / part, folder)
    (folder / "docs").mkdir()
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_applies_and_runs(name: str, copy: Path) -> None:
    (change,) = blocks("diff", EXAMPLES[name])
    done("git apply -", copy, given=change)
    changed = re.findall(r"^\+\+\+ b/(\S+\.py)$", change, re.MULTILINE)
    done(f"ruff check --quiet {' '.join(changed)}", copy)
    done(f"ruff format --quiet --check {' '.join(changed)}", copy)
    done("python -m brnf.config.generate", copy)
    (commands,) = blocks("bash", EXAMPLES[name])
    said = done(commands.replace(".venv/bin/", ""), copy)
    assert "1 passed" in said or "[100%]" in said


def test_there_is_an_example_of_each_kind() -> None:
    assert list(EXAMPLES) == ["A rule of BSDNF", "A loss", "A backbone", "A base"]
