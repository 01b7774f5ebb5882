"""Plan 1.3 million images of 1,000 classes on 1, 8 and 64 GPUs: ``python -m
benchmarks.imagenet_plan`` prints the tables of docs/scale.md.

Jobs, their order, images, steps and disk are what ``snakemake plan`` takes them from, over an image
index of files that are nowhere. Instead of miniatures, which need a GPU, the time of a step or an
image is counted (`benchmarks/gpu_counts.py`) and held against a card's peak.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch

from benchmarks.counted_work import Work, counted_work
from benchmarks.gpu_counts import (
    CARDS,
    count_density,
    count_features,
    count_maps,
    count_prediction,
    count_step,
)
from benchmarks.paper_trainings import TRAININGS, paper_experiment
from benchmarks.synthetic_imagenet import TRAIN, VAL, class_names, write_index
from brnf.config.experiment import Experiment
from brnf.evaluate.tables import markdown
from brnf.planning.disk import gigabytes, needed_bytes, product_table
from brnf.planning.jobs import Job, whole_jobs
from brnf.planning.pace import wall_time, work_table

__all__ = ["Pace", "imagenet", "main", "planned", "scheduled"]

SIZE = (375, 500)
CARD, PRECISION = CARDS[0], "bf16"
GPUS = (1, 8, 64)
MOST_DEVICES = 8
"""Of a training, which runs on one machine."""
START = 15.0
"""Seconds of a job beside its work, assumed: the queue, Python, torch, the network's weights."""
DISK = 2e9
"""Bytes a second that the disk takes from all jobs together, assumed."""
EXCHANGE = 0.005
"""Seconds of a step for the exchange of gradients between GPUs, assumed."""
HOST: Mapping[str, float] = {
    "store_pixels": 0.0054,
    "denoise_seeds": 0.010,
    "make_pseudo_labels": 0.005,
    "predict_segmentation": 0.0034,
    "evaluate": 0.039,
    "index_images": 0.001,
}
"""Seconds of an image that no GPU shortens, with 8 processes that read and compress: docs/gpu.md
(writing pixels and masks), docs/benchmarks.md (denoising and evaluating scenes), docs/scale.md
(indexing, 2 processes).
"""
CRF = 0.001
"""Seconds of the dense CRF for an image on a GPU: 1,300 kernels of 10 us for 15 photographs."""
LABELLED = 1
"""Classes that an image shows."""
WITH_CRF = ("make_pseudo_labels", "predict_segmentation")
HOUR = 3600


@dataclass(frozen=True)
class Pace:
    """What the work of a rule takes on one GPU, or on so many as train together.

    Attributes:
        image: seconds of an image that the rule goes through.
        step: seconds of a step of a training on a full batch.
        samples: of that batch.
        devices: that train together.
        memory: bytes of tensors on a GPU.
    """

    image: float = 0.0
    step: float = 0.0
    samples: float = 1.0
    devices: int = 1
    memory: int = 0


def imagenet(folder: Path, shards: int, changes: Mapping[str, object] | None = None) -> Experiment:
    """Return the experiment of ``config/voc12.yaml`` over a table of so many classes.

    Arguments:
        folder: an empty folder that stands for the data set.
        shards: into which a split is cut.
        changes: what else differs.
    """
    table = folder / "images.csv"
    table.write_text("image,labels,mask,split\n")
    dataset = {"kind": "table", "table": str(table), "train": "train", "eval_split": "train"}
    named = {"classes": list(class_names()), "val": "val"}
    kept = {"keep_features": False, "cam": {"map_stride": 4}, "shards": shards}
    long = {"segmentation": {"iterations": 100_000}, "name": "imagenet"}
    own = {**kept, **long, "dataset": dataset | named, **(changes or {})}
    return paper_experiment("voc12", folder, own)


def counted(count: Callable[[Work], object]) -> Work:
    """Return what a function does on the pretended device."""
    with counted_work() as work:
        count(work)
    return work


def image_paces(experiment: Experiment) -> dict[str, Pace]:
    """Return the pace of each rule that goes through images."""
    ways: dict[str, Callable[[Work], object]] = {
        "compute_cams": lambda work: count_maps(experiment, work, SIZE, LABELLED),
        "store_pixels": lambda work: count_features(experiment, work, SIZE),
        "train_flow": lambda work: count_density(experiment, work, SIZE),
        "denoise_seeds": lambda work: count_density(experiment, work, SIZE),
        "predict_segmentation": lambda work: count_prediction(experiment, work, SIZE),
    }
    found = {rule: Pace(image=seconds) for rule, seconds in HOST.items()}
    for rule, way in ways.items():
        work = counted(way)
        seconds = max(work.seconds(CARD, PRECISION), HOST.get(rule, 0.0))
        found[rule] = Pace(image=seconds, memory=work.peak)
    for rule in WITH_CRF:
        found[rule] = Pace(image=found[rule].image + CRF, memory=found[rule].memory)
    return found


