"""A finished run of an experiment: the share of it that is measured, laid out for both sides, and
how much the whole is.
"""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tyro
import yaml

from benchmarks.growing_store import GrowingStore, write_saved
from benchmarks.stopwatch import REST
from brnf.config.experiment import Experiment
from brnf.config.generate import load_schema
from brnf.config.renamed import with_new_names
from brnf.config.schema import complete, reread
from brnf.data.index import ImageRecord, Index, read_classes, read_masks, write_masks
from brnf.engine.schedule import total_steps
from brnf.errors import UserError
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelStore, write_pixels
from brnf.workflow.params import command_line, option_names, stage_options
from brnf.workflow.targets import MAP_PRODUCTS

__all__ = ["MAPS", "MASKS", "SEEN", "STEPS", "UNSEEN", "FinishedRun", "prepare"]

SEEN, UNSEEN = "measured_seen", "measured_unseen"
"""Splits of the measured images: of those that are trained on, and of those that no network has
seen.
"""
PRODUCTS = {
    "train_base": "network/network.pt",
    "train_brnf": "network/network.pt",
    "train_flow": "flow/flow.pt",
    "train_segmentation": "segmentation/network.pt",
    "compute_cams": "cams/*",
    "store_pixels": "pixels/*",
    "denoise_seeds": "denoised/*",
    "make_pseudo_labels": "pseudo_labels/*",
    "predict_segmentation": "predictions/*",
    "evaluate": "evaluation/*.json",
}
"""Rule -> what it has made for each training, split, or product and split of a finished run."""
CAM_TRAININGS = ("train_base", "train_brnf")
TRAININGS = (*CAM_TRAININGS, "train_flow", "train_segmentation")
STEPS, MAPS, MASKS = "steps", "maps", "masks"
"""Phases: steps of a training; evaluations of maps and of masks."""


