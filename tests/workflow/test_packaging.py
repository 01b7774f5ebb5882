"""Requirements, constraints and the conda environment say the same."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, list[str]]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"run": content["dependencies"], **content["optional-dependencies"]}
    return {group: [re.split(r"[<>=!~; \[]", requirement)[0] for requirement in listed] for group, listed in names.items()}


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines)
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_every_requirement_is_pinned() -> None:
    pinned = constraints()
    assert [name for listed in project().values() for name in listed if normal(name) not in pinned] == []


def test_conda_environment_has_the_requirements_at_the_pinned_versions() -> None:
    environment = yaml.safe_load((ROOT / "envs" / "brnf.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    expected = {normal(name): constraints()[normal(name)] for name in project()["run"] if name != "snakemake"}
    assert {normal(name): version for name, version in (entry.split("==") for entry in pip)} == expected


def test_no_file_names_a_package_index() -> None:
    files = [ROOT / name for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run", "envs/brnf.yaml")]
    assert [file.name for file in files if re.search(r"index-url|https?://|find-links", file.read_text())] == []


@pytest.mark.parametrize(
    ("lacks", "remedy"),
    [
        ("version_info", "no Python 3.11 or newer found; apt-get install python3"),
        ("ensurepip", "cannot make virtual environments; apt-get install python3-venv"),
        ("c++", "no C++ compiler, which the dense CRF needs; apt-get install gcc g++"),
        ("sysconfig", "no Python headers, which the dense CRF needs; apt-get install python3-dev"),
    ],
)
def test_installation_says_in_one_line_what_the_machine_lacks(tmp_path: Path, lacks: str, remedy: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "sh", "make", "touch"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    for name, script in {"c++": "", "python3": f'case "$2" in *{lacks}*) exit 1;; esac; echo {tmp_path}'}.items():
        if name != lacks:
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
    if lacks != "sysconfig":
        (tmp_path / "Python.h").touch()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    command = [str(programs / "make"), "--silent", "SHELL=" + str(programs / "bash"), "install"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": str(programs)}, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2 and len(said) == 1 and said[0].startswith("error: ") and remedy in said[0]
    assert not (tmp_path / ".venv").exists()
