"""Maps that other code wrote become the base maps of one shard of images (`docs/method.md` section
3, import).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brnf.base.imported import base_maps
from brnf.config.sections.cam import MapSize
from brnf.data.index import ImageRecord, Index
from brnf.data.tensors import map_size
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.maps import write_maps
from brnf.store.safe_pickle import read_array_dictionary

SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    folder: Path
    """Folder that holds <image id>.npy or .npz: the dictionaries of SFC, SIPE, CLIP-ES or IRN, or
    plain arrays keys and maps.
    """
    images: Path
    """The shard in the index."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    maps: Path
    """HDF5 file with the products `classifier` and `prototype` of each image."""


@dataclass(frozen=True)
class Options:
    """How maps are stored."""

    cam: MapSize = MapSize()
    """The size of stored maps."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Read the maps of other code."""
    index = Index.of_list(inputs.index, inputs.images)
    files = _files(inputs.folder, index.images, _known(inputs.index))
    with locked(outputs.maps), write_maps(outputs.maps, len(index.classes)) as writer:
        for record in Progress(index.images, "import maps", runtime, unit="image"):
            size = map_size(record, options.cam.map_stride)
            if not record.labels:
                nothing = np.ones((1, *size), np.float32)
                products = {"classifier": nothing, "prototype": nothing}
            else:
                file = files[record.id]
                content = read_array_dictionary(file, "save the maps of the image again")
                image_size = (record.height, record.width)
                products = base_maps(
                    content, record.labels, index.mask_values, image_size, size, str(file)
                )
            writer.write(record.id, record.labels, products)


def _files(folder: Path, records: Sequence[ImageRecord], known: set[str]) -> dict[str, Path]:
    """Return the file of every image; files of no image are named in one line and left alone.

    Raises:
        UserError: an image of the shard has no file, or two.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix in SUFFIXES:
            if file.stem in files:
                raise UserError(
                    f"{folder}: holds both {files[file.stem].name} and {file.name}; remove one"
                )
            files[file.stem] = file
    missing = [record.id for record in records if record.labels and record.id not in files]
    if missing:
        more = (
            f" ({len(missing)} of {len(records)} images of this shard lack theirs)"
            if len(missing) > 1
            else ""
        )
        raise UserError(
            f"{folder}: no file {missing[0]}.npy or .npz{more}; make these maps, or name another "
            "folder in base.import.folder"
        )
    extra = sorted(files.keys() - known)
    if extra:
        print(
            f"note: {folder}: {len(extra)} files belong to no image of the index "
            f"({files[extra[0]].name}); ignored",
            file=sys.stderr,
        )
    return files


def _known(index: Path) -> set[str]:
    """Return the ids of all images, of whichever split: only the note about superfluous files
    depends on them.
    """
    return {
        image.id
        for split in (index / "splits").glob("*.csv")
        for image in Index.of_list(index, split).images
    }


if __name__ == "__main__":
    run_stage(run)
