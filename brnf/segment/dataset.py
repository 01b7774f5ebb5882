"""Images with their pseudo-labels as an endless stream of augmented batches."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from brnf.config.sections.segmentation import Augmentation
from brnf.data.augment import (
    Sample,
    hsv_jitter,
    random_crop_or_pad,
    random_flip,
    random_scale,
)
from brnf.data.images import read_image
from brnf.data.index import ImageRecord
from brnf.data.loading import BatchLoader
from brnf.data.masks import read_mask
from brnf.engine import distributed
from brnf.errors import DamagedProduct, UserError
from brnf.store.label_type import Labels

__all__ = [
    "LabelledImage",
    "SegmentationDraws",
    "endless_batches",
    "pair_with_masks",
]

Draw = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LabelledImage:
    """An image and where its pseudo-label lies."""

    image: Path
    mask: Path


def pair_with_masks(
    records: Sequence[ImageRecord], folders: Sequence[Path], every: bool = True
) -> list[LabelledImage]:
    """Find the mask of each image.

    Arguments:
        records: the images to train on.
        folders: of masks ``<id>.png``, each image's in one of them.
        every: whether each image must have one; else those without are left out.

    Raises:
        UserError: a folder or an image's mask is missing, or all are.
    """
    masks: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of masks; run make_pseudo_labels first")
        masks.update((path.stem, path) for path in folder.glob("*.png"))
    missing = [record.id for record in records if record.id not in masks]
    if missing and (every or not masks):
        others = f" (nor have {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}: this image has no mask in the given folders{others}; run "
            "make_pseudo_labels for its shard"
        )
    return [
        LabelledImage(record.path, masks[record.id]) for record in records if record.id in masks
    ]


class SegmentationDraws(Dataset[Draw]):
    """The draws of a whole training: item ``i`` is the ``i``-th crop that the network sees.

    Every epoch is a new permutation. A draw depends on the seed and its number only, so that any
    number of loading processes gives the same stream, and a stream can be entered anywhere.

    Arguments:
        images: the training set.
        classes: C, foreground classes; masks hold 0..C and the ignored value.
        draws: length of the stream.
        options: the augmentation.
        fill: RGB of padded pixels, the network's mean.
        seed: of all randomness.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        classes: int,
        draws: int,
        options: Augmentation,
        fill: tuple[int, int, int],
        seed: int,
    ) -> None:
        self._images = tuple(images)
        self._mask_values = tuple(range(1, classes + 1))
        self._draws = draws
        self._options = options
        self._fill = fill
        self._seed = seed

    def __len__(self) -> int:
        return self._draws

    def __getitem__(self, draw: int) -> Draw:
        """Return the crop [3, S, S] uint8 and its label [S, S], uint8, or int32 where
        classes take two bytes.

        Raises:
            UserError: its files cannot be used.
        """
        if not 0 <= draw < self._draws:
            raise IndexError(f"draw {draw} of {self._draws}")
        epoch, position = divmod(draw, len(self._images))
        files = self._images[_permutation(len(self._images), self._seed, epoch)[position]]
        image = read_image(files.image)
        try:
            mask = read_mask(files.mask, self._mask_values, size=(image.shape[0], image.shape[1]))
        except UserError as error:
            fault = f"its mask of {files.mask.stem} cannot be used ({error})"
            raise DamagedProduct(files.mask.parent, fault, "make_pseudo_labels") from error
        sample = self._augment(
            Sample.of(image, mask=mask), np.random.default_rng((self._seed, 1, draw))
        )
        if sample.mask is None:
            raise AssertionError("augmentation lost the mask")
        return torch.from_numpy(
            np.ascontiguousarray(sample.image.transpose(2, 0, 1))
        ), torch.from_numpy(_signed(sample.mask))

    def _augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        options = self._options
        if options.hsv > 0:  # before the crop, whose padding keeps the mean colour
            sample = hsv_jitter(sample, rng, options.hsv)
        low, high, scales = options.scale_low, options.scale_high, options.scales
        sample = random_scale(sample, rng, low, high, scales, options.interpolation)
        sample = random_crop_or_pad(sample, rng, options.crop, self._fill, options.padding)
        # Last, as in deeplab-pytorch: its padding, too, is mirrored with what it surrounds.
        return random_flip(sample, rng) if options.flip else sample


def _signed(mask: Labels) -> NDArray[np.integer]:
    """Return labels of two bytes as int32: torch copies uint16, and does little else with it."""
    return mask if mask.dtype == np.uint8 else mask.astype(np.int32)


@functools.lru_cache(maxsize=2)
def _permutation(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one epoch; neighbouring epochs share a batch, so two are kept."""
    return np.random.default_rng((seed, 0, epoch)).permutation(images)


def endless_batches(
    draws: SegmentationDraws,
    batch_size: int,
    workers: int,
    *,
    accumulate: int = 1,
    pin: bool = False,
    done: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return what each step of a stream sees, in order.

    Arguments:
        draws: the stream; it ends the iteration.
        batch_size: images a batch; of several processes that train together each loads its share.
        workers: loading processes; 0 loads here.
        accumulate: batches a step; they come one behind the other.
        pin: whether to copy into page-locked memory, for a GPU.
        done: steps to leave out at the start.

    Returns:
        images [N, 3, S, S] uint8 and labels [N, S, S] uint8 or int32.

    Raises:
        UserError: an image or a mask cannot be used, or a batch has fewer images than there
            are processes.
    """
    share = distributed.share(batch_size)
    starts = range(done * accumulate * batch_size, len(draws), batch_size)
    batches = [range(start, min(start + batch_size, len(draws)))[share] for start in starts]
    firsts = range(0, len(batches), accumulate)
    steps = [[draw for batch in batches[at : at + accumulate] for draw in batch] for at in firsts]
    settings = {"batch_sampler": steps, "worker_init_fn": _one_thread, "pin_memory": pin}
    return iter(BatchLoader(draws, _collate, workers, **settings))


def _collate(items: list[Draw]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)


def _one_thread(_: int) -> None:
    # Several loading processes with a thread pool each would fight for the cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
