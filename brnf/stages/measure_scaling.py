"""Stage: measure what online training of the flow and batch EM cost with the number of rows
(supplement F, scalability).
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from brnf.config.sections.flow import FlowTraining, ScalingFlow
from brnf.engine.matmul import use_fast_matmul
from brnf.engine.memory import peak_memory
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.evaluate.tables import markdown, write_table
from brnf.flow.density import FlowDensity, RunningMoments
from brnf.flow.gaussian import build_gaussian, fit_gaussian
from brnf.flow.labels import three_way_labels
from brnf.flow.training import FlowTrainer
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.pixels import PixelBatch, PixelStore

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    pixels: tuple[Path, ...]
    """Shards of the pixel store."""


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    csv: Path
    """One row a density and number of rows: seconds, seconds for each 1,000 rows, growth of the
    resident memory in MiB.
    """
    markdown: Path
    """The same for reading."""


@dataclass(frozen=True)
class Options:
    """What is measured; the architecture is that of the offline flow."""

    shares: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    """Of the store's images, in the order of their ids."""
    repeats: int = 3
    """Measurements of each point; the median counts."""
    flow: ScalingFlow = ScalingFlow()
    """The flow, the mixture and the rows."""
    seed: int = 0
    """Of everything drawn at random."""


@dataclass(frozen=True)
class _Task:
    kind: Literal["flow", "gmm"]
    images: int
    pixels: tuple[Path, ...]
    options: Options
    threads: int


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Measure one pass of online flow training and EM to its end, each in a process of its own."""
    images = len(PixelStore(inputs.pixels).images)
    if not images:
        raise UserError(
            f"{inputs.pixels[0].parent}: the pixel stores hold no image; check the split they were "
            "made from"
        )
    counts = sorted({max(1, round(share * images)) for share in options.shares})
    kinds: tuple[Literal["flow", "gmm"], ...] = ("flow", "gmm")
    # Repeats go round all points, so that a slow minute of the machine does not fall on one of
    # them.
    tasks = [
        _Task(kind, count, inputs.pixels, options, runtime.threads)
        for _ in range(options.repeats)
        for count in counts
        for kind in kinds
    ]
    with locked(outputs.csv):
        measured = [
            _alone(task) for task in Progress(tasks, "measure scaling", runtime, unit="fit")
        ]
        table = pd.DataFrame(measured).groupby(["density", "rows"], as_index=False).median()
        table["seconds_per_1000_rows"] = 1000 * table.seconds / table.rows
        write_table(table, outputs.csv, outputs.markdown)
    if runtime.progress != "none":
        print(markdown(table), end="")


def _alone(task: _Task) -> dict[str, Any]:
    """Measure in a new process, whose peak memory is nobody else's."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure, task).result()
    except BrokenProcessPool as error:
        raise UserError(
            f"measure_scaling: fitting {task.kind} to {task.images} images died; ask for more "
            "memory"
        ) from error


def _measure(task: _Task) -> dict[str, Any]:
    """Fit and return ``density``, ``rows``, ``seconds`` and ``peak_mb``, the growth of the resident
    memory.
    """
    torch.set_num_threads(task.threads)
    use_fast_matmul()
    store = PixelStore(task.pixels)
    kept = frozenset(store.images[: task.images])
    moments, rows = RunningMoments(store.dimension, floor=task.options.flow.std_floor), 0
    for batch in store.blocks(kept.__contains__):
        moments.update(torch.from_numpy(batch.feature).float())
        rows += len(batch)
    before, start = peak_memory(), time.perf_counter()
    if task.kind == "flow":
        _train_flow(store, kept, rows, moments, task.options)
    else:
        _run_em(store, kept, rows, moments, task.options)
    seconds = time.perf_counter() - start
    return {
        "density": task.kind,
        "rows": rows,
        "seconds": seconds,
        "peak_mb": (peak_memory() - before) / 2**20,
    }


def _train_flow(
    store: PixelStore, kept: frozenset[str], rows: int, moments: RunningMoments, options: Options
) -> None:
    """Show every row once to a new flow."""
    flow = FlowDensity(store.dimension, store.classes, options.flow, options.seed)
    flow.fit_standardisation(moments.mean, moments.std())
    size = options.flow.batch_rows
    trainer = FlowTrainer(flow, FlowTraining(steps=-(-rows // size)), None, options.seed)
    for batch in store.shuffled_batches(size, options.seed, kept.__contains__, epochs=1):
        trainer.step((torch.from_numpy(batch.feature), _targets(batch, options)))


def _run_em(
    store: PixelStore, kept: frozenset[str], rows: int, moments: RunningMoments, options: Options
) -> None:
    """Fit mixtures to all labelled rows, which EM wants in memory."""
    density = build_gaussian("gmm", store.dimension, store.classes, options.flow)
    density.fit_standardisation(moments.mean, moments.std())
    blocks = store.blocks(kept.__contains__)
    labelled = (
        (torch.from_numpy(block.feature).float(), _targets(block, options)) for block in blocks
    )
    fit_gaussian(density, labelled, options.seed, most_rows=rows)


def _targets(batch: PixelBatch, options: Options) -> Tensor:
    return three_way_labels(
        torch.from_numpy(batch.score),
        torch.from_numpy(batch.label),
        options.flow.tau.low,
        options.flow.tau.high,
    )


if __name__ == "__main__":
    run_stage(run)
