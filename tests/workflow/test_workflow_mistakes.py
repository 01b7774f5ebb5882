"""Mistakes that show only while jobs are planned or run end in one line, too; companions and
variants keep to themselves.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brnf.config.experiment import read_experiments

Config = Callable[[str], str]
ROOT = Path(__file__).parents[2]
COMPANION = "results/tiny-inseparable/config.yaml"


def error(output: str) -> str:
    """Return the one line of an error."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in output, output
    return lines[0]


def test_a_companion_belongs_to_one_experiment(workflow: Any, config: Config) -> None:
    words = ("--configfile", config("tiny"))
    workflow(*words, "--", COMPANION)
    record = (workflow.folder / COMPANION).read_text()
    assert record.startswith("# companion of tiny\n")
    assert yaml.safe_load(record)["name"] == "tiny-inseparable"
    other = ("--config", "name=other", "brnf={steps: 1}", "--")
    said = error(workflow(*words, *other, COMPANION, fails=True))
    assert "results/tiny-inseparable: is the companion of experiment 'tiny'" in said
    assert (workflow.folder / COMPANION).read_text() == record
    workflow(*words, *other, "results/other/config.yaml")  # what is its own is made
    workflow(*words, "--config", "brnf={steps: 1}", "--", COMPANION)
    assert (workflow.folder / COMPANION).read_text() != record


@pytest.mark.parametrize(
    ("base", "brnf"), [("steps: 3", "steps: null"), ("steps: null", "steps: 3")]
)
def test_lengths_in_two_units_are_one_line(
    workflow: Any, config: Config, base: str, brnf: str
) -> None:
    words = ["--configfile", config("tiny"), "--config", f"base={{{base}}}", f"brnf={{{brnf}}}"]
    workflow.pretend_index("tiny", {"train": 1, "val": 1})
    said = [
        error(workflow("--dry-run", *words, "--", "ablation", fails=True)),
        error(workflow("--dry-run", *words, "models=[base_long]", fails=True)),
    ]
    assert all("configuration: base.steps: base_long needs the lengths" in one for one in said)


def test_an_empty_split_is_one_line(workflow: Any, config: Config) -> None:
    workflow.pretend_index("tiny", {"train": 0, "val": 1})
    words = ("--dry-run", "--configfile", config("tiny"), "--config", "companions=null")
    assert "split 'train' holds no image" in error(workflow(*words, fails=True))


@pytest.mark.parametrize("name", ["voc12", "coco14"])
def test_a_download_does_not_need_what_it_is_to_fetch(
    workflow: Any, config: Config, name: str
) -> None:
    words = ("--dry-run", "--configfile", config(name), "--config")
    place = f"download={{{name}: {{folder: elsewhere}}}}"
    assert f"elsewhere/{name}.unpacked.json" in workflow(
        *words, place, "--quiet", "host", "--", f"download_{name}"
    )
    assert "dataset.root: no folder" in error(workflow(*words, place, fails=True))


def test_a_folder_of_somebody_else_stays(workflow: Any, config: Config) -> None:
    """Snakemake removes what stands in the place of an output before its job begins."""
    place = workflow.folder / "results" / "tiny" / "data"
    place.mkdir(parents=True)
    (place / "photo.jpg").write_text("mine")
    words = ["--configfile", config("tiny"), "--config", "scenes={train: 2, val: 2, size: 96}"]
    forced = ("--forcerun", "render_scenes", "--", "results/tiny/data")
    assert "results/tiny/data: no stamp says what made it" in error(
        workflow(*words, *forced, fails=True)
    )
    said = error(workflow(*words, "unstamped=remake", *forced, fails=True))
    assert "results/tiny/data: holds photo.jpg and was not written by this program" in said
    assert (place / "photo.jpg").read_text() == "mine"


def test_a_failing_job_does_not_talk_of_memory(workflow: Any, config: Config) -> None:
    """Snakemake shows the whole shell command of a job that fails."""
    words = ("--configfile", config("tiny"), "--config", "scenes={train: 2, val: 2, size: 96}")
    (workflow.folder / "results" / "tiny").mkdir(parents=True)
    (workflow.folder / "results" / "tiny" / "base").write_text("a file where a folder should be")
    output = workflow(*words, "companions=null", "--", "test_predictions", fails=True)
    assert "dataset.test: is null" in output and "memory" not in output


def test_own_variants_stand_beside_the_default_ones() -> None:
    settings = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
    settings |= {"models": ["base", "control", "mine"], "variants": {"mine": {"ccnf": "false"}}}
    chosen = read_experiments(settings)["tiny"]
    assert chosen.network("mine")["ccnf"] is False and chosen.network("mine")["fscl"] is True
    off = {key: chosen.network("control")[key] for key in ("bsdnf", "ccnf", "fscl")}
    assert off == dict.fromkeys(off, False)
    settings |= {"models": ["control"], "variants": {"control": {"ccnf": False}}}
    assert read_experiments(settings)["tiny"].network("control")["fscl"] is True
