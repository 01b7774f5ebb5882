"""A trained segmenter together with all that prediction needs, for use outside the workflow."""

from dataclasses import dataclass
from pathlib import Path

from brnf.data.index import read_classes
from brnf.engine.runtime import Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.use.model_file import SegmentationUse, write_model

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    network: Path
    """Trained segmentation network."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    model: Path
    """The network, how it predicts, its classes, their values in masks and their colours."""


@dataclass(frozen=True)
class Options(SegmentationUse):
    """How the network predicts."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Write a trained segmenter together with how it predicts."""
    classes, mask_values = read_classes(inputs.index)
    with locked(outputs.model):
        write_model(inputs.network, outputs.model, options, classes, mask_values)


if __name__ == "__main__":
    run_stage(run)
