"""Whether the disk holds what is still to be made, and what to set when it does not."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brnf.config.experiment import Experiment, merged
from brnf.config.studies import BASE_MODELS
from brnf.errors import UserError
from brnf.planning.jobs import Job, whole_jobs
from brnf.planning.sizes import RESNET50, SIZES, SplitSize, bytes_made, split_size, splits_of

__all__ = [
    "Share",
    "check_disk",
    "check_run",
    "needed_bytes",
    "planned_shares",
    "shard_count",
]

GIGABYTE = 1e9
CACHES = ("train_base", "train_brnf")
"""Rules whose bytes are what they keep until they end."""
MARGIN = 1.05
"""Room for networks, logs and the file that is being written."""
REMEDIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("keep_features: false", {"keep_features": False}),
    ("cam.map_stride: 4", {"cam": {"map_stride": 4}}),
    (
        "save_probabilities: false in pseudo_labels and segmentation.test",
        {
            "pseudo_labels": {"save_probabilities": False},
            "segmentation": {"test": {"save_probabilities": False}},
        },
    ),
)
"""What lowers the need, in the order of how little it costs, and the keys that say so."""
Planned = Mapping[str, tuple[Experiment, Sequence["Share"]]]
"""Name of an experiment -> the experiment, and what of it is still to be made."""


@dataclass(frozen=True)
class Share:
    """A part of the images of a split that a rule still has to work on.

    Attributes:
        rule: its name.
        model: whose run it is.
        seed: of the run.
        split: of the images.
        share: of the split, 0..1.
    """

    rule: str
    model: str
    seed: str
    split: str
    share: float


def shard_count(experiment: Experiment, results: Path, split: str) -> int:
    """Return how many shards of a split hold an image, all of them as long as there is no index."""
    return len(list((results / experiment.name / "index" / "shards" / split).glob("*"))) or int(
        experiment.settings["shards"]
    )


def planned_shares(
    experiments: Mapping[str, Experiment], jobs: Iterable[Job], results: Path
) -> dict[str, list[Share]]:
    """Return what of each experiment jobs have to make, where it is not there already.

    Arguments:
        experiments: by name.
        jobs: that Snakemake has planned; their outputs are relative to this folder.
        results: folder of all results.
    """
    found: dict[str, list[Share]] = {name: [] for name in experiments}
    for job in jobs:
        there = job.outputs and all(Path(file).exists() for file in job.outputs)
        if job.rule not in SIZES or there:
            continue
        name = job.wildcards["name"]
        model, seed = job.wildcards.get("model", ""), job.wildcards.get("seed", "")
        for split in splits_of(job, experiments[name]):
            sharded = "shard" in job.wildcards
            share = 1 / shard_count(experiments[name], results, split) if sharded else 1.0
            found[name].append(Share(job.rule, model, seed, split, share))
    return found


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
        UserError: see :func:`check_disk`.
    """

    def planned(shares: Mapping[str, Sequence[Share]]) -> Planned:
        return {name: (experiment, shares[name]) for name, experiment in experiments.items()}

    if everything and any(job.rule == "index_images" for job in jobs):
        free = _free(results) if free is None else free
        most = planned({name: _most(experiment) for name, experiment in experiments.items()})
        if _needed(most, results, {}, exact=False) <= free:
            return
        jobs = whole_jobs(
            experiments, lambda name, split: shard_count(experiments[name], results, split)
        )
    check_disk(planned(planned_shares(experiments, jobs, results)), results, free)


def _most(experiment: Experiment) -> list[Share]:
    """Return all that any products and models of an experiment could need."""
    settings = experiment.settings
    return [
        Share(rule, model, str(seed), split, 1.0)
        for rule in SIZES
        for model in dict.fromkeys(("base", *settings["models"]))
        if rule not in CACHES or (rule == "train_base") == (model in BASE_MODELS)
        for seed in settings["seeds"]
        for split in experiment.splits()
    ]


def needed_bytes(
    experiment: Experiment,
    shares: Iterable[Share],
    sizes: Mapping[str, SplitSize],
    channels: Sequence[int] = RESNET50,
) -> float:
    """Return the bytes of what is still to be made, at the time when most of it lies on the disk.

    Trainings on images of the same size, in batches of the same, share what they cache, whatever
    their seed. Without ``keep_features`` a pixel store is gone when its flow has denoised the maps:
    only one model's is counted for each seed.

    Arguments:
        experiment: whose settings are taken.
        shares: what is to be made.
        sizes: of the splits, of all images whatever their share.
        channels: of the backbone's four stages.
    """
    total = 0.0
    cached: dict[tuple[int, int], float] = {}
    stores: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in shares:
        made = one.share * bytes_made(one.rule, experiment, one.model, sizes[one.split], channels)
        if one.rule in CACHES:
            training = experiment.network(one.model)
            shared = training["crop"], training["batch_size"]
            cached[shared] = max(cached.get(shared, 0.0), made)
        elif one.rule == "store_pixels" and not experiment.settings["keep_features"]:
            stores[one.seed][one.model] += made
        else:
            total += made
    return (
        total + sum(cached.values()) + sum(max(of_model.values()) for of_model in stores.values())
    )


def check_disk(planned: Planned, results: Path, free: float | None = None) -> None:
    """Refuse a run whose products would not fit the disk.

    Arguments:
        planned: see :data:`Planned`.
        results: folder of all results.
        free: bytes; None asks the disk.

    Raises:
        UserError: the disk is too small; names what to set, and what is then needed.
    """
    free = _free(results) if free is None else free
    if _needed(planned, results, {}, exact=False) <= free:
        return
    needed = _needed(planned, results, {}, exact=True)
    if needed <= free:
        return
    remedies = "; ".join(
        f"{words} (then {_gigabytes(less)})" for words, less in _remedies(planned, results, needed)
    )
    ways = f"set {remedies}; or take" if remedies else "take"
    raise UserError(
        f"{results}: this run still makes about {_gigabytes(needed)}, {_gigabytes(free)} are free; "
        f"{ways} fewer models, seeds or"
        " products, or make room (snakemake plan lists every product)"
    )


def _remedies(planned: Planned, results: Path, needed: float) -> Iterator[tuple[str, float]]:
    """Yield settings that lower the need, each added to those before, and the need left."""
    changes: dict[str, Any] = {}
    for words, change in REMEDIES:
        less = _needed(planned, results, merged(changes, change), exact=True)
        if less < 0.99 * needed:
            changes, needed = merged(changes, change), less
            yield words, less


def _needed(planned: Planned, results: Path, changes: Mapping[str, Any], exact: bool) -> float:
    """Return the bytes that all experiments need with some settings changed; exact when the
    backbones are asked how wide they are.
    """
    total = 0.0
    for name, (experiment, shares) in planned.items():
        changed = Experiment(merged(experiment.settings, changes))
        sizes = {
            split: split_size(changed, split, results / name / "index")
            for split in {one.split for one in shares}
        }
        channels: Sequence[int] = RESNET50
        if exact and shares:
            # Costs seconds, so only when the answer depends on it.
            from brnf.backbones.network import backbone_channels

            channels = backbone_channels(experiment.settings["backbone"]["name"])
        total += needed_bytes(changed, shares, sizes, channels)
    return MARGIN * total


def _free(folder: Path) -> float:
    """Return the free bytes of the disk that a folder lies on, which need not exist."""
    folder = folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return float(shutil.disk_usage(existing).free)


def _gigabytes(size: float) -> str:
    gigabytes = size / GIGABYTE
    return f"{gigabytes:.0f} GB" if gigabytes >= 10 else f"{gigabytes:.2g} GB"
