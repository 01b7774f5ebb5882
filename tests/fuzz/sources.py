"""Where the files of a kind come from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from brnf.config.sections.data import IndexedImages
from brnf.engine.runtime import Runtime
from brnf.stages import index_images
from tests.fuzz.mutations import mutate_bytes, mutate_text

__all__ = ["QUIET", "index_own", "index_voc", "spoilt_bytes", "spoilt_text"]

QUIET = Runtime(device="cpu", workers=0, progress="none")


def spoilt_bytes(valid: Sequence[bytes]) -> Callable[[np.random.Generator], bytes]:
    """Return what takes one of the valid files and spoils its bytes."""
    return lambda random: mutate_bytes(valid[int(random.integers(len(valid)))], valid, random)


def spoilt_text(valid: Sequence[bytes]) -> Callable[[np.random.Generator], bytes]:
    """Return what takes one of the valid files and spoils it as text."""
    return lambda random: mutate_text(valid[int(random.integers(len(valid)))], valid, random)


def index_own(folder: Path, files: Mapping[str, bytes], table: bytes) -> None:
    """Index own images: write the files and the table, run the stage into ``out``."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "table.csv").write_bytes(table)
    inputs = index_images.Inputs(table=folder / "table.csv")
    index_images.run(
        inputs,
        index_images.Outputs(folder / "out" / "index"),
        index_images.Options(IndexedImages(kind="table"), shards=2),
        QUIET,
    )


def index_voc(folder: Path, files: Mapping[str, bytes]) -> None:
    """Index a data set in VOC's layout: write the files, run the stage into ``out``."""
    root = folder / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    options = index_images.Options(splits=("train",), shards=2)
    index_images.run(
        index_images.Inputs(root=root),
        index_images.Outputs(folder / "out" / "index"),
        options,
        QUIET,
    )
