"""Whether the disk holds what is still to be made."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from brnf.config.experiment import Experiment
from brnf.config.studies import BASE_MODELS
from brnf.errors import UserError
from brnf.planning.jobs import Job, whole_jobs
from brnf.planning.sizes import RESNET50, SplitSize, bytes_made, sizes_of, splits_of

__all__ = [
    "GIGABYTE",
    "check_run",
    "gigabytes",
    "needed_bytes",
    "product_table",
    "stored_shares",
    "written_bytes",
]

GIGABYTE = 1e9
TRAININGS = ("train_base", "train_brnf")
"""Rules whose bytes are what they keep until they end."""
Channels = Callable[[str], Sequence[int]]
MARGIN = 1.05
"""Room for networks, logs and the file that is being written."""


def product_table(
    experiments: Mapping[str, Experiment],
    jobs: Iterable[Job],
    results: Path,
    channels: Channels = lambda name: RESNET50,
) -> pd.DataFrame:
    """Return a row for each split that a job works on.

    Arguments:
        experiments: by name.
        jobs: whose outputs are relative to this folder.
        results: folder of all results.
        channels: from the name of a backbone to those of its stages.

    Returns:
        Columns kind (of the job), rule, bytes, there (the outputs are), and pool and user: of those
        that use a pool of the disk one after the other, the largest counts.
    """
    size_of = sizes_of(experiments, results)

    @cache
    def made(name: str, model: str, split: str) -> Mapping[str, float]:
        widths = channels(experiments[name].settings["backbone"]["name"])
        return bytes_made(experiments[name], model, size_of(name, split), widths)

    rows = []
    for job in jobs:
        experiment, model = job.of(experiments), job.wildcards.get("model", "")
        name, there = experiment.name, bool(job.outputs) and all(map(os.path.exists, job.outputs))
        for split in splits_of(job, experiment):
            share = 1 / size_of(name, split).shards if "shard" in job.wildcards else 1.0
            size = share * made(name, model, split).get(job.rule, 0.0)
            pool, user = _pool(job, experiment, split)
            rows.append((job.kind, job.rule, size, there, f"{name} {pool}", user))
    return pd.DataFrame(rows, columns=["kind", "rule", "bytes", "there", "pool", "user"])


def written_bytes(
    experiments: Mapping[str, Experiment],
    jobs: Sequence[Job],
    folder: Path,
    channels: Channels = lambda name: RESNET50,
) -> pd.DataFrame:
    """Return by kind of job the bytes that were written, and those that were expected.

    Arguments:
        experiments: by name.
        jobs: that have run; what a training keeps until it ends is gone, and left out.
        folder: in which they ran.
        channels: see :func:`product_table`.
    """
    lasting = [job for job in jobs if job.rule not in TRAININGS]
    table = product_table(experiments, lasting, folder / "results", channels)
    written = pd.Series(0.0, index=table.kind.unique())
    for job in lasting:
        if job.kind in written.index:
            written[job.kind] += sum(_bytes_of(folder / output) for output in job.outputs)
    return pd.DataFrame({"written": written, "expected": table.groupby("kind").bytes.sum()})


def stored_shares(small: pd.DataFrame, large: pd.DataFrame) -> pd.Series:
    """Return by kind of job the share of the expected bytes that its products take.

    What compression leaves of maps and masks depends on the photographs. What a file takes whatever
    it holds is left out. Kinds are missing of which nothing was expected, or whose products went.

    Arguments:
        small: see :func:`written_bytes`.
        large: the same with more images.
    """
    more = large - small
    grown = (more.written / more.expected).where((more.expected > 0) & (more.written > 0))
    shares = grown.fillna(large.written / large.expected)
    return shares[np.isfinite(shares) & (shares > 0)]


def _bytes_of(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _pool(job: Job, experiment: Experiment, split: str) -> tuple[str, str]:
    """Return the pool of a product and its user; what has a pool of its own stays.

    Trainings on images of the same size, in batches of the same, share what they cache, whatever
    their seed. Without ``keep_features`` a pixel store is gone when its flow has denoised the maps:
    only one model's is counted for each seed.
    """
    if job.rule in TRAININGS:
        training = experiment.network(job.wildcards["model"])
        user = f"{job.wildcards['model']} {job.wildcards['seed']} {split}"
        return f"cache {training['crop']} {training['batch_size']}", user
    if job.rule == "store_pixels" and not experiment.settings["keep_features"]:
        return f"pixels {job.wildcards['seed']}", job.wildcards["model"]
    return "products", ""


def needed_bytes(table: pd.DataFrame) -> float:
    """Return the most bytes that lie on the disk at a time of what is still to be made."""
    users = table[~table.there.astype(bool)].groupby(["pool", "user"]).bytes.sum()
    return float(users.groupby("pool").max().sum())


def check_run(
    experiments: Mapping[str, Experiment],
    jobs: Sequence[Job],
    everything: bool,
    results: Path,
    free: float | None = None,
) -> None:
    """Refuse a run whose products would not fit the disk.

    What follows an image index that is itself to be made is not among the jobs. For the target
    `all` it is asked for, which takes seconds, unless there is room for whatever it may be.

    Arguments:
        experiments: by name.
        jobs: that Snakemake will run.
        everything: whether the target is `all`.
        results: folder of all results.
        free: bytes; None asks the disk.

    Raises:
        UserError: the disk is too small; names what to set.
    """

    def need(jobs: Iterable[Job], *channels: Channels) -> float:
        return MARGIN * needed_bytes(product_table(experiments, jobs, results, *channels))

    if free is None:
        folder = results.absolute()
        existing = next(place for place in (folder, *folder.parents) if place.is_dir())
        free = float(shutil.disk_usage(existing).free)
    if everything and any(job.rule == "index_images" for job in jobs):
        if need(job for one in experiments.values() for job in _most(one)) <= free:
            return
        jobs = whole_jobs(experiments, results)
    if need(jobs) <= free:
        return
    from brnf.backbones.network import backbone_channels  # not above: it takes seconds

    if (needed := need(jobs, cache(backbone_channels))) <= free:
        return
    raise UserError(
        f"{results}: this run still makes about {gigabytes(needed)}, {gigabytes(free)} are free; "
        "set keep_features: false, cam.map_stride: 4 or save_probabilities: false, take fewer "
        "models, random_seeds or products, or make room (snakemake plan lists every product)"
    )


def _most(experiment: Experiment) -> list[Job]:
    """Return jobs for all that any products and models of an experiment could need."""
    settings, any_size = experiment.settings, SplitSize(0, 0, 0, 0, 0, 0)
    return [
        Job(rule, {"name": experiment.name, "model": model, "seed": str(seed), "split": split})
        for rule in bytes_made(experiment, "base", any_size)
        for model in dict.fromkeys(("base", *settings["models"]))
        if rule not in TRAININGS or (rule == "train_base") == (model in BASE_MODELS)
        for seed in settings["random_seeds"]
        for split in experiment.splits()
    ]


def gigabytes(size: float) -> str:
    """Return bytes as one reads them.

    >>> gigabytes(17.43e9), gigabytes(340e6)
    ('17.4 GB', '340 MB')
    """
    return f"{size / GIGABYTE:.1f} GB" if size >= GIGABYTE else f"{size / 1e6:.0f} MB"
