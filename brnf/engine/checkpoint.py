"""Checkpoints of trainings: an undeclared file beside the output, from which a training that was
killed goes on to the same bytes.
"""

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from brnf.config.sections.bounds import Precision
from brnf.engine import distributed
from brnf.engine.controller import has_died
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.fingerprint import fingerprint
from brnf.store.files import locked
from brnf.store.tensors import read_tensors, write_tensors

__all__ = [
    "Checkpoint",
    "Resumable",
    "Stateful",
    "only_training",
    "training_device",
    "training_stamp",
]

READ_WHOLE = 64 * 2**20
"""Bytes up to which an input counts by its content; a larger one by the sizes and times of its
files.
"""


class Stateful(Protocol):
    """What can give its state and take it back."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return all that the next steps depend on, as tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> object:
        """Take over what :meth:`state_dict` returned."""
        ...


class Resumable(Stateful, Protocol):
    """A training that can be stopped between two steps."""

    @property
    def history(self) -> Sized:
        """Return a row for each step taken."""
        ...


def training_device(
    runtime: Runtime, precision: Precision = "fp32", most: int | None = None
) -> torch.device:
    """Return the device of a training, which joins the others of those that `torchrun` started.

    Arguments:
        runtime: settings of the machine.
        precision: in which networks compute.
        most: processes among which a batch can be shared, None for any number; one too many ends
            here.
    """
    device: torch.device = runtime.torch_device(precision=precision)
    distributed.join(device, most)
    return device


def training_stamp(stage: str, options: Any, device: torch.device, *sources: Any) -> str:
    """Hash all that the course of a training depends on: code, options, inputs and where it is
    computed.

    Arguments:
        stage: name of the module in :mod:`brnf.stages`.
        options: dataclass of plain values.
        device: where to compute; generators of one kind of device mean nothing to another.
        sources: what is trained on: paths of files or folders, which count by their content, and
            plain values.
    """
    digest = hashlib.sha256()
    for part in (
        fingerprint(f"brnf.stages.{stage}"),
        torch.__version__,
        device.type,
        options,
        *sources,
    ):
        digest.update(f"{_content(part) if isinstance(part, Path) else part}\n".encode())
    return digest.hexdigest()


def _content(path: Path) -> list[str]:
    """Describe the content of a file, or of a folder with all its files."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    states = [file.stat() for file in files]
    if sum(state.st_size for state in states) > READ_WHOLE:
        return [
            f"{file.relative_to(path)} {state.st_size} {state.st_mtime_ns}"
            for file, state in zip(files, states, strict=True)
        ]
    return [
        f"{file.relative_to(path)} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in files
    ]


@contextmanager
def only_training(output: Path) -> Iterator[None]:
    """Hold the lock of a training's output; of several processes that train together the first
    holds it for all.
    """
    with locked(output) if distributed.is_first() else nullcontext():
        yield


@dataclass
class Checkpoint:
    """The checkpoint of one training; of several processes that train together only the first reads
    and writes it.

    Arguments:
        output: of the stage; the checkpoint is ``<stem>.checkpoint.pt`` beside it.
        stamp: of :func:`training_stamp`.
        device: whose random generator is part of the state.
        seconds: between two checkpoints; 0 writes one after every step.
    """

    output: Path
    stamp: str
    device: torch.device
    seconds: float

    def __post_init__(self) -> None:
        self._written = time.monotonic()
        self._warned = False

    @property
    def path(self) -> Path:
        """Return where it lies."""
        return self.output.with_name(f"{self.output.stem}.checkpoint.pt")

    def restore(self, trainer: Resumable) -> bool:
        """Bring a new trainer to where the last one stopped; return whether there was such a state.

        A checkpoint of other options, inputs or code, or a damaged one, is discarded with one line.
        Of processes that train together the first is brought there;
        :func:`brnf.engine.trainer.take_steps` lets the others follow.
        """
        return distributed.any_rank(distributed.is_first() and self._restore(trainer), self.device)

    def _restore(self, trainer: Resumable) -> bool:
        if not self.path.exists():
            return False
        try:
            content = read_tensors(self.path, "the training starts anew")
            stamp, state, random = content["stamp"], content["trainer"], content["random"]
        except (UserError, KeyError, TypeError) as error:
            reason = (
                error
                if isinstance(error, UserError)
                else f"{self.path}: not a checkpoint; the training starts anew"
            )
            return self._discard(str(reason))
        if stamp != self.stamp:
            return self._discard(
                f"{self.path}: made with other options, inputs or code; the training starts anew"
            )
        trainer.load_state_dict(state)
        self._set_random(random)
        print(
            f"{self.path}: the training goes on after step {len(trainer.history)}",
            file=sys.stderr,
            flush=True,
        )
        return True

    def share(self, trainer: Resumable) -> None:
        """Bring all processes' trainers and random generators to the state of the first."""
        if distributed.processes() > 1:
            state, random = distributed.broadcast(lambda: (trainer.state_dict(), self._random()))
            trainer.load_state_dict(state)
            self._set_random(random)

    def _random(self) -> dict[str, Tensor]:
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return random

    def _set_random(self, random: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)

    def due(self) -> bool:
        """Return whether it is time to write."""
        return distributed.is_first() and time.monotonic() - self._written >= self.seconds

    def write(self, trainer: Resumable) -> None:
        """Write the state, whole or not at all; a disk that does not take it is worth a warning,
        not the training.
        """
        if not distributed.is_first():
            return
        try:
            write_tensors(
                self.path,
                {"stamp": self.stamp, "trainer": trainer.state_dict(), "random": self._random()},
            )
        except (
            UserError,
            OSError,
            RuntimeError,
        ) as error:  # torch reports a failed write as a RuntimeError
            if not self._warned:
                print(
                    f"warning: {str(error).splitlines()[0]}; the training goes on without a "
                    "checkpoint",
                    file=sys.stderr,
                    flush=True,
                )
            self._warned = True
        self._written = time.monotonic()

    def finish(self, trainer: Resumable) -> None:
        """Remove the checkpoint after the outputs are written.

        When the workflow has died meanwhile, the next one will not believe these outputs and ask
        for them again: then the state after the last step stays for it.
        """
        if has_died():
            self.write(trainer)
        elif distributed.is_first():
            self.path.unlink(missing_ok=True)

    def _discard(self, reason: str) -> bool:
        print(reason, file=sys.stderr, flush=True)
        self.path.unlink(missing_ok=True)
        return False
