"""GPU jobs are counted without a profile, and the paper's setting does not begin on a CPU."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brnf.errors import UserError
from brnf.workflow.gpus import check_paper, gpu_jobs, gpu_line

NO_GPU = "#!/bin/sh\necho 'torch finds no GPU'\n"


@pytest.mark.parametrize(
    ("device", "found", "jobs"),
    [("auto", 2, 2), ("auto", 0, None), ("cuda", 2, 1), ("cuda:1", 0, 1), ("cpu", 2, None)],
)
def test_as_many_gpu_jobs_run_as_there_are_gpus(device: str, found: int, jobs: int | None) -> None:
    assert gpu_jobs(device, found) == jobs


def test_a_named_device_says_nothing_of_others() -> None:
    assert gpu_line("cuda:1", 1) == gpu_line("cpu", None) == ""


def test_gpu_jobs_are_counted_without_a_profile(
    workflow: Any, config: Callable[[str], str]
) -> None:
    words = ("--configfile", config("tiny"), "--config", "device=cuda")
    wanted = ("--", "results/tiny/config.yaml")
    counted = workflow(*words, "--quiet", "reason", *wanted)
    assert re.search(r"Provided resources: gpu=.*\b1\b", counted), counted
    more = ("name=other", "--resources", "gpu=4", "--quiet", "reason")
    told = workflow(*words, *more, "--", "results/other/config.yaml")
    assert re.search(r"Provided resources: gpu=.*\b4\b", told), told


def python(folder: Path, text: str) -> str:
    """Write a program that answers instead of Python."""
    program = folder / "python"
    program.write_text(text)
    program.chmod(0o755)
    return str(program)


def test_the_papers_setting_does_not_begin_on_a_cpu(tmp_path: Path) -> None:
    settings = {"protocol": "paper", "device": "auto"}
    with pytest.raises(UserError, match=r"paper, which needs a GPU \(torch finds no GPU\); set"):
        check_paper(settings, python(tmp_path, NO_GPU))
    check_paper(settings | {"device": "cpu"}, python(tmp_path, NO_GPU))
    check_paper(settings | {"protocol": "bench"}, python(tmp_path, NO_GPU))
    check_paper(settings, python(tmp_path, "#!/bin/sh\n"))
    check_paper(settings, python(tmp_path, "#!/bin/sh\necho no torch\nexit 1\n"))
