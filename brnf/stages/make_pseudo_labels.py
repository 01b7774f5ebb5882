"""From the maps of a shard to pseudo-labels."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from brnf.config.sections.segmentation import CrfLabels
from brnf.data.images import read_image
from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.processes import map_in_order
from brnf.segment.pseudo_labels import pseudo_label
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked
from brnf.store.maps import MapReader, write_maps

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    images: Path
    """The shard in the index; every image in it gets a pseudo-label."""
    maps: Path
    """Maps of the same shard."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    masks: Path
    """Folder of palette PNGs, ``<id>.png``: 0 background, 1..C classes, 255 ignored."""
    probabilities: Path
    """Shard of maps, product ``probability``; without images unless ``save_probabilities``."""


@dataclass(frozen=True)
class Options:
    """How maps become pseudo-labels (``docs/method.md`` section 8)."""

    product: str = "seeds"
    """Which maps of the shard to use."""
    pseudo_labels: CrfLabels = CrfLabels()
    """The dense CRF that refines them, and which pixels count."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Make the pseudo-labels of a shard: arg max with background behind a dense CRF."""
    with locked(outputs.masks):
        index = Index.of_list(inputs.index, inputs.images)
        maps = MapReader([inputs.maps], options.product)
        refine = partial(pseudo_label, options=options.pseudo_labels)
        with (
            write_maps(outputs.probabilities, len(index.classes)) as probabilities,
            atomic_directory(outputs.masks) as folder,
        ):
            seen = (
                (read_image(record.path), maps[record.id].values, maps[record.id].classes)
                for record in index.images
            )
            made = map_in_order(refine, seen, runtime.workers)
            shown = Progress(index.images, "make pseudo-labels", runtime, unit="image")
            for record, (label, probability) in zip(shown, made, strict=True):
                write_mask(folder / f"{record.id}.png", label)
                if options.pseudo_labels.save_probabilities:
                    probabilities.write(
                        record.id, maps[record.id].classes, {"probability": probability}
                    )


if __name__ == "__main__":
    run_stage(run)
