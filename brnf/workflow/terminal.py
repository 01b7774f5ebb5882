"""What Snakemake says of jobs on the terminal: a line when one starts, ends or fails, which names
the rule, the experiment, the model and the seed. Snakemake's own log keeps everything.

A ``message:`` in the rules would name them, too, but takes the place of the files in a dry run.
"""

import logging
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler
from snakemake_interface_logger_plugins.common import LogEvent

__all__ = ["name_jobs", "named"]

ORDER = ("name", "model", "seed", "product", "split", "shard")
"""Wildcards in the order in which they are said; others follow."""
WITH_KEY = ("seed", "shard")
"""Numbers, which say nothing without their key."""
IDLE = re.compile(r"Select jobs to execute|Execute \d+ jobs")
"""What Snakemake says of itself between two jobs."""
TAIL = 10
"""Lines of a log that are shown of a job which has not said why it failed."""


def named(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return what a job is called.

    >>> named("compute_cams", {"name": "demo", "model": "brnf", "split": "train", "shard": "3",
    ...                        "seed": "0"})
    'compute_cams: demo, brnf, seed 0, train shard 3'
    >>> named("report", {})
    'report'
    """
    keys = [key for key in ORDER if key in wildcards]
    keys += [key for key in wildcards if key not in ORDER]
    said = {key: f"{key} {wildcards[key]}" if key in WITH_KEY else wildcards[key] for key in keys}
    if {"split", "shard"} <= said.keys():
        said["split"] += f" {said.pop('shard')}"
    return f"{rule}: {', '.join(said.values())}" if said else rule


def name_jobs(logger: logging.Logger, quiet: Collection[str], dry_run: bool) -> None:
    """Let a run say its jobs in lines of this module, where the profile has made reasons quiet.

    Arguments:
        logger: Snakemake's; a logger plugin says jobs in its own way.
        quiet: what Snakemake does not say.
        dry_run: jobs are said with their files, which is what it is for.
    """
    if dry_run or "reason" not in quiet:
        return
    jobs: dict[int, str] = {}

    def note(record: logging.LogRecord) -> bool:
        if _event(record) == LogEvent.JOB_INFO:
            told = vars(record)
            jobs[told["jobid"]] = named(told["rule_name"], told["wildcards"])
        return True

    for handler in logger.handlers:
        if isinstance(handler, ColorizingTextHandler):
            handler.setFormatter(Lines(handler.formatter or logging.Formatter(), jobs))
            logger.addFilter(note)


class Lines(logging.Formatter):
    """Say each event of a job in one line, and everything else as before.

    Arguments:
        others: says everything else.
        jobs: number -> what the job is called.
    """

    def __init__(self, others: logging.Formatter, jobs: Mapping[int, str]) -> None:
        super().__init__()
        self._others, self._jobs = others, jobs
        self._done: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, "" for none."""
        told: dict[str, Any] = vars(record)
        match _event(record):
            case LogEvent.JOB_INFO:
                return _line("starts", self._jobs[told["jobid"]])
            case LogEvent.JOB_FINISHED:  # the count of steps follows
                self._done.append(self._called(told["job_id"]))
                return ""
            case LogEvent.PROGRESS:
                done, self._done = "; ".join(self._done), []
                return _line("done", f"{done} ({told['done']} of {told['total']} steps)")
            case LogEvent.JOB_ERROR:
                return _failed(self._called(told["jobid"]), told["log"])
            case LogEvent.ERROR if "CalledProcessError" in record.getMessage():
                return ""  # the whole shell command, of a job that is reported next
            case _ if IDLE.match(str(record.msg)):
                return ""
        return self._others.format(record)

    def _called(self, job: int) -> str:
        return self._jobs.get(job, f"job {job}")


def _event(record: logging.LogRecord) -> LogEvent | None:
    return getattr(record, "event", None)


def _line(what: str, said: str) -> str:
    return f"{time.strftime('%H:%M:%S')} {what:6} {said}"


def _failed(job: str, logs: Collection[str]) -> str:
    """Return what is said of a job that failed: its name, and what its log says of the reason."""
    said = [_line("failed", f"{job} (log: {', '.join(logs)})" if logs else job)]
    for log in map(Path, logs):
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        reasons = [line for line in lines if line.startswith("error: ")]
        said += [f"    {line}" for line in reasons or lines[-TAIL:]]
    return "\n".join(said)
