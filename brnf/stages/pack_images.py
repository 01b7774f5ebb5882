"""Stage: pack the files of a data set by shard, for jobs that see no shared disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from brnf.data.index import Index, MaskRecord, read_masks
from brnf.data.packs import Kind, Packed, write_pack
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]

Pack = tuple[Path, Packed]
"""Its path below the output, and what it holds."""


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index, which knows where the files are."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    packed: Path
    """Folder of HDF5 files: ``images/<split>/<shard>.h5`` and, apart from what training may know,
    ``masks/<split>/<shard>.h5``.
    """


@dataclass(frozen=True)
class Options:
    """What is packed."""

    splits: tuple[str, ...]
    """Splits of the index; one that holds no image is left out."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Pack images and masks of every split by the shards of the index."""
    packs = [pack for split in options.splits for pack in _packs(inputs.index, split)]
    with locked(outputs.packed), atomic_directory(outputs.packed) as folder:
        for path, files in Progress(packs, "pack images", runtime, unit="pack"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_pack(folder / path, files)


def _packs(folder: Path, split: str) -> Iterator[Pack]:
    """Yield the packs of a split: of its images, and of its masks."""
    lists = sorted((folder / "shards" / split).glob("*.csv"))
    masks = read_masks(folder, split) if lists else {}
    for path in lists:
        images = Index.of_list(folder, path).images
        shard = f"{split}/{path.stem}.h5"
        yield Path("images", shard), [("image", image.id, image.path) for image in images]
        truths = [masks[image.id] for image in images if image.id in masks]
        yield Path("masks", shard), [one for truth in truths for one in _truth(truth)]


def _truth(record: MaskRecord) -> Iterator[tuple[Kind, str, Path]]:
    """Yield the files of an image's ground truth."""
    if record.mask:
        yield "mask", record.id, record.mask
    if record.context:
        yield "context", record.id, record.context


if __name__ == "__main__":
    run_stage(run)
