"""Show that a GPU does what it should: ``python -m tests.gpu``, at most 8 minutes.

Needs nothing from outside: scenes are rendered, weights are random or those of the package index.
Each check is a process of its own that ends when its time is over. Without a GPU one line says so;
``--device cpu`` tries the script itself, and leaves out what means nothing there.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brnf.engine.cuda import unusable_reason
from tests.gpu.chain import ROOT
from tests.gpu.result import Context, NeedsGpuError, Result

__all__ = ["CHECKS", "main"]

SECONDS = 480.0
"""That all checks may take together."""
SLOWER = 5
"""Times that a CPU, which only tries this script, may take as long."""
NEEDS_GPU = 77
Check = Callable[[Context], Iterator[Result]]


@dataclass(frozen=True)
class Listed:
    """A check.

    Attributes:
        module: of :mod:`tests.gpu` in which its function is.
        function: its name.
        shown: in the table.
        seconds: that it may take.
    """

    module: str
    function: str
    shown: str
    seconds: float


CHECKS: Mapping[str, Listed] = {
    one.function: one
    for one in (
        Listed("stages", "prepare", "all stages on the CPU", 80),
        Listed("stages", "against_the_cpu", "all stages against the CPU, each precision", 150),
        Listed("stages", "twice", "equal bytes twice, deterministic", 80),
        Listed("stages", "broken_off", "equal bytes after a break, deterministic", 80),
        Listed("machine", "out_of_memory", "out of memory in one line", 30),
        Listed("machine", "one_gpu_for_two", "two processes on one GPU", 50),
        Listed("machine", "one_rank", "collectives and a training with one rank", 50),
        Listed("full_size", "peak_memory", "peak memory at the paper's size", 80),
        Listed("full_size", "beside_research_code", "hot loops beside the research code's way", 60),
    )
}
"""In the order in which they run; the first makes what the others compare with. All together end
after :data:`SECONDS`, whatever each may take.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu to try this script")
    parser.add_argument("--only", nargs="*", choices=list(CHECKS), default=[])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all checks together")
    parser.add_argument("--check", choices=list(CHECKS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.check:
        return run_check(given.check, given.device, given.folder)
    if given.device != "cpu" and (reason := unusable_reason()):
        print(f"test-gpu: skipped: {reason}")
        return 0
    names = [name for name in CHECKS if not given.only or name in (*given.only, "prepare")]
    with tempfile.TemporaryDirectory(prefix="brnf-gpu-") as folder:
        return run_all(names, given.device, Path(folder), given.seconds)


def run_all(names: Sequence[str], device: str, folder: Path, seconds: float) -> int:
    """Run checks one after the other, print what they find and a table; return the exit status."""
    begin, rows = time.monotonic(), []
    print(f"device: {_described(device)}", flush=True)
    for name in names:
        listed, start = CHECKS[name], time.monotonic()
        print(f"{listed.shown} ({name})", flush=True)
        left = min(listed.seconds, seconds - (start - begin))
        left = SLOWER * listed.seconds if device == "cpu" else left
        if rows and rows[0][1] != "passed":
            left = 0  # nothing to compare with
        command = [sys.executable, "-m", "tests.gpu", "--check", name, "--device", device]
        status = _status([*command, "--folder", str(folder)], left)
        rows.append((listed.shown, status, time.monotonic() - start, listed.seconds))
    print("\n| check | result | seconds | at most |\n| --- | --- | ---: | ---: |")
    for shown, status, took, most in rows:
        print(f"| {shown} | {status} | {took:.0f} | {most:.0f} |")
    took = time.monotonic() - begin
    print(f"| all | | {took:.0f} | {seconds:.0f} |", flush=True)
    return int(any(status not in ("passed", "needs a GPU") for _, status, _, _ in rows))


def _status(command: Sequence[str], seconds: float) -> str:
    if seconds <= 0:
        return "not run"
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "took too long"
    return {0: "passed", NEEDS_GPU: "needs a GPU"}.get(done.returncode, "FAILED")


def _described(device: str) -> str:
    import torch

    from brnf.engine.cuda import describe_gpu

    chosen = torch.device(device)
    return describe_gpu(chosen) if chosen.type == "cuda" else device


def run_check(name: str, device: str, folder: Path) -> int:
    """Run one check in this process, print its lines and return the exit status."""
    from importlib import import_module

    import torch

    torch.set_num_threads(1)
    listed = CHECKS[name]
    check: Check = getattr(import_module(f"tests.gpu.{listed.module}"), listed.function)
    passed, count = True, 0
    try:
        for result in check(Context(device, folder, name)):
            print(result, flush=True)
            passed, count = passed and result.passed, count + 1
    except NeedsGpuError:
        print("  needs a GPU", flush=True)
        return NEEDS_GPU
    return int(not passed or not count)


if __name__ == "__main__":
    sys.exit(main())
