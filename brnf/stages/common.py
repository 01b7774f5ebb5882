"""What all stages share: the command line, the runtime settings, the progress display."""

import inspect
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from brnf.errors import DamagedProduct, UserError
from brnf.memory import keep_freed_memory, tell_peak
from brnf.products import use_fast_products
from brnf.stages.devices import claim_gpu

__all__ = ["BY_WORKFLOW", "Progress", "Runtime", "Waiting", "run_stage"]

FIRST = os.environ.get("RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" not in os.environ
"""Whether this process speaks for all that train together."""
BY_WORKFLOW = "BRNF_BY_WORKFLOW"
"""Environment variable that the workflow sets: its rules can make every product of a stage again."""
TOGETHER = int(os.environ.get("WORLD_SIZE", 1)) > 1
"""Whether there are others that train with this process."""
ANSWER = timedelta(seconds=10)
"""That torchrun takes at most to say how many processes have told a mistake."""
LEGEND = "[P] printed by the paper, [B] from its code bases, [D] our decision: docs/method.md"
"""Explains the marks of origin on every help page."""
HUNG_UP = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")
PARTNER_LOST = "another of the processes that train together has ended; look for its error above and run again"
NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory", "Cannot allocate memory", "Unable to allocate")


@dataclass(frozen=True)
class Runtime:
    """Settings of the machine; none of them changes a result (but see ``threads``)."""

    device: str = "auto"
    """Where to compute: auto (a GPU that no other job has, else the CPU), cpu, cuda, cuda:1 ..."""
    threads: int = 1
    """CPU threads; results are equal to the byte only for equal counts."""
    workers: int = 2
    """Processes that read and prepare images, or run the dense CRF; 0 does so in the stage's own process."""
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """A bar on a terminal, lines elsewhere."""
    kept: Path | None = None
    """Folder in which trainings share a frozen backbone's outputs; without one each computes its own."""
    checkpoint_seconds: float = 300.0
    """Seconds between the checkpoints of a training: at most so much of its work is lost when it is killed; 0 writes one a step."""

    def torch_device(self) -> Any:
        """Set thread counts, how memory is kept and who takes matrix products, and return the device, a ``torch.device``.

        Raises:
            UserError: the device does not exist.
        """
        import cv2
        import torch

        keep_freed_memory()
        use_fast_products()
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        name = self.device
        if name == "auto":
            name = f"cuda:{claim_gpu(torch.cuda.device_count())}" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device '{name}' cannot be used here ({str(error).splitlines()[0]}); set device: auto") from error
        return device


def run_stage(run: Callable[..., None]) -> None:
    """Run a stage from the command line that its signature describes.

    Arguments:
        run: ``run(inputs, outputs, options, runtime)``, each a dataclass; their fields become the flags.

    Ends with a line on the standard error of the most memory that the process has held. Exits with status 2 and one line there for a
    mistake of the user or a lack of the machine, with status 143 after SIGTERM; temporary files are removed first.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + signal.SIGTERM))
    if not FIRST:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, it stays open to the end
    module = sys.modules[run.__module__].__spec__
    prog = f"python -m {module.name}" if module else None
    try:
        tyro.cli(
            run,
            prog=prog,
            description=f"{inspect.getdoc(run) or ''}\n\n{LEGEND}",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
        )
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = _told(error)
        if line is None:
            raise
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # all is unwound; torchrun may end this process while it ends
        if _speaks():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    if FIRST:
        tell_peak()


def _speaks() -> bool:
    """Tell whether this process is to tell its mistake: of those that train together the first to meet one, for most meet it all."""
    if not TOGETHER:
        return True
    from torch.distributed import TCPStore  # not above: a stage without a network does without torch

    try:
        counter = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=ANSWER)
        return counter.add("brnf mistakes", 1) == 1
    except RuntimeError:  # torchrun has ended
        return True


def _told(error: Exception) -> str | None:
    """Return the line that a user is told, or None for a fault of the program."""
    if isinstance(error, DamagedProduct):
        return _set_aside(error) if os.environ.get(BY_WORKFLOW) else str(error)
    if isinstance(error, UserError):
        return str(error)
    if TOGETHER and (type(error).__name__.startswith("Dist") or "gloo" in str(error)):
        if any(words in str(error) for words in HUNG_UP):
            return PARTNER_LOST
        return f"the devices of this training cannot work together ({str(error).splitlines()[0]}); set devices: 1"
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return "out of memory; lower batch_size, image_long_side or workers, or ask for more memory"
    return None


def _set_aside(error: DamagedProduct) -> str:
    """Rename a damaged product, so that the workflow's next run makes it anew, and return what the user is told."""
    aside = error.path.with_name(f"{error.path.name}.damaged")
    try:
        if aside.is_dir():
            shutil.rmtree(aside)
        error.path.replace(aside)
    except FileNotFoundError:
        pass  # another job that reads it was faster
    except OSError:
        return str(error)
    return f"{error.path}: {error.fault}; it is now {aside.name}, run the workflow again: {error.stage} makes it anew"


class Waiting:
    """Pass items on and tell which share of the time went by while they were fetched: a training that waits for its data.

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
        self, items: Iterable[Any], name: str, runtime: Runtime, *, unit: str = "it", total: int | None = None, done: int = 0
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
            bar = tqdm(self._items, desc=self._name, unit=self._unit, total=self._total, initial=self._done, dynamic_ncols=True)
            for item in bar:
                yield item
                bar.set_postfix_str(self._note, refresh=False)
            return
        start = last = time.monotonic()
        for done, item in enumerate(self._items, self._done + 1):
            yield item
            now = time.monotonic()
            if self._mode == "lines" and (now - last >= self.SECONDS_BETWEEN_LINES or done == self._total):
                last = now
                rate = (done - self._done) / max(now - start, 1e-9)
                left = (self._total - done) / rate
                line = f"{self._name}: {done}/{self._total} {self._unit}s, {rate:.3g}/s, {left:.0f} s left"
                print(f"{line}, {self._note}" if self._note else line, file=sys.stderr, flush=True)
