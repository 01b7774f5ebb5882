"""From the maps of a shard to labels for the boundary network (docs/method.md section 8, IRN)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from brnf.config.sections.segmentation import BoundaryLabels
from brnf.data.image_maps import ImageWithMaps, images_with_maps, read_with_maps
from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.data.pipeline import Workers
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.boundary_labels import boundary_labels
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked
from brnf.store.label_type import Labels, ignored

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    images: Path
    """The shard in the index; every image in it gets a label image."""
    maps: Path
    """Maps of the same shard."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    masks: Path
    """Folder of palette PNGs, ``<id>.png``: 0 background, 1..C classes, 255 ignored."""


@dataclass(frozen=True)
class Options:
    """How maps become labels."""

    product: str = "seeds"
    """Which maps of the shard to use."""
    random_walk: BoundaryLabels = BoundaryLabels()
    """Which pixels are sure, and the CRF that refines them."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Make the labels of a shard."""
    index = Index.of_list(inputs.index, inputs.images, inputs.packed)
    seen = images_with_maps(index, inputs.maps, options.product)
    label = partial(_labelled, options=options.random_walk)
    unsure, pixels = 0, 0
    with (
        locked(outputs.masks),
        atomic_directory(outputs.masks) as folder,
        Workers(runtime.workers) as workers,
        workers.writing(write_mask) as write,
    ):
        shown = Progress(index.images, "make boundary labels", runtime, unit="image")
        for record, labels in zip(shown, workers.map(label, seen), strict=True):
            write(folder / f"{record.id}.png", labels)
            unsure, pixels = unsure + int(ignored(labels).sum()), pixels + labels.size
    print(f"make boundary labels: {unsure / max(pixels, 1):.1%} of the pixels are ignored")


def _labelled(*place: *ImageWithMaps, options: BoundaryLabels) -> Labels:
    """Return the labels [H, W] of one image."""
    image, maps = read_with_maps(*place)
    return boundary_labels(image, maps.values, maps.classes, options)


if __name__ == "__main__":
    run_stage(run)
