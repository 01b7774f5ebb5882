"""Whether the disk holds what is still to be made, and what to set when it does not."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brnf.config.experiment import Experiment, merged
from brnf.errors import UserError
from brnf.planning.sizes import RESNET50, SplitSize, bytes_made, split_size
from brnf.planning.work import FOLDERS, planned_work

__all__ = [
    "Job",
    "Share",
    "check_disk",
    "missing_work",
    "needed_bytes",
    "planned_shares",
    "shard_count",
]

Job = tuple[str, Mapping[str, str], Sequence[str]]
"""Rule, wildcards and output files of a job that Snakemake has planned."""

GIGABYTE = 1e9
TRAININGS = ("train_base", "train_brnf")
WRITTEN = dict.fromkeys(TRAININGS, "network/network.pt") | {
    "train_flow": "flow/flow.pt",
    "train_segmentation": "segmentation/network.pt",
}
"""Rule that is one job -> the file by which one knows that it is done."""
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


def missing_work(experiment: Experiment, results: Path) -> list[Share]:
    """Return what `all` would still have to make, as far as files tell.

    Arguments:
        experiment: with any state of its results.
        results: folder of all results.
    """
    found = []
    for work in planned_work(experiment):
        for seed in experiment.settings["seeds"]:
            run = results / experiment.name / work.model / f"seed{seed}"
            if work.sharded:
                there = len(list((run / FOLDERS[work.rule] / work.split).glob("*.h5")))
                share = max(0.0, 1 - there / shard_count(experiment, results, work.split))
            else:
                share = float(work.rule in WRITTEN and not (run / WRITTEN[work.rule]).is_file())
            found.append(Share(work.rule, work.model, str(seed), work.split, share))
    return found


def shard_count(experiment: Experiment, results: Path, split: str) -> int:
    """Return how many shards of a split hold an image, all of them as long as there is no index."""
    return len(list((results / experiment.name / "index" / "shards" / split).glob("*"))) or int(
        experiment.settings["shards"]
    )


def planned_shares(
    experiments: Mapping[str, Experiment], jobs: Iterable[Job], results: Path, everything: bool
) -> dict[str, list[Share]]:
    """Return what planned jobs have to make.

    Arguments:
        experiments: by name.
        jobs: that Snakemake will run; those that follow an image index which is itself to be made
            are not yet among them.
        results: folder of all results.
        everything: whether the target is `all`, so that what follows such an index is known all the
            same.
    """
    found: dict[str, list[Share]] = {name: [] for name in experiments}
    for rule, wildcards, outputs in jobs:
        name = wildcards.get("name", "")
        if rule == "index_images" and everything:
            found[name] = missing_work(experiments[name], results)
        elif rule in TRAININGS:
            split = experiments[name].settings["dataset"]["train"]
            found[name].append(Share(rule, wildcards["model"], wildcards["seed"], split, 1.0))
        elif rule in FOLDERS and not all(Path(file).exists() for file in outputs):
            share = 1 / shard_count(experiments[name], results, wildcards["split"])
            found[name].append(
                Share(rule, wildcards["model"], wildcards["seed"], wildcards["split"], share)
            )
    return found


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
        if one.rule in TRAININGS:
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
    if free is None:
        free = float(shutil.disk_usage(_existing(results)).free)
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


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())


def _gigabytes(size: float) -> str:
    gigabytes = size / GIGABYTE
    return f"{gigabytes:.0f} GB" if gigabytes >= 10 else f"{gigabytes:.2g} GB"
