"""The maps of a CAM network as SFC's code would have saved them, for other code and for `import`
(`docs/method.md` section 3).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brnf.base.imported import foreign_maps
from brnf.data.index import read_classes
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked
from brnf.store.maps import MapReader


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    maps: tuple[Path, ...]
    """Shards with the products `classifier` and `prototype`."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    folder: Path
    """Folder for <image id>.npy: a dictionary of keys (0 is the background), IS_CAM (prototype) and
    IS_CAM1 (classifier).
    """


@dataclass(frozen=True)
class Options:
    """Nothing changes these files but their maps."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Write maps in SFC's format."""
    _, mask_values = read_classes(inputs.index)
    prototype, classifier = (
        MapReader(inputs.maps, product) for product in ("prototype", "classifier")
    )
    with locked(outputs.folder), atomic_directory(outputs.folder) as folder:
        for image in Progress(prototype.images, "export maps", runtime, unit="image"):
            content = foreign_maps(prototype[image], classifier[image], mask_values)
            np.save(folder / f"{image}.npy", np.array(content, dtype=object), allow_pickle=True)


if __name__ == "__main__":
    run_stage(run)
