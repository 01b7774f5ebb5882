"""Maps of a shard: images are read, computed on and written at the same time."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.data.images import read_sized
from brnf.data.index import ImageRecord, Index
from brnf.data.pipeline import Workers
from brnf.data.tensors import image_tensor
from brnf.engine.runtime import Progress, Runtime
from brnf.store.files import locked
from brnf.store.maps import UnpackedMaps, pack_maps, write_maps

__all__ = ["write_map_shard"]


def write_map_shard(
    path: Path,
    index: Index,
    compute: Callable[[ImageRecord, Tensor], dict[str, NDArray[np.float32]]],
    *,
    long_side: int | None,
    device: torch.device,
    name: str,
    runtime: Runtime,
) -> None:
    """Write the maps of all images of an index, whole or not at all.

    Arguments:
        path: the shard.
        index: its images.
        compute: returns the maps [1 + k, H, W] of an image [3, h, w] by the name of their product.
        long_side: that images are resized to, None keeps theirs.
        device: of the images.
        name: what is done, for the progress.
        runtime: how many processes read and compress.

    Raises:
        UserError: an image is missing or damaged, or maps are not finite.
    """

    def computed(images: Iterable[NDArray[np.uint8]]) -> Iterator[UnpackedMaps]:
        for record, pixels in zip(index.images, images, strict=True):
            yield record.id, record.labels, compute(record, image_tensor(pixels, None, device))

    shown = ((record.path, long_side) for record in index.images)
    with (
        locked(path),
        write_maps(path, len(index.classes)) as writer,
        Workers(runtime.workers) as workers,
        workers.writing(writer.write_packed) as write,
    ):
        packed = workers.map(pack_maps, computed(workers.map(read_sized, shown)))
        for maps in Progress(packed, name, runtime, unit="image", total=len(index.images)):
            write(maps)
