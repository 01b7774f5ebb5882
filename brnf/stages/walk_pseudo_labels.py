"""From the maps of a shard to pseudo-labels by a random walk that class boundaries stop
(`docs/method.md` section 8, IRN).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from brnf.data.augment import resize_maps
from brnf.data.index import Index
from brnf.data.masks import write_palette_png
from brnf.data.tensors import load_image
from brnf.engine.runtime import Progress, Runtime
from brnf.segment.boundaries import boundary_map, load_boundaries
from brnf.segment.pseudo_labels import label_image, map_probability
from brnf.segment.random_walk import walk_maps
from brnf.stages._cli import run_stage
from brnf.store.files import locked, whole_directory
from brnf.store.maps import MapReader, write_maps

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    images: Path
    """The shard in the index."""
    maps: Path
    """Shard of maps; every image in it gets a pseudo-label."""
    network: Path
    """Boundary network of train_boundaries."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    masks: Path
    """Folder of palette PNGs, ``<id>.png``: 0 background, 1..C classes, 255 ignored."""
    probabilities: Path
    """Shard of maps, product ``probability``; without images unless ``save_probabilities``."""


@dataclass(frozen=True)
class Options:
    """How maps walk."""

    product: str = "seeds"
    """Which maps of the shard to use."""
    radius: int = 5
    """Longest step, in pixels of the grid of stride 4."""
    beta: float = 10.0
    """Power of the affinities; the higher the less a step crosses a weak boundary."""
    exponent: int = 8
    """The walk takes 2 to the power of this steps."""
    image_long_side: int | None = None
    """Long side of the image that boundaries are found in, pixels; None keeps its own size."""
    confidence: float = 0.0
    """Pixels whose winning probability is lower become 255; 0 keeps all."""
    save_probabilities: bool = False
    """Whether to keep the probabilities, too."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Make the pseudo-labels of a shard by a random walk."""
    device = runtime.torch_device()
    index = Index.of_list(inputs.index, inputs.images)
    network = load_boundaries(inputs.network, device)
    maps = MapReader([inputs.maps], options.product)
    with (
        locked(outputs.masks),
        write_maps(outputs.probabilities) as probabilities,
        whole_directory(outputs.masks) as folder,
        torch.inference_mode(),
    ):
        for record in Progress(index.images, "walk pseudo-labels", runtime, unit="image"):
            cam = maps[record.id]
            boundary = (
                boundary_map(network, load_image(record, options.image_long_side, device))
                .cpu()
                .numpy()
            )
            probability = _walked(cam.values, boundary, (record.height, record.width), options)
            write_palette_png(
                folder / f"{record.id}.png",
                label_image(probability, cam.classes, options.confidence),
            )
            if options.save_probabilities:
                probabilities.write(record.id, cam.classes, {"probability": probability})


def _walked(
    values: NDArray[np.float32],
    boundary: NDArray[np.float32],
    size: tuple[int, int],
    options: Options,
) -> NDArray[np.float32]:
    """Let the maps, the background's among them, walk on the boundaries' grid; return them at the
    image's size, a distribution each.
    """
    height, width = boundary.shape
    walked = walk_maps(
        resize_maps(values, (height, width)),
        boundary,
        options.radius,
        options.beta,
        options.exponent,
    )
    return map_probability(resize_maps(walked, size))


if __name__ == "__main__":
    run_stage(run)
