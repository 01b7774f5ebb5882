"""Trainings on their own: killed some time after a checkpoint, started again, compared with an
unbroken one.
"""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from runs import ENVIRONMENT, ROOT

from brnf.config.experiment import merged, read_experiments
from brnf.workflow.params import command_line, option_names, stage_options

STAGES = ("train_base", "train_brnf", "train_flow", "train_segmentation")
INTERVAL = 0.5
"""Seconds between checkpoints."""
ALLOWANCE = 1.0
"""Seconds for the step in progress and for writing."""
LENGTHS = {
    "base": {"steps": 60},
    "brnf": {"steps": 40},
    "flow": {"steps": 1500},
    "segmentation": {"iterations": 40},
}
"""Steps that last several intervals on a fast machine, too."""
MODELS = {
    "train_base": "base",
    "train_brnf": "brnf",
    "train_flow": "base",
    "train_segmentation": "brnf",
}


def command(stage: str, results: Path, folder: Path) -> list[str]:
    """Return the call of a training on the results of the tiny run, long enough to be killed."""
    config = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
    experiment = read_experiments(merged(config, LENGTHS))["tiny"]
    tiny, model = results / "results" / "tiny", MODELS[stage]
    shards = {
        name: sorted(map(str, tiny.glob(f"{model}/seed0/{name}/train/*")))
        for name in ("pixels", "pseudo_labels")
    }
    index = ["--index", str(tiny / "index")]
    base = tiny / "base" / "seed0"
    inputs = {
        "train_base": index,
        "train_brnf": [
            *index,
            "--base",
            str(base / "network/network.pt"),
            "--seeds",
            *map(str, sorted(base.glob("denoised/train/*.h5"))),
        ],
        "train_flow": ["--pixels", *shards["pixels"]],
        "train_segmentation": [
            *index,
            "--masks",
            *(path for path in shards["pseudo_labels"] if Path(path).is_dir()),
        ],
    }[stage]
    output = "--flow" if stage == "train_flow" else "--network"
    given = {
        "split": "train",
        "seed": 0,
        "seed_product": "seeds",
        "method": experiment.trained_base,
    }
    options = stage_options(
        stage,
        experiment,
        model,
        {name: given[name] for name in option_names(stage) if name in given},
    )
    runtime = {"checkpoint_seconds": INTERVAL, "progress": "none"}
    outputs = [output, str(folder / "out.pt"), "--history", str(folder / "out.csv")]
    return [
        sys.executable,
        "-m",
        f"brnf.stages.{stage}",
        *inputs,
        *outputs,
        *shlex.split(command_line({**options, **runtime})),
    ]


def call(words: Sequence[str], results: Path) -> subprocess.Popen[str]:
    """Start a training in the folder of the tiny run, to which the index refers."""
    return subprocess.Popen(
        words,
        cwd=results,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def survive_training(
    stage: str, results: Path, folder: Path, moments: random.Random
) -> tuple[str, list[str]]:
    """Kill a training at a random moment after its first checkpoint, start it again; return a line
    that tells, and the faults.
    """
    whole, broken = (
        call(command(stage, results, folder / name), results) for name in ("whole", "broken")
    )
    checkpoint = folder / "broken" / "out.checkpoint.pt"
    while not checkpoint.exists():
        if broken.poll() is not None:
            return f"{stage}: FAILED", [
                f"{stage} ended before a checkpoint: {broken.communicate()[1][-500:]}"
            ]
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 2 * INTERVAL))
    os.kill(broken.pid, signal.SIGKILL)
    lost = time.time() - checkpoint.stat().st_mtime
    killed = broken.wait() == -signal.SIGKILL
    again = call(command(stage, results, folder / "broken"), results)
    errors = again.communicate()[1]
    found = re.search(r"goes on after step (\d+)", errors)
    faults = [] if killed else [f"{stage} was not killed"]
    faults += [] if found else [f"{stage} did not go on from its checkpoint: {errors[-500:]}"]
    faults += [] if lost <= INTERVAL + ALLOWANCE else [f"{stage} lost {lost:.2f} s"]
    whole.communicate()
    for name in ("out.pt", "out.csv"):
        if (folder / "whole" / name).read_bytes() != (folder / "broken" / name).read_bytes():
            faults.append(f"{stage}: {name} differs")
    faults += [
        f"{stage} left {path.name}"
        for path in (folder / "broken").iterdir()
        if path.name not in ("out.pt", "out.csv") and not path.name.endswith(".stamp")
    ]
    step = found[1] if found else "?"
    told = (
        f"{stage}: killed after step {step}, {lost:.2f} s lost at an interval of {INTERVAL:g} s, "
    )
    return told + ("FAILED" if faults else "equal bytes"), faults
