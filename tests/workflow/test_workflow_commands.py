"""Every command of the documents runs, with what makes it short: Snakemake plans in a folder of
pretended data, make tells what it would do, the networks are small ones.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from forked_snakemake import ForkedSnakemake

from brnf.use.cli import main
from tests.use.conftest import Results

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:snakemake|brnf|make|pip|python|torchrun) [^`]+)`")
PART = re.compile(r"<\w+>|\w \.\.\.| N$|^brnf \w+$")
"""Of a command that is only spoken of."""
OWN = re.compile(r"(OMP_NUM_THREADS=1 )?\.venv/bin/(snakemake|python -m (brnf|benchmarks|tests)\.)")
LEFT_OUT = {
    "extending.md": "tests/test_extending.py runs them over the changes that they belong to",
    "scale.md": "they need plugins that are no part of .venv, or take minutes",
    "storage.md": "they need plugins that are no part of .venv; tests/storage calls them",
}
NOT_RUN = {
    "cmp": "compares the tables of two long runs",
    "tar": "packs the predictions of a long run",
    "pre-commit": "writes into .git",
    "tensorboard": "serves until it is stopped",
    "find": "lists photographs that are not there",
    "sed": "writes a table of them",
}
"""Programs that are only looked for in the text, and why."""
PROGRAMS = ("snakemake", "brnf", "make", "pip", "python", "torchrun", *NOT_RUN)
NOTE = """\
#!/bin/bash
printf '%s\\0' "${0##*/}" "$PWD" "$@" $'\\n' >> "$CALLS"
[[ "${0##*/} $1" != 'brnf init' ]] || exec "$PYTHON" -c 'from brnf.use.cli import main; main()' "$@"
"""
"""Stands for each program; the folder that `brnf init` makes is there for what comes next."""
PRETENDED = {
    "<folder with VOCdevkit>": "data/VOCdevkit",
    "<folder with annotations>": "data/coco14",
    "{root: ...}": "{root: data/VOCdevkit}",
}
FILES = ("data/images.csv", "my/images.csv", "holiday/images.csv")
FOLDERS = ("data/VOCdevkit", "data/coco14/annotations", "maps/sfc", "photographs")
EXPORTED = "results/voc-animals/base/seed0/exported"


@dataclass(frozen=True)
class Block:
    """Lines of a document for a shell."""

    place: str
    text: str


def blocks() -> Iterator[Block]:
    """Yield the fenced blocks of bash, and each command within the text that lacks nothing."""
    known = set()
    for document in DOCUMENTS:
        if document.name in LEFT_OUT:
            continue
        name, text = document.relative_to(ROOT), document.read_text()
        for fence in FENCE.finditer(text):
            if fence[1] == "bash":
                yield Block(f"{name}:{text.count(chr(10), 0, fence.start()) + 2}", fence[2])
        bare = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
        for found in INLINE.finditer(bare):
            command = " ".join(found[1].split())
            if command not in known and not PART.search(command):
                known.add(command)
                yield Block(f"{name}:{bare.count(chr(10), 0, found.start()) + 1}", command)


class Place:
    """A folder that looks like the repository, in which programs only note how they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        for name in ("config", "workflow", "constraints.txt", "benchmarks", "brnf"):
            (folder / name).symlink_to(ROOT / name)
        for name in (*FOLDERS, ".venv/bin", EXPORTED):
            (folder / name).mkdir(parents=True)
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("image,labels\n")
        for name in PROGRAMS:
            program = folder / ".venv" / "bin" / name
            program.write_text(NOTE)
            program.chmod(0o755)

    def __call__(self, text: str) -> list[tuple[str, Path, list[str]]]:
        """Let bash run lines; return program, folder and words of every call."""
        environment = {
            "PATH": f"{self.folder / '.venv' / 'bin'}",
            "CALLS": str(self.calls),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
        }
        self.calls.touch()
        bash = [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            bash, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        calls = self.calls.read_text().split("\0\n\0")[:-1]
        self.calls.unlink()
        return [
            (program, Path(folder), words)
            for program, folder, *words in (call.split("\0") for call in calls)
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Return a function that puts small networks where those of the demo would be."""

    @cache
    def made() -> Results:
        return Results(tmp_path_factory.mktemp("networks"))

    def put(folder: Path) -> None:
        results, demo = made(), folder / "results" / "demo"
        demo.mkdir(parents=True, exist_ok=True)
        for name, source in (
            ("index", results.root / "index"),
            ("config.yaml", results.root / "config.yaml"),
            ("brnf", results.root / "base"),
        ):
            if not (demo / name).exists():
                (demo / name).symlink_to(source)
        if not (demo.parent / "custom").exists():
            (demo.parent / "custom").symlink_to(demo)
        photograph = results.records[0].path
        shutil.copy(photograph, folder / "photographs" / photograph.name)

    return put


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in blocks()])
def test_commands_run(
    block: Block,
    place: Place,
    snakemake: ForkedSnakemake,
    networks: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = place(block.text)
    assert calls
    while calls:
        program, folder, words = calls.pop(0)
        if program == "snakemake":
            plan(snakemake, folder, words)
        elif program == "make":
            calls += place(told_by_make(words))
        elif program == "pip":
            check_requirements(words)
        elif program in ("python", "torchrun"):
            calls += [("snakemake", folder, found) for found in check_module(words)]
        elif program == "brnf" and words[0] != "init":
            networks(folder)
            monkeypatch.chdir(folder)
            with pytest.raises(SystemExit) as ended:
                main(words)
            assert ended.value.code == 0


def plan(snakemake: ForkedSnakemake, folder: Path, words: list[str]) -> None:
    """Let Snakemake plan what it is asked for; no program stands behind SLURM's profiles here."""
    for said, meant in PRETENDED.items():
        words = [word.replace(said, meant) for word in words]
    if "coco" in " ".join(words):
        words = [word.replace("data/VOCdevkit", "data/coco14") for word in words]
    if "--workflow-profile" in words:
        at = words.index("--workflow-profile") + 1
        profile = yaml.safe_load((folder / words[at] / "config.yaml").read_text())
        words[at] = words[at] if "executor" not in profile else "none"
    made_up = "unstamped=adopt"  # the folder that exported maps would be in
    if "--config" in words:
        words.insert(words.index("--config") + 1, made_up)
    else:
        end = words.index("--") if "--" in words else len(words)
        words = [*words[:end], "--config", made_up, *words[end:]]
    status, output = snakemake(
        folder, "--dry-run", *words, snakefile=folder / "workflow" / "Snakefile"
    )
    assert status == 0, output


def told_by_make(words: list[str]) -> str:
    """Return the commands of our own that make would run, where it finds all installed."""
    made = ["make", "--dry-run", "--no-print-directory", "--old-file", ".venv/installed", *words]
    done = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.sub(r"\\\n\s*", " ", done.stdout).splitlines()
    return "\n".join(line for line in lines if OWN.match(line))


def check_requirements(words: list[str]) -> None:
    """Look for what is to be installed among the requirements of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = (project["dependencies"], *extras.values())
    known = {re.split("[<>=]", line)[0] for listed in lists for line in listed}
    assert words[0] == "install"
    for word in words[1:]:
        if extra := re.fullmatch(r"\.\[(\w+)\]", word):
            assert extra[1] in extras
        elif not word.startswith("-") and word not in (".", "constraints.txt", "pre-commit"):
            assert word in known


def check_module(words: list[str]) -> list[list[str]]:
    """Look for a module and its flags; return what it would call Snakemake with."""
    module, *rest = words[words.index("-m") + 1 :]
    if module == "pytest":
        assert all((ROOT / word).exists() for word in rest)
        return []
    assert find_spec(module), module
    flags = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help"}
    if module == "brnf.workflow.resume":
        return [rest[rest.index("--") + 1 :]] if "--" in rest else [rest]
    if module == "brnf.workflow.slurm":
        assert rest[:1] == ["settle"]
        return [rest[1:]] if rest[1:] else []
    if not rest or not module.startswith("brnf."):
        return []
    assert flags <= set(re.findall(r"--[\w.-]+", help_of(module)))
    return []


@cache
def help_of(module: str) -> str:
    """Return the help page of a module."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_program_that_is_not_known_is_told(place: Place) -> None:
    with pytest.raises(AssertionError, match="snakemaker: command not found"):
        place("snakemake --cores 1\nsnakemaker --cores 1")


def test_a_command_that_fails_is_told(place: Place, snakemake: ForkedSnakemake) -> None:
    for words in (["--configfile", "config/missing.yaml"], ["no_such_target"], ["--no-such-flag"]):
        with pytest.raises(AssertionError):
            plan(snakemake, place.folder, words)
    with pytest.raises(AssertionError):
        told_by_make(["no-such-target"])
    with pytest.raises(AssertionError):
        check_requirements(["install", "no-such-package"])
