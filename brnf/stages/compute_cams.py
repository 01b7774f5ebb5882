"""Multi-scale classifier and prototype maps of one shard of images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from brnf.cam.inference import map_products
from brnf.cam.network import load_cam_network
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import CamMaps
from brnf.data.index import ImageRecord, Index
from brnf.data.tensors import label_vector, map_size
from brnf.engine.map_shards import write_map_shard
from brnf.engine.runtime import Runtime
from brnf.stages._cli import run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    network: Path
    """Trained CAM network."""
    images: Path
    """The shard in the index."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    maps: Path
    """HDF5 file with the products `classifier` and `prototype` of each image."""


@dataclass(frozen=True)
class Options:
    """How maps are made (`docs/method.md` section 2)."""

    cam: CamMaps = CamMaps()
    """Scales, rules and sizes."""
    precision: Precision = "fp32"
    """In which the network computes."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Compute multi-scale class activation maps."""
    device = runtime.torch_device(precision=options.precision)
    index = Index.of_list(inputs.index, inputs.images, inputs.packed)
    network = load_cam_network(inputs.network, device, index.classes)
    network.backbone.fold()

    def maps_of(record: ImageRecord, image: Tensor) -> dict[str, NDArray[np.float32]]:
        size = map_size(record, options.cam.map_stride)
        labels = label_vector(record, index, device)
        return map_products(network, image, labels, size, options.cam, options.precision)

    write_map_shard(
        outputs.maps,
        index,
        maps_of,
        long_side=options.cam.image_long_side,
        device=device,
        name="compute CAMs",
        runtime=runtime,
    )


if __name__ == "__main__":
    run_stage(run)
