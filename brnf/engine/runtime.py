"""The settings of the machine, and the display of progress."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from brnf.config.sections.bounds import Precision
from brnf.engine.cuda import describe_gpu, gpu_identities, unusable_reason, visible_gpus
from brnf.engine.gpu import claim_gpu
from brnf.engine.matmul import use_fast_matmul
from brnf.engine.memory import keep_freed_memory
from brnf.engine.precision import ask_for_equal_bytes, described, use_precision
from brnf.engine.torchrun_numbers import torchrun_number
from brnf.errors import UserError

__all__ = ["FIRST", "Progress", "Runtime", "Waiting"]

FIRST = torchrun_number("RANK", 0) == 0
"""Whether this process speaks for all that train together."""


@dataclass(frozen=True)
class Runtime:
    """Settings of the machine; none of them changes a result (but see ``threads``)."""

    device: str = "auto"
    """Where to compute: auto (a GPU that no other job has, else the CPU), cpu, cuda, cuda:1 ..."""
    threads: int = 1
    """CPU threads; results are equal to the byte only for equal counts."""
    workers: int = 2
    """Processes that read, prepare and compress images, or run the dense CRF; 0 does so in the
    stage's own process.
    """
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """A bar on a terminal, lines elsewhere."""
    feature_cache: Path | None = None
    """Folder in which trainings share a frozen backbone's outputs; without one each computes its
    own.
    """
    checkpoint_seconds: float = 300.0
    """Seconds between the checkpoints of a training: at most so much of its work is lost when it is
    killed; 0 writes one a step.
    """
    deterministic: bool = False
    """Take only those ways of a GPU to compute that give equal bytes each time."""
    tensorboard: bool = False
    """Write curves and pictures of a training for TensorBoard, into the folder ``tensorboard``
    beside its network.
    """

    def torch_device(self, told: bool = True, precision: Precision = "fp32") -> Any:
        """Set thread counts, how memory is kept and the library of matrix products, name the device
        on the standard error, and return it, a ``torch.device``.

        Arguments:
            told: whether to name it, and to wait for a GPU that other jobs have; what only uses a
                network does neither.
            precision: in which its networks compute.

        Raises:
            UserError: the device does not exist, torch has nothing compiled for it, or it cannot
                compute in the precision.
        """
        import cv2
        import torch

        keep_freed_memory()
        use_fast_matmul()
        if self.deterministic and self.device != "cpu" and torch.cuda.is_available():
            ask_for_equal_bytes()  # before CUDA starts
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        name = self.device
        if name == "auto":
            available = torch.cuda.is_available()
            name = f"cuda:{claim_gpu(gpu_identities(), waits=told)}" if available else "cpu"
        try:
            device = torch.device(name)
            torch.ones(1, device=device)  # a kernel, too: a GPU may be too old for this build
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device '{name}' cannot be used here ({str(error).splitlines()[0]}); set device: "
                f"{'cpu' if self.device == 'auto' else 'auto'}"
            ) from error
        use_precision(precision, device)
        if told and FIRST:
            print(f"device: {self._described(device, precision)}", file=sys.stderr, flush=True)
        return device

    def gpu(self) -> Any | None:
        """Return the GPU that :meth:`torch_device` chooses, None where that is the CPU.

        Where there is no GPU torch is not imported.

        Raises:
            UserError: as there.
        """
        if self.device == "cpu" or (self.device == "auto" and not visible_gpus()):
            return None
        device = self.torch_device()
        return None if device.type == "cpu" else device

    def _described(self, device: Any, precision: Precision) -> str:
        """Return what a log says about where a stage computes."""
        name = str(device)
        if device.type == "cuda":
            name += f" ({describe_gpu(device)})"
        elif self.device == "auto":
            name += f" (auto: {unusable_reason()})"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        processes = torchrun_number("WORLD_SIZE", 1)
        together = f", {processes} processes together" if processes > 1 else ""
        return f"{name}, {described(precision, device)}, {threads}{together}"


class Waiting:
    """Pass items on and tell which share of the time went by while they were fetched: a training
    that waits for its data.

    Arguments:
        items: to pass on.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._start = time.perf_counter()
        self._waited = 0.0

    def __iter__(self) -> Iterator[Any]:
        items = iter(self._items)
        self._start, self._waited = time.perf_counter(), 0.0
        while True:
            asked = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            yield item

    @property
    def share(self) -> float:
        """Return the share of the time since the first item was asked for, 0..1."""
        return self._waited / max(time.perf_counter() - self._start, 1e-9)


class Progress:
    """Show how far a stage is: a bar on a terminal, elsewhere a line every few seconds.

    Arguments:
        items: what to go through; ``len`` gives the total unless ``total`` does.
        name: what is done, such as ``train flow``.
        runtime: chooses the kind of display.
        unit: of an item, such as ``image`` or ``step``.
        total: number of items when ``items`` has no length.
        done: how many of the total are done before the first item.
    """

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(
        self,
        items: Iterable[Any],
        name: str,
        runtime: Runtime,
        *,
        unit: str = "it",
        total: int | None = None,
        done: int = 0,
    ) -> None:
        self._items, self._name, self._unit, self._done = items, name, unit, done
        self._total = total if total is not None else len(items)  # type: ignore[arg-type]
        mode = runtime.progress if FIRST else "none"
        self._mode = ("bar" if sys.stderr.isatty() else "lines") if mode == "auto" else mode
        self._note = ""

    def note(self, **values: float) -> None:
        """Show values, such as the loss, beside the rate."""
        self._note = " ".join(f"{key} {value:.4g}" for key, value in values.items())

    def __iter__(self) -> Iterator[Any]:
        if self._mode == "bar":
            bar = tqdm(
                self._items,
                desc=self._name,
                unit=self._unit,
                total=self._total,
                initial=self._done,
                dynamic_ncols=True,
            )
            for item in bar:
                yield item
                bar.set_postfix_str(self._note, refresh=False)
            return
        start = last = time.monotonic()
        for done, item in enumerate(self._items, self._done + 1):
            yield item
            now = time.monotonic()
            if self._mode == "lines" and (
                now - last >= self.SECONDS_BETWEEN_LINES or done == self._total
            ):
                last = now
                rate = (done - self._done) / max(now - start, 1e-9)
                left = (self._total - done) / rate
                line = (
                    f"{self._name}: {done}/{self._total} {self._unit}s, {rate:.3g}/s, "
                    f"{left:.0f} s left"
                )
                print(f"{line}, {self._note}" if self._note else line, file=sys.stderr, flush=True)
