"""The description of a shard of the pixel store, checked before a row is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from brnf.errors import DamagedProduct
from brnf.store.hdf5 import bounded, child, open_shard
from brnf.store.pixel_rows import COLUMNS, columns_of

__all__ = ["STAGE", "Header", "read_header"]

STAGE = "store_pixels"
DESCRIPTION = {"grid": np.int32, "offset": np.int64, "present": np.bool_}


@dataclass(frozen=True)
class Header:
    """What a shard knows of its images, read at once: a few bytes an image."""

    dimension: int
    classes: int
    images: list[str]
    grid: NDArray[np.int32]
    offset: NDArray[np.int64]
    present: NDArray[np.bool_]


def read_header(path: Path) -> Header:
    """Read and check the description of a shard.

    Raises:
        UserError: it is missing, damaged or cut short.
    """
    with open_shard(path, STAGE) as file:
        try:
            columns = {
                name: bounded(child(file, name, h5py.Dataset))
                for name in (*COLUMNS, "images", *DESCRIPTION)
            }
            dimension, classes = (_integer(file, name) for name in ("dimension", "classes"))
            kinds = {name: columns[name].dtype for name in columns if name != "images"}
            if (
                kinds != {**columns_of(classes), **DESCRIPTION}
                or columns["images"].dtype.kind != "S"
            ):
                raise TypeError("columns of other types")
            images = [name.decode() for name in columns["images"][()]]
            grid, offset, present = (columns[name][()] for name in DESCRIPTION)
            header = Header(dimension, classes, images, grid, offset, present)
            fits = _fits(header, {name: columns[name].shape for name in COLUMNS})
        except Exception as error:  # h5py reports damage with many kinds of exceptions
            raise DamagedProduct(path, f"not a pixel store or damaged ({error})", STAGE) from error
    if not fits:
        raise DamagedProduct(path, "a pixel store whose columns do not fit each other", STAGE)
    return header


def _integer(file: h5py.File, name: str) -> int:
    attribute = file.attrs.get_id(name)
    if attribute.shape != () or attribute.dtype.kind not in "iu":
        raise TypeError(f"{name} is no number")
    return int(file.attrs[name])


def _fits(header: Header, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether the parts of a shard's description agree."""
    count = len(header.images)
    described = (
        header.grid.shape == (count, 2)
        and header.offset.shape == (count + 1,)
        and header.present.shape == (count, header.classes)
    )
    if (
        not described
        or header.offset[0] != 0
        or (np.diff(header.offset) < 0).any()
        or (header.grid < 0).any()
    ):
        return False
    rows = int(header.offset[-1])
    return all(
        shape == ((rows, header.dimension) if name == "feature" else (rows,))
        for name, shape in shapes.items()
    )
