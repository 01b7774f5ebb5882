"""Measure the list of images of a data set of ImageNet's size: ``python -m
benchmarks.imagenet_scale``.

Photographs are hard links to a few pictures of 16 x 12 pixels, so that decoding is not in the
figures: the first indexing, listing anew where nothing has changed, what a call of the workflow
takes that finds the index as it should be, and a dry run of all jobs.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.coco_scale import ROOT, measured
from benchmarks.synthetic_imagenet import CLASSES, TRAIN, write_imagenet
from brnf.cache import file_state
from brnf.data.file_table import Seen, TableWriter
from brnf.data.images import image_header

__all__ = ["main", "pretend_seen"]

SPLIT = "train"
CHANGES = {
    "name": "imagenet",
    "models": ["base"],
    "products": ["cam_prototype"],
    "shards": 256,
    "keep_features": False,
    "cam": {"map_stride": 16, "side_widths": [1, 1, 1, 1]},
    "backbone": {"name": "resnet50", "weights": "none"},
    "dataset": {"kind": "table", "root": None, "train": SPLIT, "eval_split": SPLIT},
    "device": "cpu",
}
"""One model with products that no disk is too small for; ``weights: none`` needs no network."""


def pretend_seen(table: Path, index: Path) -> None:
    """Write the table of files that a first indexing would leave beside an index.

    Arguments:
        table: see :func:`benchmarks.synthetic_imagenet.write_imagenet`.
        index: folder of the index.
    """
    found = {}
    for path in (table.parent / "drawn").iterdir():
        header = image_header(path)
        text = f"{header.size[0]} {header.size[1]} {header.orientation} {int(header.deep)}"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        found[path.stat().st_ino] = (digest, text)

    def rows() -> Iterator[tuple[str, Seen]]:
        lines = table.read_text().splitlines()[1:]  # by class, and so in the order of the ids
        for line in lines:
            path = f"{table.parent}/{line.partition(',')[0]}"
            seen = os.stat(path)
            digest, text = found[seen.st_ino]
            yield path, Seen(file_state(seen), digest, True, text)

    writer = TableWriter(index.with_name(f"{index.name}.files.csv"))
    writer.add(rows())
    writer.close()


def main() -> None:
    """Write the data set into a temporary folder and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=TRAIN)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    parser.add_argument("--seen", action="store_true", help="begin as after a first indexing")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        folder = Path(name)
        start = time.perf_counter()
        table = write_imagenet(folder / "data", words.images)
        print(f"{words.images} links written in {time.perf_counter() - start:.1f} s", flush=True)
        index = folder / "results" / "imagenet" / "index"
        python = (sys.executable, "-m")
        stage = (*python, "brnf.stages.index_images", "--table", str(table), "--index", "index")
        options = ("--dataset.kind", "table", "--splits", SPLIT, "--shards", "256")
        machine = ("--workers", str(words.workers), "--progress", "none")
        if words.seen:
            pretend_seen(table, folder / "index")
        else:
            measured("index, first", (*stage, *options, *machine), folder)
        measured("index, nothing changed", (*stage, *options, *machine), folder)
        settings = {**CHANGES, "workers": words.workers}
        dataset = {**CHANGES["dataset"], "table": str(table)}  # type: ignore[dict-item]
        (folder / "own.yaml").write_text(yaml.safe_dump({**settings, "dataset": dataset}))
        pretend_seen(table, index)
        workflow = [*python, "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
        workflow += ["--workflow-profile", str(ROOT / "workflow" / "profiles" / "default")]
        workflow += ["--cores", "1", "--configfile", "own.yaml"]
        until = ("--until", "index_images", "write_config")
        measured("workflow up to the index, nothing changed", (*workflow, *until), folder)
        said = measured("a call with nothing to do up to the index", (*workflow, *until), folder)
        if "Nothing to be done" not in said:
            sys.exit(f"error: something was done: {said[-2000:]}")
        planned = measured(
            f"dry run of all jobs, {CLASSES} classes",
            (*workflow, "--dry-run", "--quiet", "rules"),
            folder,
        )
        print(planned[planned.find("job ") :].partition("\n\n")[0])


if __name__ == "__main__":
    main()
