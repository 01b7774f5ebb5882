"""Run tests as other processors, machines and users would: ``python -m tests.processors``.

The libraries are held to older instructions, which take their sums in another order; threads, order
of tests, locale, user and what an earlier run left are others. Prints a row for each setting and
what failed. Settings that this machine cannot take are named and left out.
"""

import argparse
import os
import platform
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NUMERIC = (
    *(f"tests/{name}" for name in ("flow", "cam", "segment", "base", "backbones", "evaluate")),
    "tests/stages",
    "tests/engine/test_engine_matmul.py",
)
NOBODY = 65534
LEVELS = {
    # MKL hears the second and, on AMD's processors too, the third word.
    "default": ("SSE41", "SSE4_2", "COMPATIBLE", "Prescott"),
    "avx2": ("AVX2", "AVX2", "AUTO", "Haswell"),
    "avx512": ("AVX512_CORE", "AVX512", "AUTO", "SkylakeX"),
}
"""From torch's name of a level of instructions to those of oneDNN, MKL (two) and OpenBLAS."""


@dataclass(frozen=True)
class Setting:
    """How to run.

    Attributes:
        name: shown in the table.
        environment: variables to set; None removes one.
        order: of the tests: ``as written``, ``reversed``, or the seed of a random one.
        cores: how many the process may use, 0 for all.
        user: whose rights to have.
        umask: of new files.
        possible: whether this machine can.
    """

    name: str
    environment: Mapping[str, str | None] = field(default_factory=dict)
    order: str = "as written"
    cores: int = 0
    user: int | None = None
    umask: int = 0o022
    possible: bool = True


def settings(temporary: Path) -> list[Setting]:
    """Return all settings; the last repeats the first, over what the others have left.

    Arguments:
        temporary: a folder for a TMPDIR of an unusual name.
    """
    other_user = os.geteuid() == 0 and open_to_all()
    strange = temporary / "a b'c ü"
    strange.mkdir()
    bare = {
        "LC_ALL": "C",
        "TZ": "Pacific/Auckland",
        "HOME": None,
        "PYTHONHASHSEED": "1",
        "TMPDIR": str(strange),
    }
    return [
        Setting("as it is"),
        *(held_to(level) for level in LEVELS),
        Setting("2 threads", {"OMP_NUM_THREADS": "2"}),
        Setting("4 threads", {"OMP_NUM_THREADS": "4"}),
        Setting("one core", cores=1, possible=hasattr(os, "sched_setaffinity")),
        Setting("reversed", order="reversed"),
        Setting("random order", order="1"),
        Setting("bare environment", bare, umask=0o077),
        Setting("ordinary user", {"HOME": None}, user=NOBODY, possible=other_user),
        Setting("once more"),
    ]


def held_to(level: str) -> Setting:
    """Return the setting in which the libraries stay below a level of instructions."""
    import torch

    onednn, mkl, reproducible, openblas = LEVELS[level]
    environment = {
        "ATEN_CPU_CAPABILITY": level,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "MKL_CBWR": reproducible,
        "OPENBLAS_CORETYPE": openblas,
        "NPY_DISABLE_CPU_FEATURES": " ".join(_beyond(level)),
    }
    levels, has = list(LEVELS), torch.backends.cpu.get_cpu_capability().lower()
    possible = _is_x86() and has in levels and levels.index(level) <= levels.index(has)
    shown = {"default": "SSE", "avx2": "AVX2", "avx512": "AVX-512"}[level]
    return Setting(f"{shown} at most", environment, possible=possible)


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _beyond(level: str) -> list[str]:
    """Return numpy's names of the instructions beyond a level that it would use here."""
    used: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    kept = {"default": [], "avx2": ["AVX", "F16C", "FMA3", "AVX2", "X86_V3"], "avx512": used}[level]
    return [name for name in used if name not in kept]


