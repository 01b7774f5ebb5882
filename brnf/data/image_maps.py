"""Images together with their maps, as a process reads them for a stage."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brnf.data.images import read_sized
from brnf.data.index import Index
from brnf.store.maps import CamMaps, MapReader

__all__ = ["ImageWithMaps", "images_with_maps", "read_with_maps"]

ImageWithMaps = tuple[Path, int | None, Path, str, str]
"""A photograph, the long side that it is resized to, a shard of maps, a product and an id."""


def images_with_maps(
    index: Index, maps: Path, product: str, long_side: int | None = None
) -> Iterator[ImageWithMaps]:
    """Return the arguments of :func:`read_with_maps` for each image of an index.

    Arguments:
        index: the images.
        maps: the shard with their maps.
        product: name of the maps.
        long_side: that images are resized to.

    Raises:
        UserError: the shard is missing or damaged.
    """
    _reader.cache_clear()  # of an earlier stage of this process, perhaps of another file
    _reader(maps, product)
    return ((record.path, long_side, maps, product, record.id) for record in index.images)


def read_with_maps(
    path: Path, long_side: int | None, maps: Path, product: str, image: str
) -> tuple[NDArray[np.uint8], CamMaps]:
    """Return an image [h, w, 3] uint8 RGB, resized if a long side is given, and its maps.

    Arguments:
        path: the photograph.
        long_side: in pixels.
        maps: the shard, opened once in each process.
        product: name of the maps.
        image: id of the image in the shard.

    Raises:
        UserError: the photograph or its maps are missing or damaged.
    """
    return read_sized(path, long_side), _reader(maps, product)[image]


@cache
def _reader(maps: Path, product: str) -> MapReader:
    return MapReader([maps], product)
