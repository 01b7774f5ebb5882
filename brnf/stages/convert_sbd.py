"""Stage: bring SBD's segmentations to VOC's layout."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from brnf.data.sbd import convert_sbd
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    sbd: Path
    """Folder into which SBD's archive was unpacked."""
    voc: Path
    """Folder that holds VOC 2012, or VOCdevkit with it; the masks and the list go there."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes beside masks and list."""

    masks: Path
    """JSON with the number of masks and that of the images in the list train_aug."""


@dataclass(frozen=True)
class Options:
    """Nothing changes these files but the archive."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Turn SBD's MATLAB files into masks, and list the images of train_aug."""
    with locked(outputs.masks):
        watch = partial(Progress, name="convert SBD", runtime=runtime, unit="image")
        masks, images = convert_sbd(inputs.sbd, inputs.voc, watch)
        with atomic_file(outputs.masks) as temporary:
            temporary.write_text(json.dumps({"masks": masks, "train_aug": images}) + "\n")


if __name__ == "__main__":
    run_stage(run)
