"""Interleaved timing, goals and their table, and what is known of the machine."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, version
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from brnf.engine.matmul import fast_matmul

__all__ = [
    "Goal",
    "Repeats",
    "Row",
    "Timing",
    "aligned",
    "at_least",
    "at_most",
    "bfloat16_unit",
    "compare",
    "duration",
    "interleave",
    "machine",
    "peak_extra_memory",
    "table",
]

PACKAGES = ("torch", "numpy", "numba", "FrEIA", "h5py", "opencv-python-headless", "timm")
RIVALS = ("pydensecrf2",)
"""Told of where they are installed."""
SHOWN_LOOP = (
    "loop",
    "size",
    "this project",
    "reference",
    "ratio (least to most)",
    "limit",
    "of limit",
    "goal",
    "met",
)


class Repeats(NamedTuple):
    """How often each side runs, fixed before any time is known: short loops are as easily disturbed
    as long ones.
    """

    least: int
    """Timed runs of each side at least."""
    seconds: float
    """And as many more as begin within this time, both sides and the limit together."""


@dataclass(frozen=True)
class Timing:
    """Times of one contender, one a repeat, seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median, seconds."""
        return median(self.seconds)

    def times_faster_than(self, other: "Timing") -> tuple[float, float, float]:
        """Return median, least and most of the ratios ``other / self`` of neighbouring runs."""
        ratios = [theirs / own for own, theirs in zip(self.seconds, other.seconds, strict=True)]
        return median(ratios), min(ratios), max(ratios)

    def divided(self, share: float) -> "Timing":
        """Return the times of the whole work when this was a share of it."""
        return Timing(tuple(value / share for value in self.seconds))


def clock_of(processes: bool = False) -> Callable[[], float]:
    """Return what to time with: the processor time of a single thread, which other programs of the
    machine do not lengthen, else the wall time.

    Arguments:
        processes: whether work is handed to other processes.
    """
    return time.perf_counter if processes or torch.get_num_threads() > 1 else time.process_time


def interleave(
    runs: Mapping[str, Callable[[], object]], repeats: Repeats, clock: Callable[[], float]
) -> dict[str, Timing]:
    """Time contenders in turn, so that a busy machine slows all of them.

    Every contender runs once before that, untimed.

    Arguments:
        runs: what to time, by name.
        repeats: how many.
        clock: gives seconds.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    begun, rounds = time.monotonic(), 0
    while rounds < repeats.least or time.monotonic() - begun < repeats.seconds:
        rounds += 1
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


@dataclass(frozen=True)
class Goal:
    """What a figure has to reach.

    Attributes:
        text: the bound, and the figure when no other column shows it.
        met: whether it is reached.
    """

    text: str
    met: bool


def at_least(bound: float, value: float, unit: str = "×") -> Goal:
    """Return the goal ``value >= bound``."""
    return Goal(f"≥ {bound:g}{unit}", value >= bound)


