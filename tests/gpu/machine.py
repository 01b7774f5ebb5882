"""A GPU that is full, two processes that want it, and what processes say to each other by it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.gpu.chain import CALLS, ROOT, Call, Chain
from tests.gpu.result import Context, Result
from tests.stage_options import words_of

__all__ = ["one_gpu_for_two", "one_rank", "out_of_memory"]

LITTLE = 64 * 2**20
FULL = f"""
import sys, torch
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction({LITTLE} / total, 0)
from brnf.stages import train_segmentation
from brnf.stages._cli import run_stage
run_stage(train_segmentation.run)
"""
"""A stage in a process that may take 64 MiB of the GPU."""
HOLDS = """
import sys
from brnf.engine.runtime import Runtime
print(Runtime(device="auto").torch_device(), flush=True)
sys.stdin.read()
"""


def command(chain: Chain, call: Call, folder: Path, device: str, **changes: str) -> list[str]:
    """Return the words of a stage's command line.

    Arguments:
        chain: whose files are read.
        call: the stage.
        folder: of its outputs.
        device: where to compute.
        changes: options that differ, by their flags.
    """
    words = []
    for name, value in call.inputs(chain).items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name}", *map(str, values)]
    for name, file in call.outputs.items():
        words += [f"--{name}", str(folder / file)]
    experiment = chain.experiment(call.settings)
    words += words_of(call.stage, experiment, call.model, seed=0, **call.options)
    for name, text in changes.items():
        words += [f"--{name}", text]
    return [*words, "--device", device, "--workers", "0", "--progress", "none"]


def _call(name: str) -> Call:
    return next(call for call in CALLS if call.name == name)


def out_of_memory(context: Context) -> Iterator[Result]:
    """Let a training ask for more than it may have: one line, status 2, nothing left behind."""
    context.need_gpu()
    call = _call("train_segmentation (COCO)")
    large = {"segmentation.crop": "384", "segmentation.batch-size": "8"}
    words = command(context.chain, call, context.own / "full", "cuda:0", **large)
    (context.own / "full").mkdir()
    done = subprocess.run(
        context.python("-c", FULL, *words),
        cwd=ROOT,
        env=context.environment(),
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("device: ")]
    passed = done.returncode == 2 and len(said) == 1 and said[0].startswith("error: out of memory")
    left = [path.name for path in (context.own / "full").iterdir()]
    yield Result("a training that needs more", f"status {done.returncode}, {said}", passed)
    yield Result("what it leaves", str(left), not left)


def one_gpu_for_two(context: Context) -> Iterator[Result]:
    """Refuse a training with two devices on one GPU; let a second job wait for the first."""
    context.need_gpu()
    (context.own / "two").mkdir()
    call = _call("train_flow")
    launcher = context.python("-m", "brnf.workflow.torchrun", "2", f"brnf.stages.{call.stage}")
    done = subprocess.run(
        [*launcher, *command(context.chain, call, context.own / "two", "auto")],
        cwd=ROOT,
        env=context.environment(),
        capture_output=True,
        text=True,
    )
    told = "a training with 2 devices finds 1 visible GPU"
    said = done.stderr.splitlines()
    passed = done.returncode == 2 and len(said) == 1 and told in said[0]
    yield Result("a training with two devices", f"status {done.returncode}, {said}", passed)
    yield _waiting(context)


def _waiting(context: Context) -> Result:
    """Begin a job that takes the GPU, and another; end the first."""
    jobs = [
        subprocess.Popen(
            context.python("-c", HOLDS),
            cwd=ROOT,
            env=context.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ]
    try:
        assert jobs[0].stdout
        first = jobs[0].stdout.readline().strip()
        jobs.append(
            subprocess.Popen(
                context.python("-c", HOLDS),
                cwd=ROOT,
                env=context.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        assert jobs[1].stderr and jobs[1].stdout
        told = jobs[1].stderr.readline().strip()
        jobs[0].kill()
        jobs[0].wait()
        second = jobs[1].stdout.readline().strip()
    finally:
        for job in jobs:
            job.kill()
            job.communicate()
    passed = first == second == "cuda:0" and f"process {jobs[0].pid}" in told and "waiting" in told
    return Result("a second job", f"{told!r}, then {second!r}", passed)


def one_rank(context: Context) -> Iterator[Result]:
    """Join a group of one process: each collective, and a training with the bytes of one alone."""
    script = [*context.python("-m", "brnf.workflow.torchrun", "1", "tests.gpu.collectives")]
    done = subprocess.run(
        [*script, "--device", context.device],
        cwd=ROOT,
        env=context.environment(),
        capture_output=True,
        text=True,
    )
    found = (done.stdout.strip() or done.stderr.strip()[-500:]).replace("\n", "; ")
    yield Result("collectives", found, done.returncode == 0)
    call = _call("train_brnf")
    stage = f"brnf.stages.{call.stage}"
    chain, more = context.chain, ["--deterministic", "True"]
    for name, start in (
        ("alone", context.python("-m", stage)),
        ("joined", context.python("-m", "brnf.workflow.torchrun", "1", stage)),
    ):
        (context.own / name).mkdir()
        words = [*start, *command(chain, call, context.own / name, context.device), *more]
        done = subprocess.run(
            words, cwd=ROOT, env=context.environment(), capture_output=True, text=True
        )
        if done.returncode:
            yield Result(f"training {name}", done.stderr[-500:], False)
            return
    differ = [
        file
        for file in call.outputs.values()
        if (context.own / "alone" / file).read_bytes()
        != (context.own / "joined" / file).read_bytes()
    ]
    yield Result("training", f"{differ or 'equal bytes'}", not differ)
