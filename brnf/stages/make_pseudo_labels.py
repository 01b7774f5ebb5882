"""From the maps of a shard to pseudo-labels."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.segmentation import CrfLabels
from brnf.data.image_maps import ImageWithMaps, images_with_maps, read_with_maps
from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.data.pipeline import Workers
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.crf import dense_crf
from brnf.segment.pseudo_labels import label_image, unrefined
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked
from brnf.store.label_type import Labels
from brnf.store.maps import write_maps

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
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


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
    chosen = options.pseudo_labels
    with locked(outputs.masks):
        index = Index.of_list(inputs.index, inputs.images, inputs.packed)
        seen = images_with_maps(index, inputs.maps, options.product)
        gpu = runtime.gpu() if chosen.crf.iterations else None

        def write(image: str, classes: Labels, probability: NDArray[np.float32]) -> None:
            label = label_image(probability, classes, chosen.confidence)
            write_mask(folder / f"{image}.png", label)
            if chosen.save_probabilities:
                probabilities.write(image, classes, {"probability": probability})

        with (
            write_maps(outputs.probabilities, len(index.classes)) as probabilities,
            atomic_directory(outputs.masks) as folder,
            Workers(runtime.workers) as workers,
            workers.writing(write) as write_next,
        ):
            if gpu is None:
                refined = workers.map(partial(_refined, options=chosen), seen)
            else:
                # Not above: without a GPU this stage does without torch.
                from brnf.segment.crf_batches import refine_in_batches

                read = workers.map(partial(_unrefined, options=chosen), seen)
                refined = refine_in_batches(read, chosen.crf, gpu)
            shown = Progress(index.images, "make pseudo-labels", runtime, unit="image")
            for record, (classes, probability) in zip(shown, refined, strict=True):
                write_next(record.id, classes, probability)


def _unrefined(
    *place: *ImageWithMaps, options: CrfLabels
) -> tuple[NDArray[np.uint8], Labels, NDArray[np.float32]]:
    """Return an image [H, W, 3], its classes, and the distribution that the CRF starts from."""
    image, maps = read_with_maps(*place)
    return image, maps.classes, unrefined(image, maps.values, options)


def _refined(*place: *ImageWithMaps, options: CrfLabels) -> tuple[Labels, NDArray[np.float32]]:
    """Return an image's classes and their distribution behind the CRF."""
    image, classes, probability = _unrefined(*place, options=options)
    return classes, dense_crf(image, probability, options.crf)


if __name__ == "__main__":
    run_stage(run)
