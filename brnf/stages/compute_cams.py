"""Multi-scale classifier and prototype maps of one shard of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from brnf.cam.inference import MapOptions, multi_scale_maps
from brnf.cam.network import load_cam_network
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

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Scales of the image, each seen with its mirror [P]."""
    seed_rule: Literal["structure", "plain"] = "structure"
    """Seeds under which prototypes are averaged: structure (SIPE) or plain (SFC)."""
    background_over: Literal["all", "present"] = "all"
    """Classes that count against the background: all, or those of the image."""
    background_weight: float | None = None
    """Factor of the background when seeds are chosen; None: 0.5 (structure) or 0.3 (plain)."""
    image_long_side: int | None = None
    """Long side of the image at scale 1 in pixels; None keeps its own size."""
    map_stride: int = 1
    """Maps are stored at the image's size divided by this."""
    amp: bool = False
    """Compute the network in bfloat16."""

    def map_options(self) -> MapOptions:
        """Return how maps are made at all scales."""
        rules = self.seed_rule, self.background_over, self.background_weight
        return MapOptions(self.scales, *rules)


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Compute multi-scale class activation maps."""
    device = runtime.torch_device()
    index = Index.of_list(inputs.index, inputs.images)
    network = load_cam_network(inputs.network, device, index.classes)
    network.backbone.fold()
    rules = options.map_options()
    with locked(outputs.maps), write_maps(outputs.maps) as writer, torch.inference_mode():
        for record in Progress(index.images, "compute CAMs", runtime, unit="image"):
            size = map_size(record, options.map_stride)
            image, labels = (
                load_image(record, options.image_long_side, device),
                label_vector(record, index, device),
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
                maps = multi_scale_maps(network, image, labels, size, rules)
            products = {"classifier": maps.classifier, "prototype": maps.prototype}
            writer.write(
                record.id,
                record.labels,
                {name: values.float().cpu().numpy() for name, values in products.items()},
            )


if __name__ == "__main__":
    run_stage(run)
