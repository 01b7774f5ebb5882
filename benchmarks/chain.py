"""The whole chain beside the research code's way: ``python -m benchmarks.chain --results
results/voc-animals``.

Every stage of a finished run is done again for a share of its images or steps, by this project and
by code in the structure of the field's research code, each in a process of its own, in turn.
Processor time of one thread counts; imports, weights and what no repeat can change are set up
before. The times are scaled to the whole experiment, base and model together. Both sides are given
the same images, options, weights and draws, and their results are compared before they are timed.
Where this project keeps a frozen backbone's outputs, so does the reference, since no goal
speaks of that; a further line and total tell what it takes without.

How much faster can the chain be? The reference tells how much of its time it spends in each hot
loop of ``benchmarks.run``. If every loop reached its goal there and everything else - decoding,
augmentation, saving, gradients of the networks, the segmentation network in float32 - stayed as
slow as it is, the chain would gain the Amdahl bound: its time over the sum of each loop's time
divided by its goal, and all other time. The goal is a total of at least 0.9 of that bound.

In the workflow trainings share the feature cache; here each computes its own, on both sides. Not in
the chain: indexing, figures and tables; the wall time of other stages of the finished run is told
    below the table.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import tyro

from benchmarks.agreement import AGREEMENT
from benchmarks.finished_run import FinishedRun, prepare
from benchmarks.harness import Timing, aligned, at_least, duration, machine
from benchmarks.ours import OURS
from benchmarks.reference_images import REFERENCE_IMAGES
from benchmarks.reference_training import REFERENCE_TRAINING, SEEING
from benchmarks.stopwatch import GOALS, Spent, TimedProcess
from brnf.errors import UserError
from brnf.evaluate.timings import stage_timings

__all__ = ["STAGES", "StageRow", "chain_table", "measure", "run"]

STAGES = tuple(OURS)
REFERENCE = REFERENCE_IMAGES | REFERENCE_TRAINING
OF_BOUND = 0.9
RESULTS = Path(__file__).parent / "chain.md"
MEBIBYTE = 2**20
HEADING = (
    *(
        "stage",
        "measured",
        "this project",
        "reference",
        "ratio (least to most)",
        "our peak, MiB",
        "reference peak, MiB",
    ),
    *("share of reference", "in hot loops", "bound", "finished run, s", "its jobs' peak, MiB"),
)


@dataclass(frozen=True)
class StageRow:
    """What was measured of a stage, scaled to the whole experiment.

    Attributes:
        stage: its name.
        work: what was measured of how much.
        ours: seconds of this project.
        reference: seconds of the reference.
        loops: share of the reference's time in each hot loop, 0..1.
        peaks: most resident memory of each side's process, bytes, with what it imports.
        wall: seconds of the stage's jobs in the finished run, with start and imports; nan where
            they are unknown.
        peak_of_run: most memory of such a job, MiB.
    """

    stage: str
    work: str
    ours: Timing
    reference: Timing
    loops: Mapping[str, float]
    peaks: tuple[float, float]
    wall: float = float("nan")
    peak_of_run: float = float("nan")

    @property
    def left(self) -> float:
        """Return the share of the reference's time that is left when every hot loop reaches its
        goal, 0..1.
        """
        return 1 - sum(share * (1 - 1 / GOALS[name]) for name, share in self.loops.items())

    def cells(self, whole: float) -> tuple[str, ...]:
        """Return the columns as text.

        Arguments:
            whole: seconds of the reference's chain.
        """
        ratio, least, most = self.ours.times_faster_than(self.reference)
        return (
            self.stage,
            self.work,
            duration(self.ours.median),
            duration(self.reference.median),
            f"{ratio:.2f} ({least:.2f} to {most:.2f})",
            *(f"{peak / MEBIBYTE:.0f}" for peak in self.peaks),
            f"{self.reference.median / whole:.1%}",
            f"{sum(self.loops.values()):.1%}",
            f"{1 / self.left:.2f}",
            *("" if value != value else f"{value:.0f}" for value in (self.wall, self.peak_of_run)),
        )


def chain_table(rows: Sequence[StageRow], other: StageRow | None = None) -> str:
    """Return the table of the stages in Markdown, and below it total, bound and whether the goal is
    reached.

    Arguments:
        rows: of the stages.
        other: another reference of ``train_brnf``, which counts in a total of its own.
    """
    whole = sum(row.reference.median for row in rows)
    shown = [HEADING, *(row.cells(whole) for row in rows)]
    lines = _summary(rows)
    if other is not None:
        instead = [other if row.stage == "train_brnf" else row for row in rows]
        shown.append(other.cells(sum(row.reference.median for row in instead)))
        lines += ["", f"with {SEEING}, as research code has it:", *_summary(instead)]
    return "\n".join([*aligned(shown), "", *lines, "", *_loop_table(rows, whole)])


def _loop_table(rows: Sequence[StageRow], whole: float) -> list[str]:
    """Return a line for each hot loop: its share of the reference's chain, and its goal."""
    shares = {
        name: sum(row.loops.get(name, 0.0) * row.reference.median for row in rows) / whole
        for name in GOALS
    }
    lines = [(name, f"{share:.1%}", f"≥ {GOALS[name]:g}×") for name, share in shares.items()]
    return aligned([("hot loop", "share of reference", "goal"), *lines])


