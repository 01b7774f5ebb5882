"""Stage: write the true masks of a shard as class indices, for the model `supervised`."""

from dataclasses import dataclass
from pathlib import Path

from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.engine.runtime import Progress, Runtime
from brnf.evaluate.truth import GroundTruth
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    images: Path
    """Its list of a shard's images."""
    truth: tuple[Path, ...] = ()
    """Folders of drawn ground truth, where the data set has no mask files."""
    packed: tuple[Path, ...] = ()
    """Packs of their masks, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    masks: Path
    """Folder of palette PNGs, ``<id>.png``: 0 background, 1..C classes, 255 ignored; none of an
    image without a mask.
    """


@dataclass(frozen=True)
class Options:
    """What is written."""

    split: str
    """Split that holds the images."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Write the true masks of a shard."""
    with locked(outputs.masks):
        index = Index.of_list(inputs.index, inputs.images)
        truth = GroundTruth(index, inputs.index, options.split, inputs.truth, inputs.packed)
        with atomic_directory(outputs.masks) as folder:
            for image in Progress(index.images, "collect masks", runtime, unit="image"):
                mask = truth.objects(image)
                if mask is not None:
                    write_mask(folder / f"{image.id}.png", mask)


if __name__ == "__main__":
    run_stage(run)
