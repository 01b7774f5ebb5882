"""Multi-scale classifier and prototype maps of one shard of images."""

from dataclasses import dataclass
from pathlib import Path

from brnf.cam.inference import map_products
from brnf.cam.network import load_cam_network
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import CamMaps
from brnf.data.index import Index
from brnf.data.tensors import label_vector, load_image, map_size
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.maps import write_maps


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    network: Path
    """Trained CAM network."""
    images: Path
    """The shard in the index."""


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
    index = Index.of_list(inputs.index, inputs.images)
    network = load_cam_network(inputs.network, device, index.classes)
    network.backbone.fold()
    with locked(outputs.maps), write_maps(outputs.maps, len(index.classes)) as writer:
        for record in Progress(index.images, "compute CAMs", runtime, unit="image"):
            size = map_size(record, options.cam.map_stride)
            image, labels = (
                load_image(record, options.cam.image_long_side, device),
                label_vector(record, index, device),
            )
            products = map_products(network, image, labels, size, options.cam, options.precision)
            writer.write(record.id, record.labels, products)


if __name__ == "__main__":
    run_stage(run)
