"""What a training shows while it runs: its history, and curves and pictures for TensorBoard."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brnf.engine.history import Row, partial_history, write_history
from brnf.errors import UserError

__all__ = ["Pictures", "Watching", "check_tensorboard"]

Pictures = Mapping[str, NDArray[np.uint8]]
"""Examples of what a network sees and says: name -> RGB picture [H, W, 3]."""

SECONDS = 30.0
"""Between two writings of the history so far."""


def check_tensorboard(wanted: bool) -> None:
    """Check that TensorBoard is there if it is wanted.

    Raises:
        UserError: it is not.
    """
    if wanted and find_spec("tensorboard") is None:
        raise UserError(
            "tensorboard: true needs the package of that name; pip install tensorboard, or set it "
            "to false"
        )


class Watching:
    """Write what is known of a training beside its output, for as long as it runs.

    A disk that does not take it costs the view, not the training.

    Arguments:
        output: of the training: the history so far is ``history.partial.csv`` beside it, the curves
            are in the folder ``tensorboard``.
        done: steps taken before.
        tensorboard: whether to write the curves.

    Raises:
        UserError: TensorBoard is wanted and not installed.
    """

    def __init__(self, output: Path, done: int, tensorboard: bool) -> None:
        self._path = partial_history(output.with_name("history.csv"))
        self._written = time.monotonic()
        check_tensorboard(tensorboard)
        self._writer = _writer(output.with_name("tensorboard"), done) if tensorboard else None

    def add(self, history: Sequence[Row], pictures: Callable[[], Pictures] = dict) -> bool:
        """Show the last step of a history; return whether the history so far was written.

        Arguments:
            history: of all steps so far.
            pictures: makes examples, each time the history is written and for TensorBoard only.
        """
        if self._writer:
            for name, value in history[-1].items():
                if not math.isnan(value):
                    self._writer.add_scalar(name, value, len(history))
        if time.monotonic() - self._written < SECONDS:
            return False
        with suppress(UserError, OSError):
            write_history(self._path, history)
            if self._writer:
                for name, picture in pictures().items():
                    self._writer.add_image(name, picture, len(history), dataformats="HWC")
                self._writer.flush()
        self._written = time.monotonic()
        return True

    def close(self) -> None:
        """Write the last curves."""
        if self._writer:
            with suppress(OSError):
                self._writer.close()


def _writer(folder: Path, done: int) -> Any:
    """Return what writes curves: those of a training that starts anew replace the older ones."""
    from torch.utils.tensorboard import SummaryWriter  # here, since few want it

    if not done:
        shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(folder, purge_step=done + 1, flush_secs=int(SECONDS))
