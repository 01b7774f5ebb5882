"""Class activation maps in HDF5: one group an image, one dataset a product."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from brnf.errors import DamagedProduct, UserError
from brnf.store.hdf5 import FORMAT, Disk, apart, bounded, child, open_shard, write_shard
from brnf.store.label_type import Labels, as_labels, label_type

__all__ = [
    "CamMaps",
    "MapReader",
    "MapWriter",
    "PackedMaps",
    "UnpackedMaps",
    "as_stored",
    "pack_maps",
    "winning_channels",
    "write_maps",
]

# LZF is faster, but makes other bytes of the same numbers each time.
FILTERS: dict[str, Any] = {
    "compression": "gzip",
    "compression_opts": 1,
    "shuffle": True,
    "fletcher32": True,
}
HALF_MAXIMUM = float(np.finfo(np.float16).max)
STAGE = "its stage"

Indices = NDArray[np.integer] | tuple[int, ...]
UnpackedMaps = tuple[str, Indices, dict[str, NDArray[np.float32]]]
"""An image's id, its classes, and its maps by the name of their product."""


@dataclass(frozen=True)
class CamMaps:
    """The maps of one image for one product.

    Attributes:
        classes: [k], class indices 1..C of the channels after the first, in the type of C classes.
        values: [1 + k, h, w] float32 in 0..1; channel 0 is the background.
    """

    classes: Labels
    values: NDArray[np.float32]

    def labels(self) -> Labels:
        """Return the arg max over the channels as class indices, [h, w] (0 = background)."""
        lookup = np.concatenate([np.zeros(1, self.classes.dtype), self.classes])
        return lookup[winning_channels(self.values)[0]]


def winning_channels(
    values: NDArray[np.floating],
) -> tuple[Labels, NDArray[np.floating]]:
    """Return arg max [H, W] and maximum [H, W] over the channels of [k, H, W]; the first of equal
    channels wins.

    Channel by channel, which is several times faster than numpy's arg max over the first axis.
    """
    winner, largest = np.zeros(values.shape[1:], label_type(len(values) - 1)), values[0].copy()
    for channel in range(1, len(values)):
        np.copyto(winner, channel, where=values[channel] > largest)
        np.maximum(largest, values[channel], out=largest)
    return winner, largest


def as_stored(values: NDArray[np.floating]) -> NDArray[np.float16]:
    """Return maps in the precision in which files hold them."""
    return values.astype(np.float16)


@dataclass(frozen=True)
class PackedMaps:
    """The maps of one image as their file holds them, made by :func:`pack_maps`.

    Attributes:
        image: its id.
        classes: [k] class indices 1..C of the channels after the first.
        shapes: name of the product -> [1 + k, h, w].
        chunks: name of the product -> mask of the filters that were left out, and the bytes.
    """

    image: str
    classes: Indices
    shapes: dict[str, tuple[int, ...]]
    chunks: dict[str, tuple[int, bytes]]


def pack_maps(
    image: str, classes: Indices, products: dict[str, NDArray[np.floating]]
) -> PackedMaps:
    """Check and compress the maps of one image, which takes most of the time of writing them.

    The library itself compresses, into a file in memory: its bytes are those that it would write.

    Arguments: as :meth:`MapWriter.write`.

    Raises:
        UserError: a map is not finite or does not fit float16.
    """
    for product, values in products.items():
        if values.ndim != 3 or values.shape[0] != len(classes) + 1:
            raise ValueError(
                f"{image}/{product}: shape {values.shape} does not fit {len(classes)} classes "
                "and background"
            )
        if not np.isfinite(values).all() or np.abs(values).max() > HALF_MAXIMUM:
            raise UserError(
                f"{image}: its {product} map holds values that are not finite; the network has "
                "diverged, lower its learning rate"
            )
    shapes = {product: values.shape for product, values in products.items()}
    chunks = {product: apart(_packed, values) for product, values in products.items()}
    return PackedMaps(image, classes, shapes, chunks)


def _packed(values: NDArray[np.floating]) -> tuple[int, bytes]:
    """Return what a chunk with these values is in a file, and its mask of filters."""
    with h5py.File("packed", "w", driver="core", backing_store=False, libver=FORMAT) as file:
        stored = as_stored(values)
        dataset = file.create_dataset("maps", data=stored, chunks=values.shape, **FILTERS)
        file.flush()
        mask, content = dataset.id.read_direct_chunk((0, 0, 0))
        return int(mask), bytes(content)


