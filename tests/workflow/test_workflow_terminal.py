"""The terminal names jobs by experiment, model and seed, and shows a mistake without the shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "workflow" / "profiles" / "default"
LOG = "results/demo/brnf/seed3/1.log"
TOY = """
from snakemake.logging import logger

from brnf.workflow.terminal import name_jobs

output = workflow.output_settings
name_jobs(logger, {part.name.lower() for part in output.quiet or ()}, output.dryrun)


rule all:
    input:
        expand("results/demo/brnf/seed3/{shard}.h5", shard=[0, 1]),


rule compute:
    output:
        "results/{name}/{model}/seed{seed}/{shard}.h5",
    log:
        "results/{name}/{model}/seed{seed}/{shard}.log",
    params:
        told=lambda wildcards: config.get("told", ""),
    shell:
        "if [ -n '{params.told}' ] && [ {wildcards.shard} = 1 ]; then"
        " echo 'before' >> {log}; echo '{params.told}' >> {log}; exit 2; fi; touch {output}"
"""


def said(folder: Path, *words: str) -> tuple[int, str]:
    """Run the toy with the settings of the profile and return its status and what it prints."""
    (folder / "Snakefile").write_text(TOY)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--workflow-profile"]
    done = subprocess.run(
        [*command, str(PROFILE), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, re.sub(r"^\d\d:\d\d:\d\d ", "", done.stdout, flags=re.MULTILINE)


def test_a_job_is_said_in_two_lines_that_name_it(tmp_path: Path) -> None:
    status, output = said(tmp_path)
    assert status == 0, output
    lines = [line for line in output.splitlines() if line.startswith(("starts", "done"))]
    first, second = re.findall(r"^starts compute: .* shard (\d)$", output, re.MULTILINE)
    job = "compute: demo, brnf, seed 3, shard"
    assert lines == [
        f"starts {job} {first}",
        f"done   {job} {first} (1 of 3 steps)",
        f"starts {job} {second}",
        f"done   {job} {second} (2 of 3 steps)",
        "starts all",
        "done   all (3 of 3 steps)",
    ]
    assert "jobid" not in output and "Select jobs" not in output


@pytest.mark.parametrize("told", ["error: a.csv: no such row", "Segmentation fault"])
def test_a_failed_job_shows_its_reason_and_no_shell(tmp_path: Path, told: str) -> None:
    status, output = said(tmp_path, "--config", f"told={told}")
    assert status == 1
    failed = f"failed compute: demo, brnf, seed 3, shard 1 (log: {LOG})\n"
    before = "" if told.startswith("error: ") else "    before\n"
    assert f"{failed}{before}    {told}\n" in output
    assert "touch" not in output and "CalledProcessError" not in output
    assert not re.search(r"^error: ", output, re.MULTILINE)  # the stage has said it itself
    [log] = (tmp_path / ".snakemake" / "log").iterdir()
    assert "touch" in log.read_text()  # where the whole command is looked up


@pytest.mark.parametrize("words", [("--dry-run",), ("--quiet", "host")])
def test_a_dry_run_and_the_word_for_it_show_files(tmp_path: Path, words: tuple[str, ...]) -> None:
    status, output = said(tmp_path, *words)
    assert status == 0 and "rule compute:\n    output: results/demo/brnf/seed3/" in output


def test_a_run_says_jobs_as_the_profile_has_it() -> None:
    quiet = yaml.safe_load((PROFILE / "config.yaml").read_text())["quiet"]
    assert "reason" in quiet and not {"rules", "progress"} & set(quiet)
