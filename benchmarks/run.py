"""Run the benchmarks: ``python -m benchmarks.run`` runs all, ``--loops mixture dense_crf`` some."""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

import torch
import tyro

from benchmarks.harness import Repeats, Row, machine, table
from brnf.engine.memory import keep_freed_memory

Loop = Literal[
    "flow_density",
    "flow_training",
    "mixture",
    "pixel_store",
    "dense_crf",
    "confusion",
    "class_maps",
    "cam_inference",
    "segmentation_training",
]
LOOPS: tuple[Loop, ...] = get_args(Loop)
RESULTS = Path(__file__).parent / "results.md"


def run(
    loops: tuple[Loop, ...] = LOOPS,
    repeats: int = 7,
    seconds: float = 30,
    threads: int = 1,
    tiny: bool = False,
    write: bool = False,
) -> None:
    """Measure loops, each in a process of its own, and print one table.

    Arguments:
        loops: their modules.
        repeats: timed runs of each side at least; medians count.
        seconds: for each row; more runs fill what short ones leave of it.
        threads: of both sides.
        tiny: measure at a size that only shows that all runs.
        write: keep the table in ``benchmarks/results.md``.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    rows: list[Row] = []
    for loop in loops:
        start = time.monotonic()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(measure, loop, Repeats(repeats, seconds), threads, tiny).result()
        rows += found
        print(
            f"{table(found)}\n{loop}: {time.monotonic() - start:.0f} s\n",
            file=sys.stderr,
            flush=True,
        )
    text = f"{machine()}\n\n{table(rows)}\n"
    print(text, end="")
    if write:
        RESULTS.write_text(text)


def measure(loop: str, repeats: Repeats, threads: int, tiny: bool) -> list[Row]:
    """Return the rows of one loop."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in every stage; the reference gains by it too
    multiprocessing.set_start_method(
        None, force=True
    )  # that of a stage again, for the processes of the loop
    module = import_module(f"benchmarks.{loop}")
    rows: list[Row] = module.measure(module.TINY if tiny else module.FULL, repeats)
    return rows


if __name__ == "__main__":
    tyro.cli(run)