@dataclass(frozen=True)
class FinishedRun:
    """Where a finished run lies and which share of its work is measured.

    Arguments:
        results: ``results/<name>``, only read.
        folder: where the inputs of the measured share lie; filled by :func:`prepare`.
        model: whose products are taken, a BRNF network.
        seed: of the run.
        share: of the images and of the steps.
    """

    results: Path
    folder: Path
    model: str = "brnf"
    seed: int = 0
    share: float = 0.1

    @cached_property
    def experiment(self) -> Experiment:
        """Return the experiment as its record says, without looking for its data set."""
        schema, record = load_schema(), self.results / "config.yaml"
        if not record.is_file():
            raise UserError(f"{record}: no such file; give the folder of a finished experiment")
        settings = with_new_names(yaml.safe_load(record.read_text()))
        return Experiment(complete(reread(settings, schema), schema))

    @property
    def index(self) -> Path:
        """Return the folder of the index that also knows the measured splits."""
        return self.folder / "index"

    def images(self, split: str) -> Index:
        """Return the images of a split, of the data set or measured."""
        return Index.of_split(self.index, split)

    def listed(self, split: str) -> Path:
        """Return the list of a measured split's images, as a stage over images takes it."""
        return self.index / "splits" / f"{split}.csv"

    def split(self, key: str) -> str:
        """Return the split of a key in section dataset."""
        return str(self.experiment.settings["dataset"][key])

    def options(self, stage: ModuleType, **given: Any) -> Any:
        """Return a stage's options as its job gets them."""
        name = stage.__name__.rsplit(".", 1)[-1]
        seed = {"seed": self.seed} if "seed" in option_names(name) else {}
        model = "base" if name == "train_base" else self.model
        words = command_line(stage_options(name, self.experiment, model, {**seed, **given}))
        return tyro.cli(
            stage.Options, args=shlex.split(words), config=(tyro.conf.FlagConversionOff,)
        )

    def product(self, path: str, model: str | None = None) -> Path:
        """Return a product of the run, such as ``network/network.pt``."""
        return self.results / (model or self.model) / f"seed{self.seed}" / path

    def shards(
        self, folder: str, split: str, model: str | None = None, suffix: str = ".h5"
    ) -> tuple[Path, ...]:
        """Return the shards of a product for a split."""
        numbers = sorted(
            int(path.stem) for path in (self.results / "index" / "shards" / split).glob("*.csv")
        )
        return tuple(
            self.product(f"{folder}/{split}/{number}{suffix}", model) for number in numbers
        )

    @property
    def labelled(self) -> tuple[str, str]:
        """Return the folder and the product of the maps that become pseudo-labels."""
        return self.experiment.seeds_of(self.model, self.experiment.denoises(self.model))

    @property
    def guide(self) -> tuple[str, str]:
        """Return the folder and the product of the base's maps that guide the network."""
        return self.experiment.seeds_of("base", self.experiment.denoises(self.model))

    def steps(self, rule: str) -> tuple[int, int]:
        """Return how many steps of a training are measured, and how many it has."""
        settings = self.experiment.settings
        if rule in CAM_TRAININGS:
            training = self.experiment.network("base" if rule == "train_base" else self.model)
            images = len(self.images(self.split("train")).images)
            whole = total_steps(
                images, training["batch_size"], training["epochs"], training["steps"]
            )[1]
        else:
            whole = {
                "train_flow": settings["flow"]["steps"],
                "train_segmentation": settings["segmentation"]["iterations"],
            }[rule]
        return min(
            whole, max(2, round(self.share * whole))
        ), whole  # 0 of 0 where a network is no more than fitted

    def factors(self, rule: str) -> dict[str, float]:
        """Return how many times as much as was measured one seed of the experiment has, base and
        model together, by phase.
        """
        made = self._made(rule)
        seen, unseen = (len(self.images(split).images) for split in (SEEN, UNSEEN))
        if rule in TRAININGS:
            measured, whole = self.steps(rule)
            # CAM networks are trained on the measured images; the others see the whole split, whose
            # passes happen as often as ever.
            images = (
                len(self.images(self.split("train")).images) / seen
                if rule in CAM_TRAININGS
                else 1.0
            )
            return {STEPS: len(made) * whole / max(measured, 1), REST: len(made) * images}
        if rule == "evaluate":
            products = [name.rsplit("-", 1) for name in made]
            counts = [(product, len(self.images(split).images)) for product, split in products]
            maps = sum(count for product, count in counts if product in MAP_PRODUCTS)
            masks = sum(count for _, count in counts) - maps
            return {MAPS: maps / seen, MASKS: masks / unseen, REST: 1.0}
        images = sum(len(self.images(split).images) for split in made)
        return {REST: images / (unseen if rule == "predict_segmentation" else seen)}

    def shown_work(self, rule: str) -> str:
        """Say what was measured of how much."""
        seen, unseen = (len(self.images(split).images) for split in (SEEN, UNSEEN))
        if rule in TRAININGS:
            measured, whole = self.steps(rule)
            trainings = len(self._made(rule))
            shown = (
                f", {seen} of {len(self.images(self.split('train')).images)} images"
                if rule in CAM_TRAININGS
                else ""
            )
            return f"{measured} of {trainings} × {whole} steps{shown}"
        factors = self.factors(rule)
        if rule == "evaluate":
            return (
                f"{seen} of {factors[MAPS] * seen:.0f} maps, "
                f"{unseen} of {factors[MASKS] * unseen:.0f} masks"
            )
        images = unseen if rule == "predict_segmentation" else seen
        return f"{images} of {factors[REST] * images:.0f} images"

    def _made(self, rule: str) -> list[str]:
        """Return what a rule has made for base and model with one seed: splits, or names."""
        models = {"train_base": ("base",), "train_brnf": (self.model,)}.get(
            rule, ("base", self.model)
        )
        return [
            path.stem for model in models for path in self.product("", model).glob(PRODUCTS[rule])
        ]


