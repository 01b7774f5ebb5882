"""What a check has found."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from brnf.engine.runtime import Runtime
from tests.gpu.chain import ROOT, Chain

__all__ = ["Context", "NeedsGpuError", "Result"]


class NeedsGpuError(Exception):
    """A check means nothing on a CPU."""


@dataclass(frozen=True)
class Result:
    """One line.

    Attributes:
        what: was looked at.
        found: what there was.
        passed: whether that is as it has to be.
    """

    what: str
    found: str
    passed: bool = True

    def __str__(self) -> str:
        """Return the line."""
        return f"  {'ok' if self.passed else 'FAILED':7}{self.what}: {self.found}"


@dataclass(frozen=True)
class Context:
    """Where a check runs.

    Attributes:
        device: ``cuda:0`` or ``cpu``.
        folder: of all checks.
        name: of this one.
    """

    device: str
    folder: Path
    name: str

    @property
    def chain(self) -> Chain:
        """Return the files of the CPU's run."""
        return Chain(self.folder)

    @property
    def own(self) -> Path:
        """Return a folder for this check alone."""
        place = self.folder / self.name
        place.mkdir(exist_ok=True)
        return place

    @property
    def torch_device(self) -> torch.device:
        """Return the device."""
        return torch.device(self.device)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return what the device computes in; on a CPU one is enough to try this script."""
        if self.device == "cpu":
            return ("fp32", "bf16")
        bfloat = torch.cuda.get_device_capability(self.device)[0] >= 8
        return ("fp32", "tf32", *(["bf16"] if bfloat else []), "fp16")

    def runtime(self, **others: object) -> Runtime:
        """Return the settings of a stage here."""
        return Runtime(device=self.device, workers=0, progress="none", **others)  # type: ignore[arg-type]

    def need_gpu(self) -> None:
        """Raise unless there is a GPU.

        Raises:
            NeedsGpuError: there is none.
        """
        if self.device == "cpu":
            raise NeedsGpuError

    def environment(self) -> dict[str, str]:
        """Return that of a process that sees one GPU and has locks of its own."""
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        temporary = self.own / "tmp"
        temporary.mkdir(exist_ok=True)
        return {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": first,
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def python(self, *words: str) -> list[str]:
        """Return a command of this Python."""
        return [sys.executable, *words]
