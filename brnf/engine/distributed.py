"""One training in several processes, which `torchrun` starts: each computes its share of every
batch, and all take the same step.

The gradient of a step is the mean over the processes, whose shares may differ by one image. So a
loss divides what it sums by :func:`mean_count`, or is a mean over its images that
:func:`batch_mean` weights. Networks exchange gradients while the backward pass is on its way
(:func:`overlapping`, torch's DistributedDataParallel). Flows do so after it
(:func:`average_gradients`): they learn from tiles of rows, one backward pass each, and a process
without a row has none, for which DistributedDataParallel would wait for ever.

In a process of its own everything here returns what it is given.
"""

import ctypes
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from brnf.engine.torchrun_numbers import RUN, torchrun_number
from brnf.errors import UserError

__all__ = [
    "all_gather",
    "any_rank",
    "average_gradients",
    "batch_mean",
    "broadcast",
    "is_first",
    "join",
    "mean",
    "mean_count",
    "overlapping",
    "part",
    "processes",
    "seed_step",
    "share",
    "wait",
    "without_exchange",
]

ENDED_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""
PATIENCE = timedelta(hours=6)
"""That one process waits for another: only the first writes checkpoints, to a disk that may be
slow.
"""


def join(device: torch.device, most: int | None = None) -> None:
    """Join the processes that `torchrun` started with this one; do nothing when it started none.

    Arguments:
        device: of this process, no other one's.
        most: processes that find something to do, None for all; the others end here, as if they
            had done it.
    """
    if RUN not in os.environ or dist.is_initialized():
        return
    started, rank = torchrun_number("WORLD_SIZE", 1), torchrun_number("RANK", 0)
    working = started if most is None else max(1, min(started, most))
    if rank >= working:
        raise SystemExit(0)
    if rank == 0 and working < started:
        line = f"{working} of {started} devices train: a batch has no images for more"
        print(line, file=sys.stderr, flush=True)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            ENDED_WITH_PARENT, signal.SIGTERM
        )  # torchrun's processes would outlive a torchrun that was killed
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, world_size=working, rank=rank)


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this is the process that writes what all of them have computed."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait() -> None:
    """Wait until all processes are here."""
    if processes() > 1:
        dist.barrier()


def part(length: int) -> slice:
    """Return which of so many rows this process computes; the parts may differ by one row."""
    if processes() == 1:
        return slice(0, length)
    rank = dist.get_rank()
    return slice(length * rank // processes(), length * (rank + 1) // processes())


def share(length: int) -> slice:
    """Return which images of a batch this process sees: at least one.

    Raises:
        UserError: there are fewer images than processes.
    """
    if length < processes():
        raise UserError(
            f"a batch of {length} image{'s' * (length > 1)} is too small for {processes()} "
            "devices; raise batch_size or lower devices"
        )
    return part(length)


def mean(value: Tensor) -> Tensor:
    """Return the mean over the processes of a tensor of one shape, without gradient.

    A sum over a share, divided by :func:`mean_count`, has as its mean over the processes the
    mean over the whole batch.
    """
    if processes() == 1:
        return value
    total = value.detach().clone().float()
    dist.all_reduce(total)
    return total / processes()


def mean_count(mask: Tensor) -> Tensor:
    """Return sum(mask) averaged over the processes, at least 1 / their number: the denominator of a
    mean over the batch.
    """
    return mean(mask.sum()).clamp(min=1 / processes())


def batch_mean(value: Tensor, images: int) -> Tensor:
    """Return a mean over the images of a share, weighted by their number: the mean over the
    processes is the mean over the batch, and likewise of the gradient.

    Arguments:
        value: in which every image of the share counts alike.
        images: n, of the share: of N in P processes, the weight is n P / N.
    """
    if processes() == 1:
        return value
    own = value.new_full((), images)
    return value * (own / mean(own))


def all_gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes in their order, without gradient.

    Arguments:
        rows: [n, ...]; n may differ between the processes.
    """
    if processes() == 1:
        return rows
    rows = rows.detach()
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(processes())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(length) for length in lengths)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    found = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(found, padded)
    return torch.cat([values[: int(length)] for values, length in zip(found, lengths, strict=True)])


class _Loss(nn.Module):
    """A loss as the forward pass of a module, with the parameters of a network."""

    def __init__(self, network: nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self._loss = network, loss
        # Where unused parameters are looked for, torch would warn of finding none.
        self.unused = nn.Parameter(torch.zeros((), device=next(network.parameters()).device))

    def forward(self, *batch: Any) -> Any:
        return self._loss(*batch)


def overlapping(network: nn.Module, loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loss in whose backward pass the gradients become their mean over the processes, the
    last layer's while those before it are still computed.

    A parameter on which the loss of no process depends keeps the gradient None.

    Arguments:
        network: whose parameters learn.
        loss: from a batch to the loss, with other tensors beside it or not; all processes call it
            equally often.
    """
    if processes() == 1:
        return loss
    # Where unused parameters are looked for, torch does not arrange its buckets anew after the
    # first step: a training that goes on adds up in the same order as one that was not stopped.
    with warnings.catch_warnings():  # torch 2.4 does not know the argument's new name
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        return DistributedDataParallel(
            _Loss(network, loss), broadcast_buffers=False, find_unused_parameters=True
        )


def without_exchange(loss: Callable[..., Any], more: bool) -> AbstractContextManager[None]:
    """Return a context in which a loss of :func:`overlapping` leaves the gradients as they are
    when ``more`` of the same step follow, to which they are added.
    """
    return loss.no_sync() if more and isinstance(loss, DistributedDataParallel) else nullcontext()


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators for a step, other ones in each process: shares of different sizes
    use up different amounts of random numbers, and a checkpoint holds the first process's state.
    """
    if processes() > 1:
        words = np.random.SeedSequence([seed, step, dist.get_rank()]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over the processes; where only some have one, it counts
    as zero for the others.
    """
    if processes() == 1:
        return
    chosen = list(parameters)
    has = torch.tensor(
        [parameter.grad is not None for parameter in chosen],
        dtype=torch.uint8,
        device=chosen[0].device,
    )
    dist.all_reduce(has, dist.ReduceOp.MAX)
    learning = [parameter for parameter, some in zip(chosen, has.tolist(), strict=True) if some]
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in learning
    ]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    for parameter, values in zip(
        learning,
        joined.div_(processes()).split([gradient.numel() for gradient in gradients]),
        strict=True,
    ):
        parameter.grad = values.view_as(parameter).clone()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process, the same in all of them."""
    return bool(mean(torch.tensor(float(flag), device=device)) > 0)


def broadcast(state: Callable[[], Any]) -> Any:
    """Return the tensors and plain values that the first process has, on the CPU in all others.

    Arguments:
        state: returns them; called by the first only.
    """
    if processes() == 1:
        return state()
    packed: list[Any] = [None]
    if is_first():
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        packed = [buffer.getvalue()]
    dist.broadcast_object_list(packed)
    return torch.load(io.BytesIO(packed[0]), map_location="cpu", weights_only=True)