def at_most(bound: float, value: float, unit: str) -> Goal:
    """Return the goal ``value < bound``; its text shows the value."""
    return Goal(f"{unit} < {bound:g} ({value:.2f})", value < bound)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        loop: its name.
        size: shapes, and what else decides the time.
        ours: of this project.
        reference: of the naive way, over the same work.
        limit: what bounds the loop, such as ``GEMM``; empty when nothing was measured.
        bound: time that the limit allows for the same work.
        goals: judged by the script.
    """

    loop: str
    size: str
    ours: Timing
    reference: Timing
    limit: str
    bound: Timing | None
    goals: tuple[Goal, ...]

    def cells(self) -> tuple[str, ...]:
        """Return the columns of the table as text."""
        ratio, least, most = self.ours.times_faster_than(self.reference)
        share = "" if self.bound is None else f"{self.ours.times_faster_than(self.bound)[0]:.2f}"
        return (
            self.loop,
            self.size,
            duration(self.ours.median),
            duration(self.reference.median),
            f"{ratio:.1f} ({least:.1f} to {most:.1f})",
            self.limit if self.bound is None else f"{self.limit} {duration(self.bound.median)}",
            share,
            "; ".join(goal.text for goal in self.goals),
            ", ".join("yes" if goal.met else "NO" for goal in self.goals),
        )


def compare(
    loop: str,
    size: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    repeats: Repeats,
    *,
    reference_share: float = 1.0,
    limit: str = "",
    bound: Callable[[], object] | None = None,
    bound_share: float = 1.0,
    ratio: float | None = None,
    share: float | None = None,
    processes: bool = False,
    goals: Sequence[Goal] = (),
) -> Row:
    """Time both sides and the limit in turn and judge the goals.

    This project's side has the products that its stages have, and so has the limit; the reference
    has torch's own.

    Arguments:
        loop: its name.
        size: shapes, and what else decides the time.
        ours: this project's way.
        reference: the naive way.
        repeats: timed runs of each.
        reference_share: of the work, that one run of ``reference`` does.
        limit: name of the limit.
        bound: the limit's work.
        bound_share: of the work, that one run of ``bound`` does.
        ratio: the goal for reference / ours, or None.
        share: the goal for limit / ours, or None.
        processes: whether ours hands work to other processes.
        goals: further ones.
    """
    runs = {"ours": fast_matmul()(ours), "reference": reference} | (
        {"bound": fast_matmul()(bound)} if bound else {}
    )
    timings = interleave(runs, repeats, clock_of(processes))
    own, theirs = timings["ours"], timings["reference"].divided(reference_share)
    allowed = timings["bound"].divided(bound_share) if bound else None
    judged = [] if ratio is None else [at_least(ratio, own.times_faster_than(theirs)[0])]
    if share is not None and allowed is not None:
        judged.append(at_least(share, own.times_faster_than(allowed)[0], " of the limit"))
    return Row(loop, size, own, theirs, limit, allowed, (*judged, *goals))


def duration(seconds: float) -> str:
    """Return seconds in a unit that suits them."""
    if seconds >= 1000:
        return f"{seconds:.0f} s"
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * scale:.3g} {unit}"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown, its heading first."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    return [shown[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *shown[1:]]


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown; its last line counts the goals."""
    shown = aligned([SHOWN_LOOP, *(row.cells() for row in rows)])
    met = [goal.met for row in rows for goal in row.goals]
    return "\n".join([*shown, "", f"goals: {met.count(True)} met, {met.count(False)} missed"])


def bfloat16_unit() -> str:
    """Return the name of the unit that computes bfloat16 products, or nothing: bf16 is measured
    only where there is one.
    """
    flags = _processor_flags()
    return next(
        (
            name
            for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16"))
            if flag in flags
        ),
        "",
    )


def _processor_flags() -> frozenset[str]:
    lines = _processor_lines("flags")
    return frozenset(lines[0].split()) if lines else frozenset()


def _processor_lines(key: str) -> list[str]:
    """Return the values of a key of ``/proc/cpuinfo``, one a core; none on other systems."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return [
        value.strip()
        for name, _, value in (line.partition(":") for line in lines)
        if name.strip() == key
    ]


def machine() -> str:
    """Describe processor, bfloat16 unit, threads and versions, a line each."""
    models = _processor_lines("model name") or [platform.processor() or "unknown processor"]
    threads = torch.get_num_threads()
    there = {distribution.name for distribution in distributions()}
    told = [*PACKAGES, *(name for name in RIVALS if name in there)]
    versions = ", ".join(f"{name} {version(name)}" for name in told)
    return "\n".join(
        [
            f"machine: {models[0]}, {len(models)} cores, {platform.system()} {platform.machine()}",
            f"bfloat16: {bfloat16_unit() or 'no unit of its own, not measured'}",
            f"threads: {threads} for each side; "
            + ("processor time" if threads == 1 else "wall time")
            + ", wall time where processes take part",
            f"versions: Python {platform.python_version()}, {versions}",
        ]
    )


def peak_extra_memory(run: Callable[[], object]) -> int:
    """Return how many bytes of tensors ``run`` holds at most beyond those that are there before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        run()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [
        event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    peak: int = max(
        accumulate(
            (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())),
            initial=0,
        )
    )
    return peak
