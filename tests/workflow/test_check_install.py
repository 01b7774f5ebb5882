"""What `make check-install` concludes from pip's answers; the index itself is asked by CI."""

import json
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from envs import check_install
from envs.check_install import (
    EXCEPTIONS,
    MACHINES,
    PYTHONS,
    ROOT,
    Target,
    Verdict,
    Wheels,
    ask_for_all,
    idle_exceptions,
    judge,
    table,
)

OLD, NEW = Target("3.11", "x86_64"), Target("3.14", "aarch64")


Entry = dict[str, Any]  # of pip's report
COMPILED = "cp311-cp311-manylinux_2_28_x86_64"


def entry(name: str, version: str, *requires: str, tags: str = "py3-none-any") -> Entry:
    """Make an entry of pip's report."""
    metadata = {"name": name, "version": version, "requires_dist": list(requires)}
    return {"download_info": {"url": f"INDEX/{name}-{version}-{tags}.whl"}, "metadata": metadata}


def verdict(
    target: Target,
    *,
    found: Sequence[Entry] = (),
    missing: Sequence[str] = (),
    asked: str = "torch>=2",
) -> Verdict:
    """Judge a project that asks for one package."""
    pins = {one["metadata"]["name"]: one["metadata"]["version"] for one in found}
    pins |= dict.fromkeys(missing, "1.0")
    wheels = Wheels({one["metadata"]["name"]: one for one in found}, set(missing))
    return judge(target, wheels, pins, [Requirement(asked)])


def test_markers_are_those_of_the_target() -> None:
    triton, tomli = 'triton; platform_machine == "x86_64"', 'tomli; python_version < "3.12"'
    torch = entry("torch", "2.1", triton, tomli)
    assert verdict(OLD, found=[torch], missing=["triton"]).problems == [
        "tomli is not in constraints.txt",
        "triton==1.0 has no wheel",
    ]
    assert verdict(NEW, found=[torch], missing=["triton"]).problems == []


def test_extras_are_followed_and_circles_end() -> None:
    torch = entry("torch", "2.1", "cuda[blas]", 'never; extra == "blas"')
    cuda = entry("cuda", "13", 'blas; extra == "blas"', 'fft; extra == "fft"', "torch")
    found = [torch, cuda, entry("blas", "1"), entry("fft", "1"), entry("never", "1")]
    assert verdict(OLD, found=found).wheels == ["blas", "cuda", "torch"]


def test_known_exceptions_are_told_apart() -> None:
    known = next(iter(EXCEPTIONS))
    judged = verdict(OLD, found=[entry("torch", "2.1", known, "other")], missing=[known, "other"])
    assert judged.exceptions == [known] and judged.problems == ["other==1.0 has no wheel"]
    assert idle_exceptions({OLD: judged}) == sorted(EXCEPTIONS.keys() - {known})


def test_pins_must_fit_what_is_asked_for() -> None:
    judged = verdict(OLD, found=[entry("torch", "1.9")])
    assert judged.problems == ["torch==1.9 is pinned, but torch>=2 is needed"]


class Index:
    """Stands in for pip: refuses, one at a time, what has no wheel for a version of Python."""

    def __init__(self, packages: dict[str, Entry], lacking: dict[str, Sequence[str]]) -> None:
        self.packages, self.lacking = packages, lacking
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        words = dict(pairwise(command))
        python = words["--python-version"]
        lines = Path(words["--requirement"]).read_text().splitlines()
        names = [line.split("==")[0] for line in lines]
        self.asked.append((python, names))
        for name in names:
            if name in self.lacking.get(python, ()):
                said = f"ERROR: No matching distribution found for {name}==1.0"
                return subprocess.CompletedProcess(command, 1, "", said)
        report = {"install": [self.packages[name] for name in names]}
        Path(words["--report"]).write_text(json.dumps(report))
        return subprocess.CompletedProcess(command, 0, "", "")


def test_pure_python_is_asked_for_once_and_what_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = {
        "compiled": entry("compiled", "1.0", tags=COMPILED),
        "pure": entry("pure", "1.0"),
        "early": entry("early", "1.0"),
        "immutables": entry("immutables", "1.0", tags=COMPILED),
    }
    packages["early"]["metadata"]["requires_python"] = "<3.14"
    index = Index(packages, {"3.14": ["immutables", "early"]})
    monkeypatch.setattr(check_install.subprocess, "run", index)
    wheels = ask_for_all([OLD, NEW], dict.fromkeys(packages, "1.0"))
    assert wheels[OLD].missing == set() and wheels[OLD].found.keys() == packages.keys()
    assert wheels[NEW].missing == {"immutables", "early"} and wheels[NEW].found.keys() == {
        "compiled",
        "pure",
    }
    assert [names for python, names in index.asked if python == "3.14"][-1] == ["compiled"]


def test_other_failures_of_pip_are_no_missing_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no network")
    monkeypatch.setattr(check_install.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match=r"Python 3.11 on x86_64: ERROR: no network"):
        ask_for_all([OLD], {"torch": "2.1"})


def test_table_has_a_row_a_python_and_a_column_a_processor() -> None:
    good = Verdict(["torch"], [], [])
    targets = [Target(python, machine) for python in ("3.11", "3.14") for machine in MACHINES]
    verdicts = dict.fromkeys(targets, good)
    verdicts[NEW] = Verdict(["torch"], ["immutables"], ["x==1 has no wheel"])
    lines = table(verdicts).splitlines()
    assert [line.split()[1] for line in lines] == ["Python", "---", "3.11", "3.14"]
    assert lines[-1].endswith(" | 1 wheels, without: immutables, x==1 has no wheel |")


def test_pythons_are_those_that_the_installation_takes() -> None:
    script = (ROOT / "envs" / "install.sh").read_text()
    assert f"oldest={PYTHONS[0][2:]}\nnewest={PYTHONS[-1][2:]}\n" in script
