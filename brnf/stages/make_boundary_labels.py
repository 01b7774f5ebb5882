"""From the maps of a shard to labels for the boundary network (docs/method.md section 8, IRN)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from brnf.config.sections.segmentation import BoundaryLabels
from brnf.data.images import read_image
from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.boundary_labels import boundary_labels
from brnf.segment.processes import map_in_order
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked
from brnf.store.label_type import ignored
from brnf.store.maps import MapReader

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
    index = Index.of_list(inputs.index, inputs.images)
    maps = MapReader([inputs.maps], options.product)
    unsure, pixels = 0, 0
    with locked(outputs.masks), atomic_directory(outputs.masks) as folder:
        found = ((record, maps[record.id]) for record in index.images)
        seen = ((read_image(record.path), cam.values, cam.classes) for record, cam in found)
        label = partial(boundary_labels, options=options.random_walk)
        made = map_in_order(label, seen, runtime.workers)
        shown = Progress(index.images, "make boundary labels", runtime, unit="image")
        for record, labels in zip(shown, made, strict=True):
            write_mask(folder / f"{record.id}.png", labels)
            unsure, pixels = unsure + int(ignored(labels).sum()), pixels + labels.size
    print(f"make boundary labels: {unsure / max(pixels, 1):.1%} of the pixels are ignored")


if __name__ == "__main__":
    run_stage(run)
