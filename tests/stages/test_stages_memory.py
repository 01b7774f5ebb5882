"""Freed memory stays with the process, so that the next tensor of the same size costs no page faults."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESS = """
import resource, sys
import torch
from brnf.stages.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
sizes = 12 * [2**20]  # of 4 MiB each
rounds = []
for _ in range(4):
    before = faults()
    held = [torch.ones(size) for size in sizes]
    del held
    rounds.append(faults() - before)
print(rounds[-1])
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROCESS, how], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_tensors_take_memory_that_others_have_freed() -> None:
    pages = 48 * 2**20 // 4096
    assert _faults("keep") < pages / 10
    assert _faults("leave") > pages / 4  # else glibc does so by itself, and the function can go
