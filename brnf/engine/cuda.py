"""What is known of this machine's GPUs: how many there are, whether torch can use them, and what a
log says of one.

Counting imports no torch: Snakemake asks while it reads the workflow.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["describe_gpu", "gpu_identities", "unusable_reason", "visible_gpus"]

DRIVER_VERSION = Path("/sys/module/nvidia/version")
"""Where Linux tells which driver is loaded."""
SMI_SECONDS = 20
"""That nvidia-smi may take, which loads the driver where nothing else has."""


def visible_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Count the GPUs that this process may use, without torch.

    These are the device files of NVIDIA's driver; where there are none, as in WSL, what
    ``nvidia-smi`` lists. ``CUDA_VISIBLE_DEVICES`` hides others as CUDA reads it: entries up to the
    first that names no GPU.

    Arguments:
        environment: whose ``CUDA_VISIBLE_DEVICES`` and ``PATH`` count.
        devices: folder of the device files.
    """
    found = len([path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])
    found = found or _listed(environment)
    if not found or "CUDA_VISIBLE_DEVICES" not in environment:
        return found
    count = 0
    for entry in environment["CUDA_VISIBLE_DEVICES"].split(","):
        word = entry.strip()
        number = word.isdecimal() and int(word) < found
        if not number and not word.startswith(("GPU-", "MIG-")):
            break
        count += 1
    return count


def _listed(environment: Mapping[str, str]) -> int:
    """Return how many GPUs ``nvidia-smi`` lists, 0 where it is missing or fails."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH", ""))
    if program is None:
        return 0
    try:
        done = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(re.findall(r"^GPU \d+:", done.stdout, re.MULTILINE))


def unusable_reason() -> str:
    """Return why torch computes on no GPU here, "" where it can."""
    import torch

    if torch.cuda.is_available():
        return ""
    if not visible_gpus():
        return "torch finds no GPU"
    if torch.version.cuda is None:
        return "there is a GPU, but this torch is built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:  # such as a driver that is older than the CUDA of this build
        told = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        return f"there is a GPU, but CUDA {torch.version.cuda} cannot be used: {told}"
    return "there is a GPU, but torch finds none"


def gpu_identities() -> list[str]:
    """Return what tells each visible GPU from all others, whatever numbers a job sees them under.

    SLURM and containers call the GPU of each job 0.
    """
    import torch

    return [
        str(getattr(torch.cuda.get_device_properties(index), "uuid", index))
        for index in range(torch.cuda.device_count())
    ]


def describe_gpu(device: Any) -> str:
    """Return name, capability, driver and CUDA of a GPU, as a log tells them.

    Arguments:
        device: a ``torch.device`` of type cuda.
    """
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    try:
        driver = DRIVER_VERSION.read_text().strip()
    except OSError:
        driver = "unknown"
    return (
        f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}, driver {driver}, "
        f"CUDA {torch.version.cuda}"
    )


if __name__ == "__main__":
    print(unusable_reason())
