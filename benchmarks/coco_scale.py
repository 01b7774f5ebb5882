"""Measure indexing, drawing masks and planning at COCO's full size: `make scale`.

The annotations are as large as COCO's (about 450 and 210 MB); the photographs are hard links to a
few files of one colour, so the time to read 19 GB of photographs is not in the figures.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.synthetic_coco import TRAIN, VAL, write_coco

ROOT = Path(__file__).parents[1]
WORKFLOW = (
    "--snakefile",
    str(ROOT / "workflow" / "Snakefile"),
    "--cores",
    "1",
    "--configfile",
    str(ROOT / "config" / "coco14.yaml"),
)


def measured(name: str, command: Sequence[str], folder: Path) -> str:
    """Run a command in a folder, print its times and peak memory, and return what it printed."""
    output, start = folder / "output.txt", time.perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"error: {name} failed: {output.read_text()[-2000:]}")
    print(
        f"{name}: {wall:.1f} s, processor {usage.ru_utime + usage.ru_stime:.1f} s, peak memory "
        f"{usage.ru_maxrss / 1024:.0f} MiB; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return output.read_text()


def main() -> None:
    """Write the data set into a temporary folder and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of COCO's size")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        folder = Path(name)
        start = time.perf_counter()
        for split, proportions in (("train", TRAIN), ("val", VAL)):
            write_coco(folder / "coco", split, proportions.scaled(words.share))
        print(f"data set written in {time.perf_counter() - start:.1f} s")
        for path in sorted((folder / "coco" / "annotations").iterdir()):
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
        stage = (
            sys.executable,
            "-m",
            "brnf.stages.index_images",
            "--root",
            "coco",
            "--dataset.kind",
            "coco",
            "--shards",
            "64",
            "--progress",
            "none",
        )
        measured(
            "index of train",
            (*stage, "--index", "train", "--splits", "train", "--dataset.verify", "False"),
            folder,
        )
        index = folder / "results" / "coco14" / "index"
        measured(
            "index of train and val",
            (*stage, "--index", str(index), "--dataset.verify", "False"),
            folder,
        )
        shard = (
            "--images",
            str(index / "shards" / "train" / "0.csv"),
            "--masks",
            "masks",
            "--split",
            "train",
            "--progress",
            "none",
        )
        measured(
            "masks of one shard of 64",
            (sys.executable, "-m", "brnf.stages.draw_masks", "--index", str(index), *shard),
            folder,
        )
        snakemake = (
            sys.executable,
            "-m",
            "snakemake",
            *WORKFLOW,
            "--config",
            "dataset={root: coco, verify: false}",
        )
        measured("workflow up to the index", (*snakemake, "--until", "index_images"), folder)
        planned = measured(
            "dry run of the whole DAG", (*snakemake, "--dry-run", "--quiet", "rules"), folder
        )
        print(planned[planned.find("job ") :].partition("\n\n")[0])


if __name__ == "__main__":
    main()
