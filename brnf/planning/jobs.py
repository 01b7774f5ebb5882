"""The jobs of a whole experiment, as Snakemake itself plans them, before there is an image index.

Snakemake cannot look past the checkpoint that makes the index. In a temporary folder, next to an
index that is pretended, it can: a dry run lists every job with its files.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import yaml

from brnf.config.experiment import Experiment
from brnf.engine.controller import CONTROLLER
from brnf.errors import UserError
from brnf.fingerprint import ROOT

__all__ = ["Job", "configuration", "read_jobs", "snakemake", "whole_jobs", "workplace"]

SNAKEFILE = ROOT / "workflow" / "Snakefile"
OWN = ("results", ".snakemake")
"""What a temporary folder has of its own; all else is where it is for the user."""
HEAD = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^    (input|output|log|benchmark|wildcards): (.*)$")
UPWARDS = re.compile(r"^(caffe:)?(\.\./.*)$")
SECONDS_TO_END = 30


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


def whole_jobs(
    experiments: Mapping[str, Experiment], shards: Callable[[str, str], int]
) -> list[Job]:
    """Return every job that the target `all` has when nothing is made yet.

    Arguments:
        experiments: by name, the main one first.
        shards: from the names of an experiment and a split to how many shards hold an image.

    Raises:
        UserError: Snakemake cannot plan them.
    """
    with workplace(experiments) as folder:
        config = configuration(experiments)
        dry = partial(snakemake, folder, config, "--dry-run", "--quiet", "host")
        first = read_jobs(dry())
        for name, experiment in experiments.items():
            _pretend_index(folder / "results" / name, experiment, shards)
        behind = read_jobs(dry())
    known = {(job.rule, *job.wildcards.values()) for job in behind}
    before = [job for job in first if (job.rule, *job.wildcards.values()) not in known]
    return [job for job in (*before, *behind) if job.outputs]


def configuration(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """Return one configuration of an experiment and its companions, all keys of each."""
    main, *others = (experiment.record() for experiment in experiments.values())
    without_name = [{key: value for key, value in one.items() if key != "name"} for one in others]
    companions = dict(zip(list(experiments)[1:], without_name, strict=True))
    return {**main, "companions": companions}


@contextmanager
def workplace(experiments: Mapping[str, Experiment]) -> Iterator[Path]:
    """Make a folder for another Snakemake, in which all paths lead where they lead here.

    Arguments:
        experiments: whose results are not there; those of others are.
    """
    with tempfile.TemporaryDirectory(prefix="brnf-plan-") as name:
        folder = Path(name)
        (folder / "results").mkdir()
        here = Path.cwd()
        links = [entry for entry in here.iterdir() if entry.name not in OWN]
        if (here / "results").is_dir():
            links += [one for one in (here / "results").iterdir() if one.name not in experiments]
        for entry in links:
            (folder / entry.relative_to(here)).symlink_to(entry)
        try:
            yield folder
        finally:
            for entry in folder.iterdir():
                if not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)


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
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("SNAKEMAKE_PROFILE", CONTROLLER)
    }
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--cores", "1"]
    command += ["--workflow-profile", "none", "--executor", "local", *words]
    process = subprocess.Popen(
        [*command, "--configfile", str(path)],
        cwd=folder,
        env=environment,
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
        _end(process)
    if status:
        told = [line for line in lines if line.startswith("error: ")]
        if not told:
            print("".join(lines), end="", file=sys.stderr)
        raise UserError(
            told[0].removeprefix("error: ").strip()
            if told
            else "plan: the workflow failed as above says"
        )
    return "".join(lines)


def read_jobs(output: str) -> list[Job]:
    """Read the jobs that a dry run prints."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in output.splitlines():
        if head := HEAD.match(line):
            found.append((head[1], {}))
        elif found and (field := FIELD.match(line)):
            found[-1][1].setdefault(field[1], field[2])
    return [
        Job(
            rule,
            dict(part.split("=", 1) for part in _listed(fields, "wildcards")),
            _listed(fields, "output"),
            _listed(fields, "input"),
            next(iter(_listed(fields, "log")), ""),
            fields.get("benchmark", ""),
        )
        for rule, fields in found
    ]


def _listed(fields: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(fields[name].split(", ")) if name in fields else ()


def _end(process: subprocess.Popen[str]) -> None:
    """End a Snakemake that still lives, and its jobs."""
    while process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)


def _anchored(value: Any, here: Path) -> Any:
    """Return settings in which paths that lead upwards are absolute; others lead through links."""
    if isinstance(value, Mapping):
        return {key: _anchored(part, here) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_anchored(part, here) for part in value]
    if isinstance(value, str) and (found := UPWARDS.match(value)):
        return f"{found[1] or ''}{here / found[2]}"
    return value


def _pretend_index(
    results: Path, experiment: Experiment, shards: Callable[[str, str], int]
) -> None:
    """Write empty files where the image index will have some."""
    if experiment.settings["dataset"]["kind"] == "scenes":
        (results / "data").mkdir(parents=True)
    index = results / "index"
    for split in experiment.splits():
        for number in range(shards(experiment.name, split)):
            _touch(index / "shards" / split / f"{number}.csv")
        for part in ("splits", "masks"):
            _touch(index / part / f"{split}.csv")
    _touch(index / "classes.csv")


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
