"""Stage: draw the ground truth of COCO from its annotations, for evaluation only."""

from dataclasses import dataclass
from pathlib import Path

from brnf.config.sections.data import Masks
from brnf.data.coco_file import annotation_file, read_shapes
from brnf.data.coco_masks import draw_mask
from brnf.data.index import Index
from brnf.data.masks import write_mask
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index, which knows where COCO's annotations are."""
    images: Path
    """Its list of a shard's images."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    masks: Path
    """Folder of PNGs, ``<id>.png``: 0 background, from 1 by rank of the category's id, 255 ignored
    (65535 where a class has a larger value than 254).
    """


@dataclass(frozen=True)
class Options:
    """What is drawn (docs/method.md section 1)."""

    split: str
    """Split that holds the images: train or val."""
    dataset: Masks = Masks()
    """How annotations become masks."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Draw the masks of a shard from polygons and run-length codes."""
    with locked(outputs.masks):
        index = Index.of_list(inputs.index, inputs.images)
        images = [image.id for image in index.images]
        shapes_of = read_shapes(index.root, options.split, images)
        watched = Progress(shapes_of, "draw masks", runtime, unit="image", total=len(images))
        with atomic_directory(outputs.masks) as folder:
            for image, size, shapes in watched:
                try:
                    mask = draw_mask(shapes, size, options.dataset, max(index.mask_values))
                except ValueError as error:
                    raise UserError(
                        f"{annotation_file(index.root, options.split)}: {image}: {error}; restore "
                        "the file"
                    ) from error
                write_mask(folder / f"{image}.png", mask)


if __name__ == "__main__":
    run_stage(run)
