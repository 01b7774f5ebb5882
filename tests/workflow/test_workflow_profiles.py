"""Profiles, and what the rules ask for: the same in the rules, the stages and the documentation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "workflow" / "profiles"
OF_ONE_PROFILE = {
    "keep-going"
}  # a laptop stops at the first error, a cluster finishes what does not depend on it
TOY = """
if "found" in config:
    workflow.register_resource("gpu", config["found"])  # as rules/common.smk

rule all:
    input: expand("{number}", number=range(3))
rule train:
    output: "{number}"
    resources: gpu=1
    shell: "{config[python]} train.py {wildcards.number} {config[at_once]}"
"""
TRAIN = """
import os, sys, time
from pathlib import Path

number, at_once = sys.argv[1], int(sys.argv[2])
for folder in ("begun", "running"):
    os.makedirs(f"{folder}/{number}")
Path(number).write_text(str(len(os.listdir("running"))))
while len(os.listdir("begun")) < at_once:
    time.sleep(0.01)
time.sleep(0.3)
os.rmdir(f"running/{number}")
"""
"""Write how many run, oneself included; stay until as many have begun as may run at once, and then
as long as one too many would need to begin: a slow machine may overlook it, but fails no other."""


def settings(profile: str) -> dict[str, object]:
    return dict(yaml.safe_load((PROFILES / profile / "config.yaml").read_text()))


def rules() -> dict[str, dict[str, str]]:
    """Return what each rule that runs a stage asks for, read from the rule files; a rule made of
    another asks for the same, but for what it says itself.
    """
    found: dict[str, dict[str, str]] = {}
    snakefile = ROOT / "workflow" / "Snakefile"
    for file in re.findall(r'^include: "(.+)"$', snakefile.read_text(), re.M):
        for head, name, body in re.findall(
            r"^((?:rule|checkpoint|use rule)) ([^\n]+)\n(.*?)(?=^\S|\Z)",
            (snakefile.parent / file).read_text(),
            re.M | re.S,
        ):
            if head == "use rule":
                original, copy = re.fullmatch(r"(\w+) as (\w+) with:", name).groups()  # type: ignore[union-attr]
                found[copy] = found[original] | asked_in(body)
            elif "resources:" in body and "localrule:" not in body:
                found[name.rstrip(":")] = {"stage": "", "threads": ""} | asked_in(body)
    del found["stage"]
    return found


def asked_in(body: str) -> dict[str, str]:
    """Return the resources, the stage and the threads that the text of a rule names."""
    found = dict(
        re.findall(
            r"^        (gpu|mem_mb|runtime|cpus_per_task)=(?:memory\()?(\w+)(?: \* DEVICES)?\)?,$",
            body,
            re.M,
        )
    )
    for key, pattern in (
        ("stage", r"-m brnf\.stages\.(\w+)|\*\*stage\(\s*\"(\w+)\""),
        ("threads", r"^    threads: (\d+)$"),
    ):
        if match := re.search(pattern, body, re.M):
            found[key] = next(filter(None, match.groups()))
    return found


@pytest.mark.parametrize("profile", [path.name for path in PROFILES.iterdir()])
def test_a_profile_replaces_the_default_one_and_so_repeats_it(profile: str) -> None:
    default = {
        key: value for key, value in settings("default").items() if key not in OF_ONE_PROFILE
    }
    assert {key: settings(profile)[key] for key in default} == default


@pytest.mark.parametrize("profile", ["slurm", "slurm-generic"])
def test_clusters_retry(profile: str) -> None:
    assert settings(profile)["retries"] == 2


def test_a_rule_asks_for_a_gpu_if_its_stage_computes_on_a_device() -> None:
    for name, asked in rules().items():
        stage = asked["stage"]
        source = (ROOT / "brnf" / "stages" / f"{stage}.py").read_text() if stage else ""
        ways = ("runtime.torch_device(", "training_device(runtime", "runtime.gpu(")
        computes = any(way in source for way in ways)
        runs_others = name == "plan"  # it runs all stages, on few images
        assert ("gpu" in asked) == (computes or runs_others), name
        assert {"mem_mb", "runtime"} <= set(asked), name


def test_the_documentation_tells_what_each_rule_asks_for() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\S*) \| (\S+) \| (\d+) \| (\d+) \|$",
        (ROOT / "docs" / "cluster.md").read_text(),
        re.M,
    )
    cpus, gpus = {"CPUS": "threads+workers"}, {"DEVICES": "devices"}
    assert {row[0]: row[1:] for row in rows} == {
        name: (
            gpus.get(asked.get("gpu", ""), asked.get("gpu", "")),
            cpus.get(asked.get("cpus_per_task", ""), asked["threads"] or "threads"),
            asked["mem_mb"],
            asked["runtime"],
        )
        for name, asked in rules().items()
    }


@pytest.mark.parametrize(
    ("profile", "words", "found", "at_once"),
    [
        ("gpu", [], "", 1),
        ("gpu", ["--resources", "gpu=2"], "", 2),
        ("default", [], "found=1", 1),
        ("default", [], "found=2", 2),
    ],
)
def test_no_more_trainings_run_at_once_than_there_are_gpus(
    tmp_path: Path, profile: str, words: list[str], found: str, at_once: int
) -> None:
    (tmp_path / "Snakefile").write_text(TOY)
    (tmp_path / "train.py").write_text(TRAIN)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "3",
        "--workflow-profile",
        str(PROFILES / profile),
        *words,
    ]
    command += ["--config", f"python={sys.executable}", f"at_once={at_once}", *found.split()]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    running = [int((tmp_path / str(number)).read_text()) for number in range(3)]
    assert max(running) == at_once, running
