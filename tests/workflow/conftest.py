"""Running Snakemake on this workflow in a folder of its own."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_snakemake import ForkedSnakemake, forked_snakemake

ROOT = Path(__file__).parents[2]


def _adopting(words: tuple[str, ...]) -> list[str]:
    """Return words for Snakemake by which results that a test has made up are taken for real."""
    if any("unstamped" in word for word in words):
        return list(words)
    if "--config" in words:
        place = words.index("--config") + 1
        return [*words[:place], "unstamped=adopt", *words[place:]]
    return ["--config", "unstamped=adopt", *words]


class Workflow:
    """The workflow, called from a folder in which its results will stand."""

    def __init__(self, folder: Path, run: ForkedSnakemake) -> None:
        self.folder, self._run, self._pretends = folder, run, False

    def elsewhere(self, folder: Path) -> "Workflow":
        """Return the workflow called from another folder."""
        return Workflow(folder, self._run)

    def __call__(self, *words: str, fails: bool = False) -> str:
        """Run Snakemake and return what it prints; it must succeed unless it ``fails``."""
        status, output = self._run(self.folder, *(_adopting(words) if self._pretends else words))
        assert (status != 0) == fails, output
        return output

    def jobs(self, *words: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans; none when nothing is to be done."""
        output = self("--dry-run", "--quiet", "rules", *words)
        if "Nothing to be done" in output:
            return {}
        table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
        assert table, output
        return {
            rule: int(count)
            for rule, count in re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE)
            if rule != "all"
        }

    def pretend_index(
        self, name: str, splits: dict[str, int], scenes: bool = True, masks: bool = True
    ) -> None:
        """Write an index with as many shards of each split as told, so that a dry run sees what
        follows it.
        """
        self._pretends = True
        if scenes:
            (self.folder / "results" / name / "data").mkdir(parents=True)
        index = self.folder / "results" / name / "index"
        for split, shards in splits.items():
            (index / "shards" / split).mkdir(parents=True)
            for shard in range(shards):
                (index / "shards" / split / f"{shard}.csv").touch()
            for folder, text in (
                ("splits", ""),
                ("masks", "id,digest\none,pretended\n" if masks else "id,digest\n"),
            ):
                (index / folder).mkdir(exist_ok=True)
                (index / folder / f"{split}.csv").write_text(text)
        for file in ("classes.csv", "summary.md"):
            (index / file).touch()


@pytest.fixture(scope="session")
def snakemake() -> Iterator[ForkedSnakemake]:
    with forked_snakemake() as run:
        yield run


@pytest.fixture
def workflow(tmp_path: Path, snakemake: ForkedSnakemake) -> Workflow:
    return Workflow(tmp_path, snakemake)


@pytest.fixture(scope="module")
def lasting_workflow(
    tmp_path_factory: pytest.TempPathFactory, snakemake: ForkedSnakemake
) -> Workflow:
    return Workflow(tmp_path_factory.mktemp("workflow"), snakemake)


@pytest.fixture
def config() -> Callable[[str], str]:
    return lambda name: str(ROOT / "config" / f"{name}.yaml")