class Order:
    """Bring the tests into another order; those of a file stay together, as pytest-xdist does."""

    def __init__(self, order: str) -> None:
        self._order = order

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._order == "reversed":
            items.reverse()
        elif self._order != "as written":
            draw = random.Random(self._order)
            files = sorted({item.path for item in items})
            draw.shuffle(files)
            draw.shuffle(items)
            items.sort(key=lambda item: files.index(item.path))


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        passed: number of tests.
        skipped: likewise.
        failures: names of tests, or the end of what a run without a report has said.
        seconds: how long it took.
    """

    passed: int
    skipped: int
    failures: tuple[str, ...]
    seconds: float


def run(setting: Setting, words: Sequence[str], folder: Path) -> Outcome:
    """Run pytest under a setting.

    Arguments:
        setting: how.
        words: for pytest.
        folder: that the user of the setting can write to.
    """
    report = folder / "report.xml"
    own = [f"--basetemp={folder / 'tests'}", f"--junit-xml={report}", "-o", "junit_family=xunit1"]
    command = [sys.executable, "-m", "tests.processors", "--order", setting.order, "--run"]
    command += [*own, *words]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **setting.environment}
    if setting.user is not None:
        os.chown(folder, setting.user, setting.user)
    begin = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={name: value for name, value in environment.items() if value is not None},
        preexec_fn=_before(setting),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    (folder / "said").write_text(done.stdout)
    return outcome(report, done.stdout, done.returncode, time.monotonic() - begin)


def _before(setting: Setting) -> Callable[[], None]:
    def prepare() -> None:
        os.umask(setting.umask)
        if setting.cores:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
        if setting.user is not None:
            os.setgroups([])
            os.setgid(setting.user)
            os.setuid(setting.user)

    return prepare


def outcome(report: Path, said: str, status: int, seconds: float) -> Outcome:
    """Read pytest's report; a run without one, or that failed without a failure in it, counts."""
    if not report.exists():
        return Outcome(0, 0, (f"no report: {said[-2000:]}",), seconds)
    cases = list(ElementTree.parse(report).iter("testcase"))
    kinds = {case: {child.tag for child in case} for case in cases}
    failures = [_name(case) for case, tags in kinds.items() if tags & {"failure", "error"}]
    skipped = sum("skipped" in tags for tags in kinds.values())
    if status and not failures:
        failures = [f"exit status {status}: {said[-2000:]}"]
    passed = sum(not tags & {"failure", "error", "skipped"} for tags in kinds.values())
    return Outcome(passed, skipped, tuple(failures), seconds)


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('file', case.get('classname'))}::{case.get('name')}"


def open_to_all() -> bool:
    """Return whether every user may come to this clone and run its Python."""
    places = (ROOT, Path(sys.executable).resolve())
    ways = {folder for place in places for folder in (place, *place.parents)}
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in ways)


def main() -> int:
    """Run what the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.processors", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="settings named with such words")
    parser.add_argument("--order", default="as written", help=argparse.SUPPRESS)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    arguments, words = parser.parse_known_args()
    if arguments.run:
        return int(pytest.main(words, plugins=[Order(arguments.order)]))
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        return _table(Path(name), arguments.only, words or NUMERIC)


def _table(temporary: Path, only: Sequence[str], words: Sequence[str]) -> int:
    failed = 0
    print(f"{'setting':20}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}")
    for setting in settings(temporary):
        if only and not any(word in setting.name for word in only):
            continue
        if not setting.possible:
            print(f"{setting.name:20}  not possible here", flush=True)
            continue
        folder = Path(tempfile.mkdtemp(dir=temporary))
        found = run(setting, words, folder)
        shutil.rmtree(folder)
        counts = f"{found.passed:8}{len(found.failures):8}{found.skipped:8}{found.seconds:9.0f}"
        print(f"{setting.name:20}{counts}", *found.failures, sep="\n    ", flush=True)
        failed += len(found.failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
