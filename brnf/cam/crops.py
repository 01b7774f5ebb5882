"""Training images of the CAM networks: random crops, or a frozen backbone's stored outputs."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from brnf.cam.batch import Batch
from brnf.cam.feature_cache import backbone_outputs, outputs_stamp
from brnf.cam.network import CamNetwork
from brnf.config.sections.cam import Training
from brnf.data.augment import (
    Sample,
    flip,
    random_crop_or_pad,
    random_flip,
    random_resize,
    resize_long_side,
)
from brnf.data.images import read_image
from brnf.data.index import Index
from brnf.data.loading import BatchLoader, one_ahead
from brnf.engine import distributed
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.fingerprint import fingerprint
from brnf.store.files import reported
from brnf.store.maps import MapReader
from brnf.store.records import Records, write_records

__all__ = ["TrainingSource"]

GRID_STRIDE = 16
PREFIX = ".stages."
"""Of the folder for a frozen backbone's outputs."""


class TrainingSource:
    """Give batches for as many steps as a training takes, the same ones for the same seed.

    With ``cache`` each image is seen only whole and mirrored, so the outputs of a frozen backbone
    are computed once into a feature cache, for this training or for all that share a folder; a step
    then costs no forward pass.

    Arguments:
        network: whose backbone is asked when ``cache`` is on.
        index: the images to train on.
        seeds: base seed maps, or None.
        options: batches, sizes, and whether features are cached.
        seed: of the order and of every random choice.
        folder: where temporary files may lie.
        device: of the network.
        runtime: workers, progress, and the folder shared with other trainings.

    Raises:
        UserError: the options contradict each other.
    """

    def __init__(
        self,
        network: CamNetwork,
        index: Index,
        seeds: MapReader | None,
        options: Training,
        seed: int,
        folder: Path,
        device: torch.device,
        runtime: Runtime,
    ) -> None:
        if options.crop % GRID_STRIDE:
            raise UserError(
                f"crop: {options.crop} is no multiple of {GRID_STRIDE}; take "
                f"{options.crop // GRID_STRIDE * GRID_STRIDE}"
            )
        if options.cache and network.backbone.trainable_stages:
            raise UserError(
                "cache: only a frozen backbone's outputs can be cached; set "
                "backbone.trainable_stages to 0 or cache to false"
            )
        if options.cache and not options.resize_low == options.resize_high == options.crop:
            raise UserError(
                "cache: images are seen whole, so resize_low, resize_high and crop must be equal"
            )
        self._network, self._options, self._device, self._runtime = (
            network,
            options,
            device,
            runtime,
        )
        self._seed = seed
        self._images = _TrainingImages(index, seeds, options, seed)
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._features: Records | None = None
        self._seeds: Records | None = None

    def __enter__(self) -> "TrainingSource":
        if self._options.cache:
            with reported(self._folder / "features"):
                self._folder.mkdir(parents=True, exist_ok=True)
                if distributed.is_first():
                    for remains in self._folder.glob(
                        f"{PREFIX}*"
                    ):  # of a training that was killed: this one holds the lock
                        shutil.rmtree(remains, ignore_errors=True)
                distributed.wait()
                self._temporary = tempfile.TemporaryDirectory(prefix=PREFIX, dir=self._folder)
            private = Path(self._temporary.name)
            self._features = self._cache_features(self._runtime.feature_cache or private)
            self._seeds = self._cache_seeds(private / "seeds")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._features = self._seeds = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def batches(self, steps: int, done: int = 0, whole: bool = False) -> Iterator[Batch]:
        """Yield a batch a step, after those already done; every image once an epoch, in random
        order.

        Arguments:
            steps: of the whole training.
            done: batches to leave out at the start.
            whole: whether each of the processes that train together sees all images of a batch, not
                its share of them.

        Raises:
            UserError: there are more processes than images in a batch.
        """
        order = _Order(
            len(self._images.records),
            self._options.batch_size,
            steps,
            done,
            self._seed,
            whole,
        )
        if self._features is not None:
            yield from one_ahead(map(self._from_features, order))
            return
        yield from BatchLoader(self._images, _collate, self._runtime.workers, batch_sampler=order)

    def whole_images(self) -> Iterator[Batch]:
        """Yield every image once and its mirror, whole, at the middle of the range of sizes."""
        if self._features is not None:
            size = self._options.batch_size
            for start in range(0, len(self._features), size):
                yield self._from_positions(np.arange(start, min(start + size, len(self._features))))
            return
        yield from self._whole_loader()

    def _whole_loader(self) -> BatchLoader[Batch]:
        return BatchLoader(
            _WholeImages(self._images),
            _collate,
            self._runtime.workers,
            batch_size=self._options.batch_size,
        )

    def _cache_features(self, folder: Path) -> Records:
        """Return a record of the backbone's outputs for each image and its mirror."""
        backbone, options, records = self._network.backbone, self._options, self._images.records
        seen = [(record.id, record.digest, record.labels) for record in records]
        sizes = self._images.classes, options.crop, options.batch_size
        stamp = outputs_stamp(backbone, fingerprint(__name__), *sizes, self._device.type, seen)
        batches = Progress(self._whole_loader(), "backbone features", self._runtime, unit="block")
        shared = self._runtime.feature_cache is not None
        if shared and not distributed.is_first():
            distributed.wait()  # the first computes them for all
        features = backbone_outputs(
            folder / f"{stamp}.npy", self._network, batches, len(records), self._device
        )
        if shared and distributed.is_first():
            distributed.wait()
        return features

    def _cache_seeds(self, file: Path) -> Records | None:
        """Return the seed maps on the grid of each image and its mirror, [2N, K, h, w]; None when
        there are none.
        """
        if not self._images.has_seeds:
            return None
        seeds = (batch.seeds.numpy() for batch in self._whole_loader() if batch.seeds is not None)
        with reported(file):
            write_records(file, 2 * len(self._images.records), seeds)
        return Records(file)

    def _from_features(self, chosen: list[tuple[int, int]]) -> Batch:
        mirrored = [
            np.random.default_rng([self._seed, draw, image]).integers(2) for image, draw in chosen
        ]
        return self._from_positions(
            np.array(
                [2 * image + mirror for (image, _), mirror in zip(chosen, mirrored, strict=True)]
            )
        )

    def _from_positions(self, positions: NDArray[np.integer]) -> Batch:
        assert self._features is not None
        records = self._features[positions]
        columns = {
            name: torch.from_numpy(np.ascontiguousarray(records[name]))
            for name in records.dtype.names or ()
        }
        seeds = None if self._seeds is None else torch.from_numpy(self._seeds[positions])
        return Batch(
            [columns[f"stage{i}"] for i in range(4)], columns["labels"], columns["valid"], seeds
        )


