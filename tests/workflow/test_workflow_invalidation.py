"""The table of what a change reruns: every key and every module against the options and
fingerprints of the stages.

``make test-invalidation`` lets Snakemake itself tell the same over finished runs.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from invalidation import ALL_JOBS, BY_HAND, EFFECTS, by_hand, changed, direct, nested, page

from brnf.config.experiment import merged, read_experiments
from brnf.config.generate import load_schema
from brnf.config.schema import leaves
from brnf.fingerprint import ROOT, reached_modules
from brnf.workflow.idle import without_idle
from brnf.workflow.params import STAGES, stage_options

TINY: dict[str, Any] = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
PARTS = {".".join(path): part for path, part in leaves(load_schema())}
BY_RULES = ("base.seed_map", "pseudo_labels.seed_map", "pseudo_labels.bsdnf")
"""Keys whose value the rules hand to other options; Snakemake's own plans show where."""
CALLED = [
    tuple(job.split()[:2])
    for job in ALL_JOBS
    if job.split()[1:2] and job.split()[1] in ("base", "brnf")
]


def options(config: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the options of every stage of the tiny run that belongs to a model, and of those that
    belong to none.
    """
    experiment = read_experiments(config)["tiny"]
    stages = [*CALLED, ("tabulate",), ("draw", "examples")]
    given = {"train_base": {"method": experiment.trained_base}}
    return {
        (stage, *model): without_idle(
            stage, stage_options(stage, experiment, (*model, "base")[0], given.get(stage, {}))
        )
        for stage, *model in stages
    }


@pytest.mark.parametrize("key", [key for key in PARTS if not by_hand(key) and key not in BY_RULES])
def test_a_key_changes_the_options_of_the_stages_in_the_table(key: str) -> None:
    value: Any = read_experiments(TINY)["tiny"].settings
    for part in key.split("."):
        value = value[part]
    before, after = (
        options(TINY),
        options(merged(TINY, nested(key, changed(key, value, dict(PARTS[key]))))),
    )
    read = {tuple(job.split()[:2]) for job in direct(key) or () if job != "write_config"}
    drawn = {("draw", "examples"), ("draw", "predictions")}  # one stage, with the same options
    read = read - drawn | ({("draw", "examples")} if read & drawn else set())
    assert {stage for stage in before if before[stage] != after[stage]} == read


def test_every_key_is_in_the_table_and_every_row_has_a_key() -> None:
    patterns = [pattern for row in EFFECTS for pattern in row.split()]
    used = {
        next(pattern for pattern in patterns if Path(key).match(pattern))
        for key in PARTS
        if not by_hand(key)
    }
    assert used == set(patterns)
    assert all(any(Path(key).match(pattern) for key in PARTS) for pattern in BY_HAND)


def test_the_page_of_the_documentation_is_the_table() -> None:
    assert (ROOT / "docs" / "invalidation.md").read_text() == page(), "run make invalidation-table"


COMPILED = "brnf.segment.kernels"
"""Loaded only where the dense CRF has to be compiled; the fingerprint of its stages counts it."""
ON_A_GPU = {"make_pseudo_labels": {"brnf.segment.batched_crf", "brnf.segment.crf_batches"}}
"""Loaded by a stage only where there is a GPU; its fingerprint counts them."""


def test_the_modules_of_a_stage_are_those_that_python_loads() -> None:
    """Import every stage after forgetting the package, and look at what is loaded."""
    code = """if True:
        import importlib, json, sys
        found = {}
        for stage in sys.argv[1:]:
            for name in [name for name in sys.modules if name.split(".")[0] == "brnf"]:
                del sys.modules[name]
            importlib.import_module(f"brnf.stages.{stage}")
            found[stage] = sorted(name for name in sys.modules if name.split(".")[0] == "brnf")
        print(json.dumps(found))"""
    done = subprocess.run(
        [sys.executable, "-c", code, *STAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    reached = {stage: reached_modules(f"brnf.stages.{stage}") for stage in STAGES}
    later = {stage: {COMPILED, *ON_A_GPU.get(stage, ())} for stage in STAGES}
    at_once = {
        stage: [name for name in names if name not in later[stage]]
        for stage, names in reached.items()
    }
    assert json.loads(done.stdout) == at_once
    assert set(reached["make_pseudo_labels"]) >= later["make_pseudo_labels"]
