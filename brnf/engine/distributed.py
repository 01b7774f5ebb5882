"""One training in several processes, which `torchrun` starts: each computes its part of every
batch, and all take the same step.

In a process of its own everything here returns what it is given.
"""

import ctypes
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from brnf.engine.torchrun_numbers import RUN
from brnf.errors import UserError

__all__ = [
    "all_gather",
    "any_rank",
    "average_gradients",
    "broadcast",
    "is_first",
    "join",
    "mean",
    "mean_count",
    "part",
    "processes",
    "share",
    "wait",
]

ENDED_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""
PATIENCE = timedelta(hours=6)
"""That one process waits for another: only the first writes checkpoints, to a disk that may be
slow.
"""


def join(device: torch.device) -> None:
    """Join the processes that `torchrun` started with this one; do nothing when it started none.

    Arguments:
        device: of this process, no other one's.
    """
    if RUN not in os.environ or dist.is_initialized():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            ENDED_WITH_PARENT, signal.SIGTERM
        )  # torchrun's processes would outlive a torchrun that was killed
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


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
    """Return which images of a batch this process sees: equal shares, so that a mean over the
    shares is that over the batch.

    Raises:
        UserError: the batch cannot be shared.
    """
    if length % processes():
        raise UserError(
            f"a batch of {length} images has no equal shares for {processes()} devices; choose "
            "another batch_size or devices"
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
