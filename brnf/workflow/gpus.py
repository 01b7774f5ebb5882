"""How many jobs that compute on a GPU run at once on this machine, and whether the paper's setting
may run here.
"""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from brnf.engine.cuda import visible_gpus
from brnf.errors import UserError

__all__ = ["check_paper", "gpu_jobs", "gpu_line"]

CHECK_SECONDS = 300
"""That importing torch and asking for a GPU may take, on a slow disk."""


def gpu_jobs(device: str, found: int | None = None) -> int | None:
    """Return how many GPU jobs run at once, None for any number: a machine without a GPU computes
    on its cores, which ``--cores`` counts.

    Arguments:
        device: of the configuration; one that is named is used by all jobs.
        found: visible GPUs; None counts them.
    """
    if device != "auto":
        return 1 if device.startswith("cuda") else None
    return (visible_gpus() if found is None else found) or None


def gpu_line(device: str, limit: int | None) -> str:
    """Return what a run says about its GPUs before its first job, "" where nothing was counted.

    >>> gpu_line("auto", 2)
    'GPUs: 2 found; at most 2 GPU jobs run at once (--resources gpu=N sets another number)'
    >>> gpu_line("auto", None)
    'GPUs: none found; everything is computed on the CPU'
    """
    if device != "auto":
        return ""
    if limit is None:
        return "GPUs: none found; everything is computed on the CPU"
    jobs = f"{limit} GPU job{'s run' if limit > 1 else ' runs'} at once"
    return f"GPUs: {limit} found; at most {jobs} (--resources gpu=N sets another number)"


def check_paper(settings: Mapping[str, Any], program: str = sys.executable) -> None:
    """Refuse to begin on a CPU what takes one months, unless that was said.

    torch is asked in a process of its own, since a driver may be too old for it. Where torch cannot
    be imported the stages have another environment, which will tell.

    Arguments:
        settings: of the experiment.
        program: Python that has torch.

    Raises:
        UserError: the protocol is paper, and torch computes on no GPU here.
    """
    if settings["protocol"] != "paper" or settings["device"] != "auto":
        return
    try:
        done = subprocess.run(
            [program, "-m", "brnf.engine.cuda"],
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return
    if reason := done.stdout.strip():
        raise UserError(
            f"configuration: protocol: is paper, which needs a GPU ({reason}); set device: cpu to "
            "compute on the CPU all the same"
        )