class MapWriter:
    """Write maps image by image into an open HDF5 file."""

    def __init__(self, file: h5py.File, disk: Disk, classes: int) -> None:
        self._file, self._disk, self._classes = file, disk, classes

    def write(
        self, image: str, classes: Indices, products: dict[str, NDArray[np.floating]]
    ) -> None:
        """Write the maps of one image.

        Arguments:
            image: its id, which becomes the group's name.
            classes: [k] class indices 1..C that the channels after the first stand for.
            products: name -> [1 + k, h, w] maps, channel 0 the background; stored as float16.

        Raises:
            UserError: a map is not finite or does not fit float16, or the disk is full.
        """
        self.write_packed(pack_maps(image, classes, products))

    def write_packed(self, maps: PackedMaps) -> None:
        """Write what :func:`pack_maps` made, perhaps in another process.

        Raises:
            UserError: the disk is full.
        """
        apart(self._write, maps)
        self._disk.check()

    def _write(self, maps: PackedMaps) -> None:
        group = self._file.create_group(maps.image)
        group.attrs["classes"] = as_labels(maps.classes, self._classes)
        for product, (mask, content) in maps.chunks.items():
            shape = maps.shapes[product]
            dataset = group.create_dataset(product, shape, np.float16, chunks=shape, **FILTERS)
            dataset.id.write_direct_chunk((0, 0, 0), content, mask)


@contextmanager
def write_maps(path: Path, classes: int) -> Iterator[MapWriter]:
    """Open a shard for writing maps; the file appears when the block ends without an error.

    Arguments:
        path: the shard.
        classes: C, foreground classes of the data set, whose number says how indices are stored.
    """
    with write_shard(path) as (file, disk):
        yield MapWriter(file, disk, classes)


class MapReader:
    """Read maps of one product out of the shards of a split.

    Opens its files on first use, once per process, so that it can be handed to data-loader workers.

    Arguments:
        paths: the HDF5 shards written by :func:`write_maps`.
        product: name of the dataset to read, such as ``classifier`` or ``prototype``.

    Raises:
        UserError: a shard cannot be read, holds an image of another shard, or one without this
            product or with values that are not finite.
    """

    def __init__(self, paths: Iterable[Path], product: str) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._product = product
        self._files: dict[Path, h5py.File] = {}
        self._shard_of: dict[str, Path] = {}
        for path in self._paths:
            with open_shard(path, STAGE) as file:
                try:
                    images = list(file)
                except Exception as error:  # h5py reports damage with many kinds of exceptions
                    raise DamagedProduct(
                        path, f"its list of images is damaged ({error})", STAGE
                    ) from error
            if twice := next((image for image in images if image in self._shard_of), None):
                raise UserError(
                    f"{path}: {self._shard_of[twice]} holds maps of the same image {twice}; give "
                    "only one of them"
                )
            self._shard_of |= dict.fromkeys(images, path)

    @property
    def images(self) -> list[str]:
        """Return the ids of all images, sorted."""
        return sorted(self._shard_of)

    def __contains__(self, image: str) -> bool:
        return image in self._shard_of

    def __getitem__(self, image: str) -> CamMaps:
        if image not in self._shard_of:
            raise UserError(
                f"{image}: no maps of this image in {', '.join(map(str, self._paths))}; run its "
                "CAM stage again"
            )
        path = self._shard_of[image]
        if path not in self._files:
            self._files[path] = open_shard(path, STAGE)
        try:
            maps = apart(_read_maps, self._files[path], image, self._product)
        except UserError as error:
            raise UserError(f"{path}: image {image} {error}") from error
        except Exception as error:  # h5py reports damage with many kinds of exceptions
            raise DamagedProduct(
                path, f"the {self._product} map of {image} is missing or damaged ({error})", STAGE
            ) from error
        if not np.isfinite(maps.values).all():
            raise DamagedProduct(
                path, f"the {self._product} map of {image} holds values that are not finite", STAGE
            )
        return maps

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}


def _read_maps(file: h5py.File, image: str, product: str) -> CamMaps:
    """Read the maps of an image, checking first that they are what :class:`MapWriter` writes."""
    group = child(file, image, h5py.Group)
    if product not in group:
        raise UserError(
            f"has no {product} map; name another product, or remove the file and run its stage "
            "again"
        )
    dataset = bounded(child(group, product, h5py.Dataset))
    attribute = group.attrs.get_id("classes")
    if (
        dataset.dtype != np.float16
        or attribute.dtype not in (np.uint8, np.uint16)
        or dataset.ndim != 3
        or 0 in dataset.shape
        or dataset.chunks != dataset.shape
    ):
        raise ValueError(
            f"{dataset.dtype} {dataset.shape} with classes {attribute.dtype} {attribute.shape}"
        )
    if attribute.shape != (dataset.shape[0] - 1,):
        raise ValueError(f"{dataset.shape[0]} maps for {attribute.shape} classes")
    classes = np.asarray(group.attrs["classes"], attribute.dtype)
    if 0 in classes or len(np.unique(classes)) < len(classes):
        raise ValueError(f"classes {classes}")
    return CamMaps(classes, dataset[()].astype(np.float32))
