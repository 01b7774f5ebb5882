"""The jobs of a whole experiment, as Snakemake itself plans them, before there is an image index.

Snakemake cannot look past the checkpoint that makes the index. In a temporary folder, next to an
index that is pretended, it can: a dry run lists every job with its files.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import yaml

from brnf.config.experiment import Experiment
from brnf.data.index import has_images, has_masks
from brnf.data.spreadsheet import read_rows
from brnf.data.table import COLUMNS, NEEDED
from brnf.engine.controller import CONTROLLER, MINIATURE
from brnf.errors import UserError
from brnf.shipped import SNAKEFILE

__all__ = ["Job", "configuration", "hidden_jobs", "read_jobs", "shard_count", "snakemake"]
__all__ += ["whole_jobs", "workplace"]

OWN = ("results", ".snakemake")
"""What a temporary folder has of its own; all else is where it is for the user."""
HEAD = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):\Z")
FIELD = re.compile(r"    (input|output|log|benchmark|wildcards): (.*)\Z")
UPWARDS = re.compile(r"(caffe:)?(\.\./.*)\Z")
SECONDS_TO_END = 30
NO_MASK, ONE_MASK = "id,digest\n", "id,digest\none,pretended\n"


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has planned.

    Attributes:
        rule: its name.
        wildcards: by name.
        outputs: files and folders.
        inputs: files and folders.
        log: its first file, "" without one.
        benchmark: file, "" without one.
    """

    rule: str
    wildcards: Mapping[str, str]
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    log: str = ""
    benchmark: str = ""

    @property
    def kind(self) -> str:
        """Return what is common to jobs that differ in their seed and shard only."""
        values = (value for key, value in self.wildcards.items() if key not in ("seed", "shard"))
        return " ".join((self.rule, *values))

    @property
    def identity(self) -> tuple[str, ...]:
        """Return the rule and the values of the wildcards by their names."""
        return (self.rule, *(value for _, value in sorted(self.wildcards.items())))

    def of(self, experiments: Mapping[str, Experiment]) -> Experiment:
        """Return the experiment that the job belongs to; the report is of the main one."""
        return experiments[self.wildcards.get("name", next(iter(experiments)))]


def shard_count(experiment: Experiment, results: Path, split: str) -> int:
    """Return how many shards of a split hold an image, all of them as long as there is no index."""
    there = (results / experiment.name / "index" / "shards" / split).glob("*")
    return len(list(there)) or int(experiment.settings["shards"])


def whole_jobs(experiments: Mapping[str, Experiment], results: Path) -> list[Job]:
    """Return every job that the target `all` has when nothing is made yet.

    Arguments:
        experiments: by name, the main one first.
        results: folder of all results, whose indices tell how many shards there are.

    Raises:
        UserError: Snakemake cannot plan them.
    """
    with workplace(experiments) as folder:
        first = _planned(experiments, folder)
        behind = _planned_behind_index(experiments, folder, results)
    known = {job.identity for job in behind}
    before = [job for job in first if job.identity not in known]
    return [job for job in (*before, *behind) if job.outputs]


def hidden_jobs(experiments: Mapping[str, Experiment], results: Path) -> list[Job]:
    """Return the jobs of the target `all` that follow the image index, of experiments without one.

    It costs a dry run, and none where every index is there.

    Arguments:
        experiments: by name, the main one first.
        results: folder of all results.

    Raises:
        UserError: Snakemake cannot plan them.
    """
    if all((results / name / "index").is_dir() for name in experiments):
        return []
    with workplace(experiments) as folder:
        jobs = _planned_behind_index(experiments, folder, results)
    main = next(iter(experiments))
    return [
        job
        for job in jobs
        if job.outputs and not (results / job.wildcards.get("name", main) / "index").is_dir()
    ]


def _planned(experiments: Mapping[str, Experiment], folder: Path) -> list[Job]:
    settings = {**configuration(experiments), "unstamped": "adopt"}
    return read_jobs(snakemake(folder, settings, "--dry-run", "--quiet", "host"))


def _planned_behind_index(
    experiments: Mapping[str, Experiment], folder: Path, results: Path
) -> list[Job]:
    for experiment in experiments.values():
        _pretend_index(folder / "results" / experiment.name, experiment, results)
    return _planned(experiments, folder)


