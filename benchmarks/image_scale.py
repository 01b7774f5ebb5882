"""Time and memory of every stage at 24, 96 and 384 images: ``make scale-images``.

The demo's scenes, as many of each split, in a folder of their own; one job at a time, one shard a
split, one seed. The constant part of a job - its start, or the fixed number of a training's steps -
may not grow, the rest must grow along a line: the time at the middle size is compared with the line
through the smallest and the largest. Wall times, so the machine should be quiet. Single runs are
disturbed - and one job of twenty equal ones held 130 MiB more than the others - so every size is
run three times, and medians count. To list the images takes a second, most of it the start of
Python: rendering and listing are done five times more at each size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.harness import aligned, machine
from brnf.evaluate.timings import stage_timings

__all__ = ["SIZES", "measure", "off_the_line", "scaling_table"]

ROOT = Path(__file__).parents[1]
SIZES = dict.fromkeys((24, 96, 384), 3)
"""Images of a split, and how often they are run."""
SHORT, SHORT_SIZES = "index_images", dict.fromkeys(SIZES, 5)
"""What takes too little time to be told by so few runs, and how often the workflow is run up to it.
"""
LINE_GOAL, MEMORY_GOAL = 0.15, 64
"""Largest distance from the line, of the time; largest growth of a stage's memory from the smallest
to the largest size, MiB.
"""
SHORTENED = (
    *("shards=1", "companions=null", "models=[base, brnf]"),
    *("base={steps: 20}", "brnf={steps: 40}", "flow={steps: 60}", "segmentation={iterations: 20}"),
)


def run_workflow(
    folder: Path, images: int, until: str | None = None, shortened: Sequence[str] = SHORTENED
) -> pd.DataFrame:
    """Run the demo's base and BRNF with as many images of each split, one job at a time, and return
    the timings of its stages.

    Arguments:
        folder: gets one for the results.
        images: of each split.
        until: the last rule, all by default.
        shortened: overrides of the demo's configuration.
    """
    results = Path(tempfile.mkdtemp(prefix=f"{images}-", dir=folder))
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--snakefile",
        str(ROOT / "workflow" / "Snakefile"),
    ]
    command += ["--until", until] if until else []
    words = (
        "--configfile",
        str(ROOT / "config" / "demo.yaml"),
        "--config",
        f"scenes={{train: {images}, val: {images}}}",
        *shortened,
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *words], cwd=results, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"error: snakemake failed: {(done.stdout + done.stderr)[-2000:]}")
    return stage_timings(results / "results" / "demo")


def measure(folder: Path, sizes: Mapping[int, int], until: str | None = None) -> pd.DataFrame:
    """Run the workflow, or its part up to a rule, at each size, as often as it says.

    Returns:
        Rows ``stage, images, seconds, peak_mb``, a row for each stage of each run.
    """
    found = []
    # In turns, so that a time at which the machine is busy does not fall on one size alone.
    for turn in range(max(sizes.values())):
        for images in (images for images, times in sizes.items() if turn < times):
            found.append(run_workflow(folder, images, until).assign(images=images))
            print(f"{images} images: {found[-1].seconds.sum():.0f} s", file=sys.stderr, flush=True)
    return pd.concat(found)[["stage", "images", "seconds", "peak_mb"]]


def off_the_line(images: Sequence[float], seconds: Sequence[float]) -> float:
    """Return how far the middle of three times lies above (+) or below the line through the other
    two, as a share of the line.
    """
    (first, middle, last), (low, found, high) = images, seconds
    line = low + (high - low) * (middle - first) / (last - first)
    return found / line - 1


def scaling_table(measured: pd.DataFrame) -> str:
    """Return a line for each stage in Markdown: median times and peaks at three sizes, and whether
    they keep to line and bound.
    """
    measured = measured.groupby(["stage", "images"], sort=False).median().reset_index()
    sizes = sorted(measured.images.unique())
    times = (
        "stage",
        *(f"s, {size}" for size in sizes),
        "ms an image",
        f"off the line (≤ {LINE_GOAL:.0%})",
    )
    lines = [(*times, *(f"MiB, {size}" for size in sizes), f"growth (< {MEMORY_GOAL})", "met")]
    for stage, rows in measured.set_index("images").groupby("stage", sort=False):
        seconds, peaks = (
            [float(rows[column][size]) for size in sizes] for column in ("seconds", "peak_mb")
        )
        off, growth = off_the_line(sizes, seconds), peaks[-1] - peaks[0]
        slope = 1000 * (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])
        met = ", ".join(
            "yes" if good else "NO" for good in (abs(off) <= LINE_GOAL, growth < MEMORY_GOAL)
        )
        times = (str(stage), *(f"{value:.1f}" for value in seconds), f"{slope:.0f}", f"{off:+.0%}")
        lines.append((*times, *(f"{value:.0f}" for value in peaks), f"{growth:.0f}", met))
    return "\n".join(aligned(lines))


def main() -> None:
    """Measure in a temporary folder and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    words = parser.parse_args()
    torch.set_num_threads(1)  # as each job has
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        measured = pd.concat([measure(Path(name), SIZES), measure(Path(name), SHORT_SIZES, SHORT)])
    print(f"{machine()}\n\n{scaling_table(measured)}")


if __name__ == "__main__":
    main()
