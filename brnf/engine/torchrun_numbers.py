"""What `torchrun` tells the processes that it starts."""

import os
from collections.abc import Mapping

__all__ = ["RUN", "torchrun_number"]

RUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that no other program sets."""


def torchrun_number(name: str, default: int, environment: Mapping[str, str] = os.environ) -> int:
    """Return a number that torchrun has told this process, the default when it did not start it.

    Schedulers and shells export ``WORLD_SIZE`` and ``RANK``, too, for programs that are not this
    one.

    Arguments:
        name: of the environment variable, such as ``WORLD_SIZE``.
        default: of a process alone.
        environment: to look into.
    """
    return int(environment.get(name, default)) if RUN in environment else default
