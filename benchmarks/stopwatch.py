"""Our code and the reference of a stage, each in a process of its own: what is timed, in which
phase and in which hot loop, and the peak of memory.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from brnf.engine.memory import peak_memory
from brnf.errors import UserError

__all__ = ["GOALS", "REST", "Build", "Runner", "Spent", "Stopwatch", "TimedProcess", "replaced"]

REST = "rest"
"""Phase of everything that belongs to no other."""
GOALS = {
    "CAM inference": 1.1,
    "prototypes, seeds, cosine maps": 1.8,
    "pixel-store minibatches": 30.0,
    "flow training step": 2.2,
    "flow log-density": 3.0,
    "dense CRF": 2.0,
    "confusion matrix": 3.0,
}
"""Hot loop -> how many times as fast as the research code it shall be, in float32 on one thread, as
its own benchmark has it.
"""


@dataclass(frozen=True)
class Spent:
    """Where the time of one run went, seconds of processor time.

    Attributes:
        phases: seconds of each phase; phases do not overlap.
        loops: seconds of each hot loop in each phase, by (phase, loop); loops do not overlap
            either.
    """

    phases: dict[str, float]
    loops: dict[tuple[str, str], float]

    def whole(self, factors: dict[str, float]) -> float:
        """Return the seconds of the whole experiment.

        Arguments:
            factors: how many times as much as was measured the experiment has, by phase.
        """
        return sum(seconds * factors[phase] for phase, seconds in self.phases.items())

    def whole_loops(self, factors: dict[str, float]) -> dict[str, float]:
        """Return the seconds of the whole experiment inside each hot loop."""
        found: dict[str, float] = defaultdict(float)
        for (phase, loop), seconds in self.loops.items():
            found[loop] += seconds * factors[phase]
        return dict(found)


@dataclass
class Stopwatch:
    """Tell phases and hot loops of a run apart.

    Arguments:
        clock: gives seconds.
    """

    clock: Callable[[], float] = time.process_time
    _phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _loops: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    _phase: str = REST
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block to a phase; phases are not nested."""
        before, start = self._phase, self.clock()
        self._phase = name
        try:
            yield
        finally:
            self._phase = before
            self._phases[name] += self.clock() - start

    @contextmanager
    def loop(self, name: str) -> Iterator[None]:
        """Count the block to a hot loop; what an inner loop takes is taken off the outer one."""
        assert name in GOALS, name
        start = self.clock()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = self.clock() - start
            self._loops[self._phase, name] += elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed

    def time(self, run: Callable[[], object]) -> Spent:
        """Run and return where the time went."""
        self._phases.clear()
        self._loops.clear()
        start = self.clock()
        run()
        total = self.clock() - start
        rest = total - sum(self._phases.values())
        return Spent({**self._phases, REST: rest}, dict(self._loops))


Runner = Callable[[Path], None]
"""Does the measured work and writes into an empty folder."""
Build = Callable[[Any, Stopwatch], Runner]
"""From a finished run and a stopwatch to the runner: sets up what both sides have, such as networks
with their weights.
"""


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Replace attributes of a module or an object within the block."""
    before = {name: getattr(owner, name) for name in attributes}
    for name, value in attributes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


class TimedProcess:
    """Our code or the reference of a stage in its process, which waits between its runs.

    Arguments:
        build: of a module, so that the process finds it.
        run: the finished run.

    Raises:
        UserError: the code does not have what the run is configured to do.
        RuntimeError: the process failed; its traceback is in the message.
    """

    def __init__(self, build: Build, run: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["benchmarks.ours", "benchmarks.reference_images", "benchmarks.reference_training"]
        )
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, build, run), daemon=True)
        self._process.start()
        other.close()
        self._receive()

    def time(self, folder: Path) -> Spent:
        """Do the work once and return where the time went."""
        folder.mkdir(parents=True)
        self._connection.send(folder)
        spent: Spent = self._receive()
        return spent

    def finish(self) -> float:
        """End the process and return the most memory it has held, bytes."""
        self._connection.send(None)
        peak: float = self._receive()
        self._process.join()
        return peak

    def _receive(self) -> Any:
        try:
            kind, content = self._connection.recv()
        except EOFError as error:
            raise RuntimeError("a measuring process died") from error
        if kind == "refused":
            raise UserError(content)
        if kind == "error":
            raise RuntimeError(content)
        return content


def _serve(connection: Connection, build: Build, run: Any) -> None:
    """Answer each folder with the time of a run into it, and None with the peak of memory."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        watch = Stopwatch()
        runner = build(run, watch)
        connection.send(("ready", None))
        while (folder := connection.recv()) is not None:
            connection.send(("spent", watch.time(lambda folder=folder: runner(folder))))  # type: ignore[misc]
        connection.send(("peak", peak_memory()))
    except UserError as error:
        connection.send(("refused", str(error)))
    except Exception:
        connection.send(("error", traceback.format_exc()))
