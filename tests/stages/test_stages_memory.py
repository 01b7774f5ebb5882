"""Freed memory stays with the process, so that the next tensor costs no page faults."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESS = """
import random, resource, sys
import torch
from brnf.stages.memory import keep_freed_memory

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
    done = subprocess.run([sys.executable, "-c", PROCESS, how], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_tensors_take_memory_that_others_have_freed() -> None:
    assert 3 * _faults("keep") < _faults("leave")
