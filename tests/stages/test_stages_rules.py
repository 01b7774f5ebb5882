"""The room of the stages holds stages and nothing else."""

import re
from pathlib import Path

from brnf.fingerprint import ROOT, imported_modules

SHARED = {"__init__", "_cli"}
"""Modules that are no stage: what runs them all."""
MODULES = {path.stem for path in (ROOT / "brnf" / "stages").glob("*.py")}


def named(pattern: str) -> set[str]:
    """Return the names of stages that a pattern finds in the rules."""
    rules = Path(ROOT / "workflow" / "rules").glob("*.smk")
    return {name for file in rules for name in re.findall(pattern, file.read_text())}


def test_no_stage_imports_another() -> None:
    found = {
        (stage, other)
        for stage in MODULES
        for other in MODULES - SHARED - {stage}
        if f"brnf.stages.{other}" in imported_modules(f"brnf.stages.{stage}")
    }
    assert not found


def test_every_stage_is_run_by_a_rule_that_knows_its_code() -> None:
    shared = named(r'\*\*stage\(\s*"(\w+)"')
    own = named(r"\bbrnf\.stages\.(\w+) ")
    assert shared | own == MODULES - SHARED
    assert named(r'\bcode\("(\w+)"\)') == own
