"""Stage: bring the predicted masks of a test split into the tree and the values that an evaluation
server takes.
"""

from dataclasses import dataclass
from pathlib import Path

from brnf.data.index import Index
from brnf.data.masks import restore_table, write_mask
from brnf.engine.runtime import Progress, Runtime
from brnf.evaluate.truth import MaskFolders
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    masks: tuple[Path, ...]
    """Folders of predicted masks, one a shard."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    predictions: Path
    """Folder that holds the tree and nothing else: pack it, and the archive can be sent."""


@dataclass(frozen=True)
class Options:
    """Of which images, and where they stand."""

    split: str
    """Split of the images."""
    tree: Path = Path("results/VOC2012/Segmentation/comp6_test_cls")
    """Folders, below the output, that hold ``<id>.png``."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Write each image of the split as a palette PNG, with the data set's own class values."""
    with locked(outputs.predictions):
        index = Index.of_split(inputs.index, options.split)
        folders = MaskFolders(inputs.masks)
        values = restore_table(index.mask_values)
        with atomic_directory(outputs.predictions) as folder:
            (folder / options.tree).mkdir(parents=True)
            for image in Progress(index.images, "export predictions", runtime, unit="image"):
                write_mask(folder / options.tree / f"{image.id}.png", values[folders.read(image)])


if __name__ == "__main__":
    run_stage(run)
