"""What all trainings share: a step of the optimiser, the history, the state and the loop."""

import math
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from brnf.engine import distributed
from brnf.engine.checkpoint import Checkpoint
from brnf.engine.history import Row
from brnf.engine.runtime import Progress, Runtime, Waiting
from brnf.engine.watching import Pictures, Watching
from brnf.errors import UserError

__all__ = ["Descent", "Measured", "Row", "Trainer", "fetch", "take_steps"]

Batch = TypeVar("Batch")
Measured = Mapping[str, Tensor | float]
"""Scalars of one step; those that a device computes stay there until all are fetched together."""
GRADIENT_NORM = "gradient's norm"


def fetch(measured: Measured) -> Row:
    """Return scalars as numbers of Python.

    To read a tensor of a GPU is to wait for all that the GPU has been told to do, so that they come
    in one piece.
    """
    tensors = {name: value for name, value in measured.items() if isinstance(value, Tensor)}
    found = torch.stack([value.detach() for value in tensors.values()]).tolist() if tensors else []
    return {**measured, **dict(zip(tensors, found, strict=True))}


class Descent:
    """An optimiser whose learning rates follow a schedule, and which refuses what is not finite.

    Arguments:
        optimiser: new; its rates are those of the schedule's share 1.
        share: from the number of steps taken before to the share of the learning rates.
        advice: what to do when a step is not finite, such as ``lower flow.learning_rate``.
        clip_norm: largest norm of the gradient.
        name: of a step in messages.
        scales: whether the loss is scaled up before its gradient is taken, and down again, as
            float16 needs; a step whose gradient overflows is left out, and lowers the scale.
        averages: whether the gradient is still to be averaged over the processes; that of
            :func:`brnf.engine.distributed.overlapping` is already.
    """

    LEAST_SCALE = 1.0
    """Below which an overflow is no longer that of the scale."""

    def __init__(
        self,
        optimiser: Optimizer,
        share: Callable[[int], float],
        advice: str,
        *,
        clip_norm: float = math.inf,
        name: str = "training step",
        scales: bool = False,
        averages: bool = True,
    ) -> None:
        self.optimiser, self.share = optimiser, share
        self._averages = averages
        self._advice, self._clip_norm, self._name = advice, clip_norm, name
        self._rates = [group["lr"] for group in optimiser.param_groups]
        self._parameters = [value for group in optimiser.param_groups for value in group["params"]]
        self.scaler = torch.amp.GradScaler(self._parameters[0].device.type, enabled=scales)

    def begin(self, done: int) -> None:
        """Set the rates of the step that follows so many others, and forget the last gradient."""
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.share(done)
        self.optimiser.zero_grad(set_to_none=True)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss whose gradient :meth:`finish` takes the step along."""
        found: Tensor = self.scaler.scale(loss)
        return found

    def finish(self, done: int, measured: Measured) -> Row:
        """Take the step along the gradient, averaged over the processes and clipped.

        Arguments:
            done: steps before this one.
            measured: what is known of the step; its ``loss`` is the same in all processes.

        Returns:
            What was measured, in numbers of Python.

        Raises:
            UserError: loss or gradient is not finite; the parameters are as they were.
        """
        if self._averages:
            distributed.average_gradients(self._parameters)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        row = fetch({**measured, GRADIENT_NORM: norm})
        if not math.isfinite(row["loss"]):
            raise self.fault(done, f"the loss is {row['loss']}")
        norm_found = row.pop(GRADIENT_NORM)
        overflows = self.scaler.is_enabled() and self.scaler.get_scale() > self.LEAST_SCALE
        if not math.isfinite(norm_found) and not overflows:
            raise self.fault(done, f"the {GRADIENT_NORM} is {norm_found}")
        self.scaler.step(self.optimiser)  # unless the gradient is not finite
        self.scaler.update()
        return row

    def check_weights(self, done: int) -> None:
        """Look at the parameters after a step that no other follows, whose loss would tell.

        Raises:
            UserError: a parameter is not finite.
        """
        if not torch.stack([value.isfinite().all() for value in self._parameters]).all():
            raise self.fault(done, "the weights are no longer finite")

    def fault(self, done: int, what: str) -> UserError:
        """Return what to raise about a step."""
        return UserError(f"{self._name} {done + 1}: {what}; {self._advice}")


class Trainer(ABC, Generic[Batch]):
    """Train a network step by step; a subclass gives the loss and the optimiser's groups.

    Arguments:
        network: on the device to train on; trained in place.
        descent: over its parameters.
        steps: length of the training.

    Attributes:
        history: a row of each step taken: the loss, its terms and what else is worth a curve.
        device: where to compute.
    """

    def __init__(self, network: nn.Module, descent: Descent, steps: int) -> None:
        self.network, self.descent, self.steps = network.train(), descent, steps
        self.device = next(network.parameters()).device
        self.history: list[Row] = []
        self._seed = torch.initial_seed()

    @abstractmethod
    def add_gradient(self, batch: Batch) -> Measured:
        """Compute the gradient of a step's loss, of several processes each its share.

        Arguments:
            batch: of the step.

        Returns:
            What the row of the history will hold; ``loss`` is the same in all processes.
        """

    def pictures(self, batch: Batch) -> Pictures:
        """Return examples of what the network sees in a batch and says of it; none by default.

        They change nothing in the training.
        """
        return {}

    def step(self, batch: Batch) -> Row:
        """Take one step of the optimiser and return its row of the history.

        Raises:
            UserError: loss or gradient is not finite, or the last step breaks the weights.
        """
        done = len(self.history)
        distributed.seed_step(self._seed, done)
        self.descent.begin(done)
        row = self.descent.finish(done, self.add_gradient(batch))
        if done + 1 == self.steps:
            self.descent.check_weights(done)
        self.history.append(row)
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.descent.optimiser.state_dict(),
            "scaler": self.descent.scaler.state_dict(),
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.descent.optimiser.load_state_dict(state["optimiser"])
        self.descent.scaler.load_state_dict(state["scaler"])
        self.history = list(state["history"])


def take_steps(
    name: str,
    trainer: Trainer[Batch],
    batches: Callable[[int], Iterable[Batch]],
    steps: int,
    checkpoint: Checkpoint,
    runtime: Runtime,
) -> None:
    """Take the steps that a training lacks, writing a checkpoint and the history now and then.

    SIGTERM ends the process with status 143 after the step in progress and a checkpoint. Processes
    that train together begin in the state of the first and end after the same step.

    Arguments:
        name: shown with the progress.
        trainer: new, or restored.
        batches: from the number of batches to leave out at the start to those that follow.
        steps: length of the training.
        checkpoint: where to write.
        runtime: chooses the display, which shows the last known value of each term.

    Raises:
        UserError: a step is refused, or TensorBoard is wanted and not installed.
    """
    checkpoint.share(trainer)
    done = len(trainer.history)
    first = distributed.is_first()
    watching = Watching(checkpoint.output, done, runtime.tensorboard) if first else None
    waiting = Waiting(islice(batches(done), steps - done))
    latest = {name: value for row in trainer.history for name, value in _known(row).items()}
    progress = Progress(waiting, name, runtime, unit="step", total=steps, done=done)
    with _terminated() as terminated:
        try:
            for batch in progress:
                latest |= _known(trainer.step(batch))
                if watching:
                    watching.add(trainer.history, partial(trainer.pictures, batch))
                progress.note(**latest, waiting=waiting.share)
                ended = distributed.any_rank(terminated.is_set(), checkpoint.device)
                if ended or checkpoint.due():
                    checkpoint.write(trainer)
                if ended:
                    raise SystemExit(128 + signal.SIGTERM)
        except (RuntimeError, OSError, EOFError, UserError) as error:
            if (
                terminated.is_set()
            ):  # it was for all processes, and the loading ones are reported as lost
                raise SystemExit(128 + signal.SIGTERM) from error
            raise
        finally:
            if watching:
                watching.close()


def _known(row: Row) -> Row:
    return {name: value for name, value in row.items() if not math.isnan(value)}


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, instead of ending the process in the middle of a step."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # Python lets no other thread set a handler
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: event.set())
    try:
        yield event
    finally:
        if event.is_set():  # torch's handler would raise for each loading process that ends now
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, before)