def _summary(rows: Sequence[StageRow]) -> list[str]:
    """Return total, bound and goal as lines."""
    ours, reference = (
        sum(timing.median for timing in side)
        for side in ([row.ours for row in rows], [row.reference for row in rows])
    )
    ratio, bound = (
        reference / ours,
        reference / sum(row.left * row.reference.median for row in rows),
    )
    goal = at_least(OF_BOUND, ratio / bound, " of the bound")
    return [
        f"whole chain: this project {duration(ours)}, reference {duration(reference)}, ratio "
        f"{ratio:.2f}, Amdahl bound {bound:.2f}",
        f"reached: {ratio / bound:.2f} of the bound, goal {goal.text}: "
        f"{'met' if goal.met else 'MISSED'}",
    ]


def measure(finished: FinishedRun, stage: str, repeats: int, folder: Path) -> StageRow:
    """Measure a stage.

    Arguments:
        finished: prepared run.
        stage: its name, or the name of another reference.
        repeats: timed runs of each side; one before them is not timed and is compared.
        folder: for outputs, which are removed again.

    Raises:
        AssertionError: the sides do not agree.
    """
    rule = stage.partition(",")[0]
    processes = {
        "ours": TimedProcess(OURS[rule], finished),
        "reference": TimedProcess(REFERENCE[stage], finished),
    }
    first = {name: folder / f"{stage} first" / name for name in processes}
    for name, process in processes.items():
        process.time(first[name])
    AGREEMENT[stage](finished, first["ours"], first["reference"])
    found: dict[str, list[Spent]] = {name: [] for name in processes}
    for number in range(repeats):
        for name, process in processes.items():
            found[name].append(process.time(folder / f"{stage} {number}" / name))
        shutil.rmtree(folder / f"{stage} {number}")
    shutil.rmtree(folder / f"{stage} first")
    factors = finished.factors(rule)
    ours, reference = (
        Timing(tuple(spent.whole(factors) for spent in found[name])) for name in processes
    )
    loops = [spent.whole_loops(factors) for spent in found["reference"]]
    shares = {
        name: median(
            times[name] / whole for times, whole in zip(loops, reference.seconds, strict=True)
        )
        for name in loops[0]
    }
    peaks = processes["ours"].finish(), processes["reference"].finish()
    return StageRow(stage, finished.shown_work(rule), ours, reference, shares, peaks)


def timings_of_run(finished: FinishedRun) -> pd.DataFrame:
    """Return wall time (seconds) and peak memory (peak_mb) of each stage of the finished run, base
    and model together.
    """
    tables = []
    for model in ("base", finished.model):
        try:
            tables.append(stage_timings(finished.product("", model)))
        except UserError:
            continue  # run without Snakemake
    if not tables:
        return pd.DataFrame(columns=["seconds", "peak_mb"])
    return (
        pd.concat(tables)
        .groupby("stage")
        .agg(seconds=("seconds", "sum"), peak_mb=("peak_mb", "max"))
    )


def beside(row: StageRow, before: pd.DataFrame) -> StageRow:
    """Return a row with what is known of its stage in the finished run."""
    if row.stage not in before.index:
        return row
    return replace(
        row, wall=float(before.seconds[row.stage]), peak_of_run=float(before.peak_mb[row.stage])
    )


def run(
    results: Path,
    root: Path | None = None,
    model: str = "brnf",
    seed: int = 0,
    share: float = 0.1,
    repeats: int = 3,
    stages: tuple[str, ...] = STAGES,
    write: bool = False,
) -> None:
    """Measure the chain over a finished run and print one table.

    Arguments:
        results: ``results/<name>`` with all its products, pixel stores included; only read.
        root: of the data set, where it has moved since.
        model: BRNF network whose products are taken; the base's stages cost as much.
        seed: of the run.
        share: of the images and steps that is measured; the times are scaled to the whole.
        repeats: timed runs of each side; medians count.
        stages: to measure; total and bound are those of these stages.
        write: keep the table in ``benchmarks/chain.md``.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="chain-") as name:
        finished = FinishedRun(results.absolute(), Path(name) / "inputs", model, seed, share)
        prepare(finished, root)
        before = timings_of_run(finished)
        found = {}
        seeing = (
            (SEEING,)
            if "train_brnf" in stages and finished.experiment.network(model)["cache"]
            else ()
        )
        for stage in (*stages, *seeing):
            start = time.monotonic()
            found[stage] = row = beside(measure(finished, stage, repeats, Path(name)), before)
            print(
                f"{chain_table([row])}\n{stage}: {time.monotonic() - start:.0f} s\n",
                file=sys.stderr,
                flush=True,
            )
        other = found.pop(SEEING, None)
        rows = list(found.values())
    others = ", ".join(
        f"{stage} {before.seconds[stage]:.0f} s" for stage in before.index if stage not in stages
    )
    lines = [
        machine(),
        f"experiment: {finished.experiment.name}, share {share:g}, {repeats} repeats",
        "",
        chain_table(rows, other),
    ]
    if others:
        lines.append(f"not in the chain, of the finished run: {others}")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    try:
        tyro.cli(run)
    except UserError as error:
        sys.exit(f"error: {error}")
