"""Freed memory stays with the process, so that the next tensor costs no page faults; the most it
has held is its own.
"""

import math
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from brnf.engine.memory import peak_memory, peak_told, release_code, tell_peak

ROOT = Path(__file__).parents[2]
PROCESS = """
import random, resource, sys
import torch
from brnf.engine.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
draw = random.Random(0)
held = []
for step in range(400):
    if step == 200:  # by then a process that keeps its memory has all it needs
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held.append(torch.ones(2**18 * draw.randint(1, 30)))
    if len(held) > 4:
        held.pop(draw.randrange(5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, how], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_tensors_take_memory_that_others_have_freed() -> None:
    assert 3 * _faults("keep") < _faults("leave")


def test_a_process_does_not_take_its_parents_peak_for_its_own() -> None:
    held = bytearray(b"1") * (300 * 2**20)
    done = subprocess.run(
        [sys.executable, "-c", "from brnf.engine.memory import peak_memory; print(peak_memory())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 100 * 2**20 < len(held) <= peak_memory()


def test_memory_that_was_freed_counts() -> None:
    """In a process of its own: this one may have held gigabytes, and would have to hold more."""
    lines = (
        "from brnf.engine.memory import peak_memory; "
        "before = peak_memory(); bytearray(b'1') * 2**28"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{lines}; print(before, peak_memory())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())
    assert before + 0.9 * 2**28 < after < before + 1.1 * 2**28


def test_the_peak_is_read_as_it_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_peak()
    log = tmp_path / "stage.log"
    log.write_text("train flow: 60/60 steps\n" + capsys.readouterr().err)
    assert peak_told(log) == pytest.approx(peak_memory() / 2**20, rel=0.01)
    log.write_text("not peak memory: 12.0 MiB\n")
    assert math.isnan(peak_told(log)) and math.isnan(peak_told(tmp_path / "gone.log"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is released")
def test_code_that_is_released_still_runs() -> None:
    import llvmlite.binding as llvm

    def resident() -> int:
        """Return KiB of the library's code in memory."""
        found, counts = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if line.split(maxsplit=1)[0].count("-") == 1:
                counts = "r-xp" in line and "libllvmlite" in line
            elif counts and line.startswith("Rss:"):
                found += int(line.split()[1])
        return found

    assembly = "define i32 @f(i32 %x) {\n %y = add i32 %x, 1\n ret i32 %y\n}"
    before = str(llvm.parse_assembly(assembly))
    held = resident()
    release_code("libllvmlite")
    assert held > 1024 and resident() < held / 2
    assert str(llvm.parse_assembly(assembly)) == before
