"""Running Snakemake on this workflow in a folder of its own."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Workflow:
    """The workflow, called from a folder in which its results will stand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, fails: bool = False) -> str:
        """Run Snakemake and return what it prints; it must succeed unless it ``fails``."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--cores", "2", *words]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def jobs(self, *words: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans; none when nothing is to be done."""
        output = self("--dry-run", "--quiet", "rules", *words)
        if "Nothing to be done" in output:
            return {}
        table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
        assert table, output
        return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE) if rule != "all"}

    def pretend_index(self, name: str, splits: dict[str, int], scenes: bool = True) -> None:
        """Write an index with as many shards of each split as told, so that a dry run sees what follows it."""
        if scenes:
            (self.folder / "results" / name / "data").mkdir(parents=True)
        index = self.folder / "results" / name / "index"
        for split, shards in splits.items():
            (index / "shards" / split).mkdir(parents=True)
            for shard in range(shards):
                (index / "shards" / split / f"{shard}.csv").touch()
            for folder in ("splits", "masks"):
                (index / folder).mkdir(exist_ok=True)
                (index / folder / f"{split}.csv").touch()
        (index / "classes.csv").touch()


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    return Workflow(tmp_path)


@pytest.fixture(scope="module")
def lasting_workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return Workflow(tmp_path_factory.mktemp("workflow"))


@pytest.fixture
def config() -> Callable[[str], str]:
    return lambda name: str(ROOT / "config" / f"{name}.yaml")
