"""From the segmentation network to masks of a shard."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.segmentation import Crf, SegmentationTest
from brnf.data.images import read_image
from brnf.data.index import Index
from brnf.data.masks import write_palette_png
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.crf import dense_crf, likely_labels, over_all_labels
from brnf.segment.deeplab import load_deeplab
from brnf.segment.predict import predict_probability
from brnf.segment.processes import map_in_order
from brnf.segment.pseudo_labels import label_image
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked
from brnf.store.maps import write_maps

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    network: Path
    """Trained segmentation network."""
    images: Path
    """The shard in the index."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    masks: Path
    """Folder of palette PNGs, ``<id>.png``, at the images' own sizes: 0 background, 1..C classes.
    """
    probabilities: Path
    """Shard of maps, product ``probability``, all classes; without images unless
    ``save_probabilities``.
    """


@dataclass(frozen=True)
class Options:
    """How to predict (``docs/method.md`` section 9)."""

    test: SegmentationTest = SegmentationTest()
    """How images are seen, and the dense CRF behind the network."""
    amp: bool = False
    """Compute convolutions in bfloat16."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Segment the images of a shard at several scales, mirrored too, behind a dense CRF."""
    test = options.test
    with locked(outputs.masks):
        device = runtime.torch_device()
        index = Index.of_list(inputs.index, inputs.images)
        network = load_deeplab(inputs.network, device, index.classes)
        network.backbone.fold()
        every_class = np.arange(1, len(index.classes) + 1, dtype=np.uint8)
        with (
            write_maps(outputs.probabilities) as probabilities,
            atomic_directory(outputs.masks) as folder,
        ):
            images = (read_image(record.path) for record in index.images)
            seen = (
                (image, predict_probability(network, image, test, device, amp=options.amp))
                for image in images
            )
            if test.crf.iterations:
                likely = (
                    (image, *likely_labels(probability, test.crf.minimum))
                    for image, probability in seen
                )
                refined = map_in_order(partial(_refine, options=test.crf), likely, runtime.workers)
            else:
                refined = ((every_class, probability) for _, probability in seen)
            shown = Progress(index.images, "predict segmentation", runtime, unit="image")
            for record, (present, probability) in zip(shown, refined, strict=True):
                write_palette_png(folder / f"{record.id}.png", label_image(probability, present))
                if test.save_probabilities:
                    whole = over_all_labels(probability, present, len(index.classes))
                    probabilities.write(record.id, every_class, {"probability": whole})


def _refine(
    image: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    probability: NDArray[np.float32],
    options: Crf,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the classes, too: processes hand over only the labels that take part, not all of the
    data set.
    """
    return classes, dense_crf(image, probability, options)


if __name__ == "__main__":
    run_stage(run)
