"""The jobs of a whole experiment, from Snakemake itself; folders for other Snakemakes."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.errors import UserError
from brnf.planning import jobs as jobs_module
from brnf.planning.jobs import (
    Job,
    configuration,
    hidden_jobs,
    read_jobs,
    snakemake,
    whole_jobs,
    workplace,
)
from brnf.planning.sizes import SplitSize, bytes_made

ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
DRY = """\
Building DAG of jobs...
localrule write_config:
    output: results/tiny/config.yaml
    log: results/tiny/logs/write_config.log
    jobid: 31
    wildcards: name=tiny
    resources: tmpdir=<TBD>, runtime=5

checkpoint index_images:
    input: results/tiny/data
    output: results/tiny/index
    jobid: 2
    benchmark: results/tiny/benchmarks/index_images.tsv
    reason: Missing output files: results/tiny/index
    wildcards: name=tiny

rule all:
    input: a, b
    jobid: 0
"""


def outputs_of_rules() -> dict[str, str]:
    """Return the lines of the outputs of each rule that has some of its own or of another rule."""
    workflow = ROOT / "workflow"
    included = re.findall(r'^include: "(.+)"$', (workflow / "Snakefile").read_text(), re.MULTILINE)
    text = "".join((workflow / name).read_text() for name in included)
    found = {}
    for block in re.split(r"^(?=rule |checkpoint |use rule )", text, flags=re.MULTILINE)[1:]:
        name = re.match(r"(?:rule|checkpoint) (\w+):|use rule (\w+) as (\w+) with:", block)
        assert name
        written = re.search(r"^    output:\n((?: {8}.*\n)+)", block, re.MULTILINE)
        if written or name[2] in found:
            found[name[1] or name[3]] = written[1] if written else found[name[2]]
    return found


def test_every_rule_that_writes_folders_or_arrays_has_a_size() -> None:
    rules = outputs_of_rules()
    assert len(rules) > 30
    large = {rule for rule, written in rules.items() if re.search(r"directory\(|\.h5", written)}
    sized = bytes_made(tiny()["tiny"], "base", SplitSize(1, 1, 1, 1, 1, 1)).keys()
    # Packs go to a storage, not to this disk.
    assert large - {"index_images", "pack_images"} == sized - {"train_base", "train_brnf"}
    assert sized <= rules.keys()


def test_jobs_are_read_from_a_dry_run() -> None:
    config, index, target = read_jobs(DRY)
    assert config == Job(
        "write_config",
        {"name": "tiny"},
        ("results/tiny/config.yaml",),
        log="results/tiny/logs/write_config.log",
    )
    assert index.inputs == ("results/tiny/data",)
    assert index.benchmark == "results/tiny/benchmarks/index_images.tsv" and index.log == ""
    assert target == Job("all", {}, (), ("a", "b"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def tiny(**changes: Any) -> dict[str, Experiment]:
    return read_experiments(merged({**TINY, "companions": {}}, changes))


def test_paths_lead_where_they_lead_here_and_nothing_of_it_is_removed(here: Path) -> None:
    for file in ("data/a.jpg", "results/other/exported/a.npy", "results/tiny/index/classes.csv"):
        (here / file).parent.mkdir(parents=True)
        (here / file).touch()
    with workplace(tiny()) as folder:
        assert (folder / "data" / "a.jpg").is_file()
        assert (folder / "results" / "other" / "exported" / "a.npy").is_file()
        assert not (folder / "results" / "tiny").exists()
        (folder / "results" / "tiny").mkdir()
    assert not folder.exists()
    assert (here / "data" / "a.jpg").is_file()
    assert sorted(os.listdir(here / "results")) == ["other", "tiny"]


def test_a_path_upwards_becomes_absolute(here: Path) -> None:
    deep = here / "deep"
    deep.mkdir()
    os.chdir(deep)
    (here / "maps").mkdir()
    (here / "weights.pth").touch()
    changes = {
        "base": {"import": {"folder": "../maps"}},
        "segmentation": {"weights": "caffe:../weights.pth"},
    }
    with workplace(tiny()) as folder:
        snakemake(folder, {**configuration(tiny()), **changes}, "--list-rules")
        written = yaml.safe_load((folder / ".snakemake" / "configuration.yaml").read_text())
    assert Path(written["base"]["import"]["folder"]).resolve() == here / "maps"
    weights = written["segmentation"]["weights"]
    assert Path(weights.removeprefix("caffe:")).resolve() == here / "weights.pth"


def test_every_base_and_refinement_is_planned_as_the_workflow_would(here: Path) -> None:
    (here / "maps").mkdir()
    one: dict[str, Any] = {"models": ["base"], "random_seeds": [0, 1]}
    experiments = tiny(
        base={"method": "import", "import": {"folder": "maps"}},
        companions={
            "with-sfc": {**one, "base": {"method": "sfc"}},
            "with-clip": {**one, "base": {"method": "clip_es"}},
            "walked": {**one, "pseudo_labels": {"refine": "random_walk"}},
        },
    )
    for name in experiments:
        for split, count in (("train", 2), ("val", 3)):
            shards = here / "results" / name / "index" / "shards" / split
            shards.mkdir(parents=True)
            for number in range(count):
                (shards / f"{number}.csv").touch()
    jobs = whole_jobs(experiments, Path("results"))
    found = {name: Counter[str]() for name in experiments}
    for job in jobs:
        found[job.wildcards.get("name", "tiny")][job.rule] += 1
        assert all(Path(file).parts[0] == "results" for file in job.outputs)
    assert found["tiny"]["import_maps"] == 2 and found["tiny"]["train_brnf"] == 1
    assert found["tiny"]["compute_cams"] == 2  # of brnf
    assert found["tiny"]["predict_segmentation"] == 2 * 3 and found["tiny"]["report"] == 1
    assert found["with-clip"]["compute_clip_maps"] == 2 * 2
    assert found["with-sfc"]["compute_cams"] == 2 * 2 == found["with-sfc"]["make_pseudo_labels"]
    walked = found["walked"]
    assert walked["walk_pseudo_labels"] == walked["make_boundary_labels"] == 2 * 2
    assert walked["train_boundaries"] == 2 and not walked["make_pseudo_labels"]
    assert all(
        counts["index_images"] == counts["render_scenes"] == counts["write_config"] == 1
        for counts in found.values()
    )
    assert {job.rule for job in jobs} <= outputs_of_rules().keys()
    assert all(job.benchmark and job.log for job in jobs if job.rule != "write_config")


def test_what_a_missing_index_hides_is_planned_once_and_only_where_it_is_missing(
    here: Path,
) -> None:
    experiments = tiny(companions=TINY["companions"])
    hidden = hidden_jobs(experiments, Path("results"))
    made_before = {"render_scenes", "index_images"}
    whole = whole_jobs(experiments, Path("results"))
    assert {job.identity for job in hidden} == {
        job.identity for job in whole if job.rule not in made_before
    }
    shards = here / "results" / "tiny" / "index" / "shards" / "train"
    shards.mkdir(parents=True)
    (shards / "0.csv").touch()
    companion = hidden_jobs(experiments, Path("results"))
    assert companion and {job.wildcards["name"] for job in companion} == {"tiny-inseparable"}


def test_where_every_index_is_there_nothing_is_planned_for_the_estimate(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = tiny()
    for name in experiments:
        (here / "results" / name / "index").mkdir(parents=True)
    monkeypatch.setattr(jobs_module, "snakemake", None)
    assert hidden_jobs(experiments, Path("results")) == []


def test_without_masks_no_measurement_is_planned(here: Path) -> None:
    found = {}
    for column, cell in (("", ""), (",mask", ",m.png")):
        (here / "own.csv").write_text(f"image,labels{column}\na.png,cat{cell}\n")
        experiments = tiny(
            dataset={"kind": "table", "table": "own.csv", "train": "train", "eval_split": "train"},
            companions=None,
            models=["base"],
            protocol="auto",
        )
        jobs = whole_jobs(experiments, Path("results"))
        found[column] = Counter(job.rule for job in jobs)
    assert not {"evaluate", "tabulate"} & found[""].keys() and found[""]["draw"] == 3
    assert found[""]["predict_segmentation"] == 2
    assert found[",mask"]["evaluate"] == 6 and found[",mask"]["tabulate"] == 1


def test_a_failing_job_explains_itself_in_its_own_line(here: Path) -> None:
    Image.new("RGB", (40, 40)).save(here / "a.png")
    (here / "b.png").write_bytes((here / "a.png").read_bytes()[:60])
    (here / "own.csv").write_text("image,labels,split\na.png,cat,train\nb.png,cat,train\n")
    dataset = {"kind": "table", "table": "own.csv", "train": "train", "eval_split": "train"}
    experiments = tiny(dataset={**dataset, "val": "train"}, protocol="auto")
    lines: list[str] = []
    with (
        workplace(experiments) as folder,
        pytest.raises(UserError, match=r"b\.png: ") as caught,
    ):
        config = configuration(experiments)
        snakemake(folder, config, "results/tiny/index", watch=lines.append)
    assert "\n" not in str(caught.value) and not folder.exists()
    assert any("index_images" in line for line in lines)


def test_a_configuration_that_is_refused_is_one_line(here: Path) -> None:
    with workplace(tiny()) as folder, pytest.raises(UserError) as caught:
        wrong = merged(configuration(tiny()), {"flow": {"blok": 2}})
        snakemake(folder, wrong, "--dry-run")
    assert str(caught.value) == ("configuration: flow.blok: unknown key; did you mean 'blocks'?")