def training_paces(folder: Path, shards: int, gpus: int) -> dict[str, Pace]:
    """Return the pace of each training on so many GPUs: each takes its share of a batch.

    Arguments:
        folder: that stands for the data set.
        shards: into which a split is cut.
        gpus: of one machine.
    """
    whole, found = imagenet(folder, shards), {}
    settings = whole.settings
    full = {
        "train_base": settings["base"]["batch_size"],
        "train_brnf": settings["brnf"]["batch_size"] or settings["base"]["batch_size"],
        "train_flow": settings["flow"]["batch_rows"],
        "train_segmentation": settings["segmentation"]["batch_size"],
    }
    section = {
        "train_base": ("base", "batch_size"),
        "train_brnf": ("brnf", "batch_size"),
        "train_flow": ("flow", "batch_rows"),
        "train_segmentation": ("segmentation", "batch_size"),
    }
    for rule in TRAININGS:
        least = 2 if rule == "train_segmentation" else 1  # a BatchNorm needs two images
        devices = min(gpus, MOST_DEVICES, full[rule] // least)
        share = -(-full[rule] // devices)
        part, key = section[rule]
        work, _ = count_step(rule, imagenet(folder, shards, {part: {key: share}}))
        seconds = work.seconds(CARD, PRECISION) + (EXCHANGE if devices > 1 else 0.0)
        found[rule] = Pace(0.0, seconds, full[rule], devices, work.peak)
    return found


def scheduled(
    jobs: list[Job],
    work: pd.DataFrame,
    paces: Mapping[str, Pace],
    gpus: int,
    written: Mapping[str, float],
) -> tuple[pd.DataFrame, float]:
    """Return what each job takes on so many GPUs, and the seconds until the last one ends.

    Arguments:
        jobs: those that take time.
        work: of each; see :func:`brnf.planning.pace.work_table`.
        paces: by rule.
        gpus: jobs at a time; a training takes as many as train together.
        written: bytes of a job of each rule; those that run at once share the disk.
    """
    paced = work.rule.map(lambda rule: paces.get(rule, Pace()))
    steps = work.samples / work.batch.where(work.batch > 0, 1.0)
    computing = work["images"] * paced.map(lambda pace: pace.image)
    computing += steps * paced.map(lambda pace: pace.step)
    at_once = work.rule.map(work.rule.value_counts()).clip(upper=gpus)
    writing = work.rule.map(lambda rule: written.get(rule, 0.0)) * at_once / DISK
    seconds = START + computing.clip(lower=writing)
    devices = paced.map(lambda pace: min(pace.devices, gpus))
    wall = wall_time(jobs, seconds.tolist(), gpus, devices.tolist())
    return work.assign(seconds=seconds, devices=devices), wall


def planned(folder: Path, shards: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row for each rule, and one for each number of GPUs.

    Arguments:
        folder: an empty one.
        shards: into which a split is cut.
    """
    experiment = imagenet(folder, shards)
    experiments, results = {experiment.name: experiment}, folder / "results"
    index = results / experiment.name / "index"
    write_index(index, {"train": TRAIN, "val": VAL}, shards, SIZE, masked="val")
    here = Path.cwd()
    os.chdir(folder)  # where the planned Snakemake finds nothing of this folder
    try:
        every = whole_jobs(experiments, results)
    finally:
        os.chdir(here)
    jobs = [job for job in every if job.benchmark]
    work = work_table(experiments, every, results)
    products = product_table(experiments, every, results)
    images = image_paces(experiment)
    rules = products.groupby("rule").bytes.sum()
    table, rows = pd.DataFrame(index=list(dict.fromkeys(work.rule))), []
    table["jobs"] = work.groupby("rule").size()
    table["disk"] = rules.reindex(table.index, fill_value=0.0)
    trainings_on = cache(partial(training_paces, folder, shards))
    for gpus in GPUS:
        trainings = trainings_on(min(gpus, MOST_DEVICES))
        paces = dict(images)
        for rule, pace in trainings.items():
            image = images.get(rule, Pace()).image
            paces[rule] = Pace(image, pace.step, pace.samples, pace.devices, pace.memory)
        each, wall = scheduled(jobs, work, paces, gpus, dict(table["disk"] / table["jobs"]))
        table[f"hours, {gpus}"] = elapsed(each, gpus) / HOUR
        if gpus == 1:
            table["a job"] = each.groupby("rule").seconds.max()
            table["gpu"] = pd.Series({rule: pace.memory for rule, pace in paces.items()})
        used = float((each.seconds * each.devices)[each.rule.map(on_gpu)].sum())
        rows.append((gpus, wall / HOUR, used / HOUR, used / wall / gpus))
    whole = pd.DataFrame(rows, columns=["GPUs", "hours", "GPU hours", "busy"])
    print(f"disk: {gigabytes(needed_bytes(products))} at a time; jobs: {len(every)}")
    return table, whole


def on_gpu(rule: str) -> bool:
    """Return whether a rule asks for a GPU."""
    return rule in {*TRAININGS, "compute_cams", "store_pixels", "denoise_seeds", *WITH_CRF}


def elapsed(each: pd.DataFrame, gpus: int) -> pd.Series:
    """Return the seconds that the jobs of each rule would take alone on so many GPUs."""

    def of(part: pd.DataFrame) -> float:
        places = gpus // int(part.devices.iloc[0])
        rounds = -(-len(part) // places)
        return max(float(part.seconds.sum()) / places, rounds * float(part.seconds.mean()))

    return pd.Series({rule: of(part) for rule, part in each.groupby("rule")})


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of rules as the document shows them."""
    shown = pd.DataFrame({"rule": table.index, "jobs": [f"{one:,}" for one in table.jobs]})
    shown["longest job (min)"] = [f"{one / 60:.1f}" for one in table["a job"]]
    shown["GPU memory (GiB)"] = [f"{one / 2**30:.1f}" if one else "" for one in table.gpu.fillna(0)]
    shown["disk"] = [gigabytes(one) if one else "" for one in table.disk]
    for gpus in GPUS:
        shown[f"hours, {gpus} GPU"] = [f"{one:.2f}" for one in table[f"hours, {gpus}"]]
    return shown


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=256)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        table, whole = planned(Path(folder), words.shards)
    print(f"\n{markdown(readable(table))}\n")
    whole["busy"] = [f"{100 * one:.0f} %" for one in whole.busy]
    for key in ("hours", "GPU hours"):
        whole[key] = [f"{one:,.1f}" for one in whole[key]]
    print(markdown(whole))


if __name__ == "__main__":
    main()
