"""From the segmentation network to masks of a shard."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from brnf.config.sections.bounds import Precision
from brnf.config.sections.segmentation import PredictionCrf, SegmentationTest
from brnf.data.images import read_image
from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.data.pipeline import Workers
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.crf import over_all_labels
from brnf.segment.crf_batches import refine_in_batches
from brnf.segment.deeplab import load_deeplab
from brnf.segment.predict import predict_labels, refine_labels
from brnf.segment.pseudo_labels import label_image
from brnf.stages._cli import run_stage
from brnf.store.confidences import write_confidences
from brnf.store.files import atomic_directory, locked
from brnf.store.label_type import Labels
from brnf.store.maps import write_maps

__all__ = ["Inputs", "Options", "Outputs", "run"]

Predicted = tuple[NDArray[np.uint8], Labels, NDArray[np.float32]]
"""A photograph, the classes that have a chance in it, and their probabilities."""


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    network: Path
    """Trained segmentation network."""
    images: Path
    """The shard in the index."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


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
    confidences: Path
    """CSV of each image's confidence: the mean over its pixels of the network's largest
    probability, before the dense CRF, behind which it is close to 1 everywhere.
    """


@dataclass(frozen=True)
class Options:
    """How to predict (``docs/method.md`` section 9)."""

    test: SegmentationTest = SegmentationTest()
    """How images are seen, and the dense CRF behind the network."""
    precision: Precision = "fp32"
    """In which the network computes."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Segment the images of a shard at several scales, mirrored too, behind a dense CRF."""
    test = options.test
    with locked(outputs.masks):
        device = runtime.torch_device(precision=options.precision)
        index = Index.of_list(inputs.index, inputs.images, inputs.packed)
        network = load_deeplab(inputs.network, device, index.classes)
        network.backbone.fold()
        every_class = np.arange(1, len(index.classes) + 1)
        confidences: dict[str, float] = {}

        def predicted(images: Iterable[NDArray[np.uint8]]) -> Iterator[Predicted]:
            for record, image in zip(index.images, images, strict=True):
                present, probability = predict_labels(
                    network, image, test, device, options.precision
                )
                confidences[record.id] = float(probability.max(0).mean())
                yield image, present, probability

        def write(image: str, present: Labels, probability: NDArray[np.float32]) -> None:
            write_mask(folder / f"{image}.png", label_image(probability, present))
            if test.save_probabilities:
                whole = over_all_labels(probability, present, len(index.classes))
                probabilities.write(image, every_class, {"probability": whole})

        with (
            write_maps(outputs.probabilities, len(index.classes)) as probabilities,
            atomic_directory(outputs.masks) as folder,
            Workers(runtime.workers) as workers,
            workers.writing(write) as write_next,
        ):
            seen = predicted(workers.map(read_image, ((record.path,) for record in index.images)))
            refined = _refined(seen, test.crf, device, workers)
            shown = Progress(index.images, "predict segmentation", runtime, unit="image")
            for record, (present, probability) in zip(shown, refined, strict=True):
                write_next(record.id, present, probability)
        write_confidences(outputs.confidences, confidences)


def _refined(
    images: Iterator[Predicted], crf: PredictionCrf, device: torch.device, workers: Workers
) -> Iterator[tuple[Labels, NDArray[np.float32]]]:
    """Run the dense CRF behind the network: on its GPU, else in the processes."""
    if not crf.iterations:
        return ((present, probability) for _, present, probability in images)
    if device.type == "cpu":
        return workers.map(partial(refine_labels, options=crf), images)
    return refine_in_batches(images, crf, device)


if __name__ == "__main__":
    run_stage(run)
