"""Packs: the files of a shard's images in one HDF5 file, for jobs that see no shared disk.

A pack holds bytes as they are in the data set, ``/image/<id>`` or, in packs of ground truth,
``/mask/<id>`` and ``/context/<id>``. What reads images gets a folder of files as ever: a process
unpacks once, on its own disk, and removes the folder when it ends.
"""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import h5py
import numpy as np

from brnf.data.entries import is_safe_id
from brnf.errors import DamagedProduct, UserError
from brnf.store.files import reported
from brnf.store.hdf5 import bounded, child, open_shard, write_shard

__all__ = ["Kind", "Packed", "unpacked", "write_pack"]

Kind: TypeAlias = Literal["image", "mask", "context"]
"""Of a file: the photograph, the mask of its objects, that of the context textures."""
KINDS: tuple[Kind, ...] = ("image", "mask", "context")
STAGE = "pack_images"
Packed: TypeAlias = Sequence[tuple[Kind, str, Path]]
"""Kind, id of the image, and file."""


def write_pack(path: Path, files: Packed) -> None:
    """Write the bytes of files into a pack; equal files give equal bytes.

    Arguments:
        path: of the pack.
        files: to pack.

    Raises:
        UserError: a file cannot be read, or the pack not be written.
    """
    with write_shard(path) as (pack, disk):
        for kind, name, source in files:
            try:
                content = source.read_bytes()
            except OSError as error:
                raise UserError(
                    f"{source}: cannot be read ({error.strerror}); restore it or take it off the "
                    "list"
                ) from error
            group = pack.require_group(kind)
            group.create_dataset(name, data=np.frombuffer(content, np.uint8))
            disk.check()


@cache
def unpacked(packs: tuple[Path, ...]) -> Path:
    """Return a folder with the files of packs, ``<kind>/<id>``; it goes when the process ends.

    Raises:
        UserError: a pack is missing, or the folder for temporary files is full.
        DamagedProduct: a pack is damaged.
    """
    holder = tempfile.TemporaryDirectory(prefix="brnf-images-")
    _held.append(holder)
    folder = Path(holder.name)
    for path in packs:
        with open_shard(path, STAGE) as pack:
            for kind in KINDS:
                if kind in pack:
                    _unpack(path, child(pack, kind, h5py.Group), folder / kind)
    return folder


_held: list["tempfile.TemporaryDirectory[str]"] = []
"""Folders that live as long as this process."""


def _unpack(path: Path, group: h5py.Group, folder: Path) -> None:
    """Write the files of one kind."""
    with reported(folder):
        folder.mkdir(exist_ok=True)
    for name in group:
        try:
            if not is_safe_id(name):
                raise ValueError(f"'{name}' is no id")
            values = bounded(child(group, name, h5py.Dataset))
            if values.dtype != np.uint8 or values.ndim != 1:
                raise ValueError(f"'{name}' holds no bytes")
            content = values[:].tobytes()
        except Exception as error:  # h5py reports damage with many kinds of exceptions
            raise DamagedProduct(path, f"damaged pack ({error})", STAGE) from error
        with reported(folder / name):
            (folder / name).write_bytes(content)
