"""Requirements, constraints and the conda environment say the same; what others look for when they
take the package or the workflow is there.
"""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, list[str]]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"run": content["dependencies"], **content["optional-dependencies"]}
    return {
        group: [re.split(r"[<>=!~; \[]", requirement)[0] for requirement in listed]
        for group, listed in names.items()
    }


def constraints() -> dict[str, str]:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines)
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_every_requirement_is_pinned() -> None:
    pinned = constraints()
    assert [
        name for listed in project().values() for name in listed if normal(name) not in pinned
    ] == []


def test_conda_environment_has_the_requirements_at_the_pinned_versions() -> None:
    environment = yaml.safe_load((ROOT / "envs" / "brnf.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    expected = {
        normal(name): constraints()[normal(name)]
        for name in project()["run"]
        if name != "snakemake"
    }
    assert {
        normal(name): version for name, version in (entry.split("==") for entry in pip)
    } == expected


def test_no_file_names_a_package_index() -> None:
    files = [ROOT / name for name in ("Makefile", "pyproject.toml", "constraints.txt")]
    files += [
        file for folder in (".ci", "envs") for file in (ROOT / folder).iterdir() if file.is_file()
    ]
    assert [
        file.name for file in files if re.search(r'https?://|index-url[= ]+["\w]', file.read_text())
    ] == []


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert (ROOT / "brnf" / "py.typed").is_file()
    assert "py.typed" in setuptools["package-data"]["*"]


def test_the_catalogue_of_workflows_finds_what_it_shows() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    rules = [path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")]
    deployed = usage["software-stack-deployment"]
    assert deployed["conda"] == any("    conda:" in text for text in rules)
    assert deployed["apptainer"] == any("container:" in text for text in rules)
    assert (ROOT / "workflow" / "Snakefile").is_file()
    assert {"snakemake", "workflow"} <= set((ROOT / "README.md").read_text().lower().split())


def test_the_instructions_name_every_configuration() -> None:
    folder = ROOT / "config"
    told = set(re.findall(r"`((?:\w+/)?[\w-]+\.yaml)`", (folder / "README.md").read_text()))
    words = {"clip_es/coco.yaml", "clip_es/voc.yaml"}  # of prompts, no experiments
    assert told == {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")} - words