def prepare(run: FinishedRun, root: Path | None) -> None:
    """Lay out the measured share for both sides: lists, shards of this project, the files of
    research code.

    Arguments:
        run: whose folder is filled.
        root: of the data set; None where it still is where it was.

    Raises:
        UserError: there is no image under the root.
    """
    settings = run.experiment.settings
    shutil.copytree(run.results / "index", run.index)
    if root is not None:
        _move(run, root)
    train, evaluated, val = (run.split(key) for key in ("train", "eval_split", "val"))
    if run.experiment.computed_split(evaluated) != train:
        raise UserError(
            f"the seeds are evaluated on {evaluated}, whose maps are not those of {train}: nothing "
            "to measure them with here"
        )
    judged = read_masks(run.index, evaluated)
    least = max(
        settings["brnf"]["batch_size"], 2
    )  # a batch of fewer images would cost less than one of the experiment
    seen = _spread(
        [image for image in run.images(train).images if image.id in judged],
        run.share,
        len(run.images(train).images),
        least,
    )
    unseen = _spread(list(run.images(val).images), run.share, len(run.images(val).images), 2)
    for name, images, split in ((SEEN, seen, evaluated), (UNSEEN, unseen, val)):
        whole = run.images(split)
        Index(whole.classes, whole.mask_values, tuple(images), whole.root).write(run.index, name)
        masks = read_masks(run.index, split)
        write_masks(run.index, name, [masks[image.id] for image in images], whole.root)
    _write_maps(run, [image.id for image in seen], train)
    _write_pixels(run, [image.id for image in seen], train)


def _move(run: FinishedRun, root: Path) -> None:
    """Let the index point to where the data set lies now."""
    first = next(iter(Index.of_split(run.index, run.split("train")).images))
    inside = first.path.relative_to(Path((run.index / "root.txt").read_text().removesuffix("\n")))
    for candidate in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (candidate / inside).is_file():
            (run.index / "root.txt").write_text(f"{candidate.absolute()}\n")
            return
    raise UserError(f"{root}: holds no {inside}; give the root of the data set of {run.results}")


def _spread(
    images: Sequence[ImageRecord], share: float, total: int, least: int
) -> list[ImageRecord]:
    """Choose a share of the images, evenly over the list."""
    count = min(len(images), max(least, round(share * total)))
    return [
        images[position] for position in np.linspace(0, len(images) - 1, count).round().astype(int)
    ]


def _write_maps(run: FinishedRun, images: Sequence[str], split: str) -> None:
    """Write the maps that stages read, as a shard and as one dictionary an image."""
    for name, (folder, product), model in (
        ("labelled", run.labelled, run.model),
        ("guide", run.guide, "base"),
    ):
        _copy_maps(run, name, images, MapReader(run.shards(folder, split, model), product), product)
    readers = {
        product: MapReader(run.shards("cams", split), product)
        for product in ("classifier", "prototype")
    }
    with write_maps(run.folder / "cams.h5", len(read_classes(run.index)[0])) as writer:
        for image in images:
            found = {product: reader[image] for product, reader in readers.items()}
            products = {product: maps.values for product, maps in found.items()}
            writer.write(image, found["prototype"].classes, products)
            write_saved(run.folder / "cams" / f"{image}.npy", found["prototype"].classes, products)


def _copy_maps(
    run: FinishedRun, name: str, images: Sequence[str], reader: MapReader, product: str
) -> None:
    with write_maps(run.folder / f"{name}.h5", len(read_classes(run.index)[0])) as writer:
        for image in images:
            maps = reader[image]
            writer.write(image, maps.classes, {product: maps.values})
            write_saved(run.folder / name / f"{image}.npy", maps.classes, {product: maps.values})


def _write_pixels(run: FinishedRun, images: Sequence[str], split: str) -> None:
    """Write the measured images' rows as a shard, and all rows of the training split as research
    code stores them.
    """
    store = PixelStore(run.shards("pixels", split))
    with write_pixels(run.folder / "pixels.h5", store.dimension, store.classes) as writer:
        for image in images:
            writer.append(store.image_rows(image))
    with GrowingStore.create(run.folder / "growing.h5", store.dimension) as growing:
        for image in store.images:
            growing.append(store.image_rows(image))