def configuration(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """Return one configuration of an experiment and its companions, all keys of each."""
    main, *others = (experiment.record() for experiment in experiments.values())
    companions = {one.pop("name"): one for one in others}
    return {**main, "companions": companions}


@contextmanager
def workplace(experiments: Mapping[str, Experiment]) -> Iterator[Path]:
    """Make a folder for another Snakemake, in which all paths lead where they lead here.

    Arguments:
        experiments: whose results are not there; those of others are.
    """
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="brnf-plan-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "results").mkdir()
        links = [entry for entry in here.iterdir() if entry.name not in OWN]
        links += [one for one in here.glob("results/*") if one.name not in experiments]
        for entry in links:
            (folder / entry.relative_to(here)).symlink_to(entry)
        yield folder  # what removes the folder follows no link


def snakemake(
    folder: Path,
    config: Mapping[str, Any],
    *words: str,
    watch: Callable[[str], None] = lambda line: None,
) -> str:
    """Run this workflow in another folder, one job at a time, and return what it prints.

    Arguments:
        folder: see :func:`workplace`.
        config: all that differs from the defaults.
        words: further arguments.
        watch: gets each line as it comes.

    Raises:
        UserError: it fails; with the line by which the failing job explains itself.
    """
    path = folder / ".snakemake" / "configuration.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(_anchored(config, Path.cwd()), sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--cores", "1"]
    command += ["--workflow-profile", "none", "--executor", "local", *words]
    dropped = ("SNAKEMAKE_PROFILE", CONTROLLER)
    process = subprocess.Popen(
        [*command, "--configfile", str(path)],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in dropped}
        | {MINIATURE: "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its jobs end with it
    )
    assert process.stdout
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            watch(line.rstrip("\n"))
        status = process.wait()
    finally:
        while process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
    if not status:
        return "".join(lines)
    told = [line.removeprefix("error: ").strip() for line in lines if line.startswith("error: ")]
    if not told:
        print("".join(lines), end="", file=sys.stderr)
    raise UserError(told[0] if told else "plan: the workflow failed as above says")


def read_jobs(output: str) -> list[Job]:
    """Read the jobs that a run of Snakemake prints, dry or not."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in output.splitlines():
        if head := HEAD.match(line):
            found.append((head[1], {}))
        elif found and (field := FIELD.match(line)):
            found[-1][1].setdefault(field[1], field[2])

    def listed(fields: Mapping[str, str], name: str) -> tuple[str, ...]:
        return tuple(fields[name].split(", ")) if name in fields else ()

    return [
        Job(
            rule,
            dict(part.split("=", 1) for part in listed(fields, "wildcards")),
            listed(fields, "output"),
            listed(fields, "input"),
            "".join(listed(fields, "log")[:1]),
            fields.get("benchmark", ""),
        )
        for rule, fields in found
    ]


def _anchored(value: Any, here: Path) -> Any:
    """Return settings in which paths that lead upwards are absolute; others lead through links."""
    if isinstance(value, Mapping):
        return {key: _anchored(part, here) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_anchored(part, here) for part in value]
    if isinstance(value, str) and (found := UPWARDS.match(value)):
        return f"{found[1] or ''}{here / found[2]}"
    return value


def _pretend_index(folder: Path, experiment: Experiment, results: Path) -> None:
    """Write files into an experiment's folder where the image index will have some: empty ones, but
    of masks.
    """
    if experiment.settings["dataset"]["kind"] == "scenes":
        (folder / "data").mkdir(parents=True)
    files = {"classes.csv": "", "summary.md": ""}
    for split in experiment.splits():
        images, masks = _expected(experiment, results / experiment.name / "index", split)
        if not images:
            continue
        count = shard_count(experiment, results, split)
        files |= {f"shards/{split}/{number}.csv": "" for number in range(count)}
        files |= {f"splits/{split}.csv": "", f"masks/{split}.csv": ONE_MASK if masks else NO_MASK}
    for name, content in files.items():
        (folder / "index" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "index" / name).write_text(content)


def _expected(experiment: Experiment, index: Path, split: str) -> tuple[bool, bool]:
    """Return whether a split will hold images, and masks: as in the index, else as a table says."""
    if (index / "splits").is_dir():
        return has_images(index, split), has_masks(index, split)
    dataset = experiment.settings["dataset"]
    if dataset["kind"] != "table":
        return True, True
    rows = list(read_rows(Path(dataset["table"]), COLUMNS, NEEDED))
    named = {name for row in rows for name in row.cells.get("split", "").lower().split(";")}
    masks = any(row.cells.get("mask") for row in rows)
    return split != dataset["val"] or split in named or masks, masks
