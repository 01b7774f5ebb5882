"""Results on their way from a device to the host."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["begin_copy"]


def begin_copy(values: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the host, and return what waits for the copy and returns it.

    A GPU copies when it has done all that it was told before. Whoever waits in another thread
    leaves it to the caller to tell it meanwhile what comes next.
    """
    if values.device.type != "cuda":
        return values.cpu
    copied = values.to("cpu", non_blocking=True)  # into memory that the GPU can write itself
    done = torch.cuda.Event()
    done.record()

    def wait() -> Tensor:
        done.synchronize()
        return copied

    return wait
