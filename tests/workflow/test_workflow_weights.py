"""A file of weights counts by what it holds: overwriting it reruns what starts from it, touching it
nothing.
"""

import os
import re
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from brnf.workflow.params import SECTIONS, STAGES, option_fields

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
NETWORK = "results/own/base/seed0/network/network.pt"


def write_weights(path: Path, seed: int) -> None:
    """Write random weights in a file that has not changed for a while."""
    torch.manual_seed(seed)
    torch.save(timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict(), path)
    old = time.time() - 100
    os.utime(path, (old, old))


@pytest.fixture
def trained(workflow: Any) -> Any:
    """Train a base from a file of weights, through Snakemake."""
    write_weights(workflow.folder / "weights.pth", 0)
    backbone = {"name": "mobilenetv3_small_050", "weights": "weights.pth", "trainable_stages": 0}
    (workflow.folder / "own.yaml").write_text(
        yaml.safe_dump({**TINY, "name": "own", "companions": {}, "backbone": backbone})
    )
    workflow("--configfile", "own.yaml", "--", NETWORK)
    return workflow


def test_another_content_under_the_same_name_trains_again(trained: Any) -> None:
    def planned() -> dict[str, int]:
        return dict(trained.jobs("--configfile", "own.yaml", "--", NETWORK))

    file = trained.folder / "weights.pth"
    first = torch.load(trained.folder / NETWORK, weights_only=True)["options"]["weights"]
    assert (first["weights"], len(first["digest"])) == ("weights.pth", 64)
    assert planned() == {}
    file.touch()
    assert planned() == {}
    state, size = file.stat(), file.stat().st_size
    write_weights(file, 1)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == size
    assert planned() == {"train_base": 1}
    write_weights(file, 0)
    assert planned() == {}, "the old content again"


def test_every_rule_that_starts_from_weights_tells_which() -> None:
    rules = "".join(
        path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    )
    found = {}
    for name, text in re.findall(
        r"(?m)^(?:use rule \w+ as|rule) (\w+)(?: with)?:\n(.*?)(?=^rule |^use rule |\Z)",
        rules,
        re.DOTALL,
    ):
        if told := re.search(r'^        weights=weights\("([\w.]+)"\),$', text, re.MULTILINE):
            found[name] = told[1]
    fields_with_weights = {
        (stage, field)
        for stage in STAGES
        for field, section in option_fields(stage).items()
        if section is not None and "weights" in {field.name for field in fields(section)}
    }
    expected = {stage: SECTIONS.get(field, field) for stage, field in fields_with_weights}
    assert found == expected and len(found) == len(fields_with_weights)