class _Order:
    """Batches of (image, number of the draw) for the steps that are not yet done.

    Each epoch is a new permutation, incomplete batches are left out.
    """

    def __init__(
        self, images: int, batch_size: int, steps: int, done: int, seed: int, whole: bool
    ) -> None:
        self._images, self._batch_size, self._steps, self._done, self._seed = (
            images,
            min(batch_size, images),
            steps,
            done,
            seed,
        )
        self._share = slice(0, self._batch_size) if whole else distributed.share(self._batch_size)

    def __len__(self) -> int:
        return self._steps - self._done

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self._images // self._batch_size
        for epoch in range(self._done // per_epoch, -(-self._steps // per_epoch)):
            permutation = np.random.default_rng([self._seed, epoch]).permutation(self._images)
            for step in range(
                max(self._done, epoch * per_epoch), min(self._steps, (epoch + 1) * per_epoch)
            ):
                start = step % per_epoch * self._batch_size
                yield [
                    (int(image), epoch)
                    for image in permutation[start : start + self._batch_size][self._share]
                ]


class _TrainingImages(Dataset[dict[str, Any]]):
    """Random crops with their seed maps on the grid."""

    def __init__(self, index: Index, seeds: MapReader | None, options: Training, seed: int) -> None:
        self.records = index.images
        self.classes, self._seeds, self._options = len(index.classes), seeds, options
        self._seed = seed
        self.has_seeds = seeds is not None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, chosen: tuple[int, int]) -> dict[str, Any]:
        image, draw = chosen
        generator = np.random.default_rng([self._seed, draw, image])
        sample = random_resize(
            self.read(image), generator, self._options.resize_low, self._options.resize_high
        )
        return self.finish(
            image, random_crop_or_pad(random_flip(sample, generator), generator, self._options.crop)
        )

    def whole(self, position: int) -> dict[str, Any]:
        """Return image ``position // 2``, mirrored when the position is odd, whole and padded to a
        square.
        """
        sample = resize_long_side(self.read(position // 2), self._options.crop)
        # Of the seed nothing follows here: trainings of other seeds share the outputs, and lay
        # their own maps on them.
        generator = np.random.default_rng(position)
        return self.finish(
            position // 2,
            random_crop_or_pad(
                flip(sample) if position % 2 else sample, generator, self._options.crop
            ),
        )

    def read(self, image: int) -> Sample:
        """Read one image and, when there are any, its seed maps."""
        record = self.records[image]
        return Sample.of(
            read_image(record.path),
            maps=None if self._seeds is None else self._seeds[record.id].values,
        )

    def finish(self, image: int, sample: Sample) -> dict[str, Any]:
        """Bring a sample's maps and valid mask to the grid and add its labels."""
        side = self._options.crop // GRID_STRIDE
        labels = np.zeros(self.classes, np.float32)
        labels[[label - 1 for label in self.records[image].labels]] = 1
        item: dict[str, Any] = {
            "pixels": np.ascontiguousarray(sample.image.transpose(2, 0, 1)),
            "labels": labels,
            "valid": _valid_cells(sample.valid, side)[None],
        }
        if sample.maps is not None:
            item["seeds"] = np.zeros((self.classes + 1, side, side), np.float32)
            for channel, values in zip((0, *self.records[image].labels), sample.maps, strict=True):
                item["seeds"][channel] = _to_grid(values, side)
        return item


class _WholeImages(Dataset[dict[str, Any]]):
    """Every image followed by its mirror."""

    def __init__(self, images: _TrainingImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return 2 * len(self._images)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self._images.whole(position)


def _valid_cells(valid: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return which cells of the grid count: those that the image fills at least by half, and where
    a strip is too thin for that, those that it fills most.
    """
    share = _to_grid(valid.astype(np.float32), side)
    most = share.max()
    return np.asarray(share >= (0.5 if most >= 0.5 else most / 2), np.bool_)


def _to_grid(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _collate(items: list[dict[str, Any]]) -> Batch:
    columns: dict[str, Tensor] = {
        name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]
    }
    return Batch(columns["pixels"], columns["labels"], columns["valid"], columns.get("seeds"))
