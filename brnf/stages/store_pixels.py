"""Pixel features of a shard, each with the score of its map (`docs/method.md` section 4)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.cam.inference import pixel_features
from brnf.cam.network import load_cam_network
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import ImageSize
from brnf.data.image_maps import ImageWithMaps, images_with_maps, read_with_maps
from brnf.data.index import ImageRecord, Index
from brnf.data.pipeline import Workers
from brnf.data.tensors import image_tensor, label_vector
from brnf.engine.fetching import begin_copy
from brnf.engine.precision import computing
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.label_type import Labels
from brnf.store.maps import as_stored
from brnf.store.pixels import PixelRows, write_pixels

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    network: Path
    """Trained CAM network."""
    maps: Path
    """Maps of the same images."""
    images: Path
    """The shard in the index."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    pixels: Path
    """HDF5 pixel store with one row per grid position."""


@dataclass(frozen=True)
class Options:
    """What is stored."""

    product: Literal["classifier", "prototype"] = "prototype"
    """Maps that give the scores."""
    cam: ImageSize = ImageSize()
    """The size at which images are seen."""
    precision: Precision = "fp32"
    """In which the network computes."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Store pixel features and map scores."""
    device = runtime.torch_device(precision=options.precision)
    index = Index.of_list(inputs.index, inputs.images, inputs.packed)
    network = load_cam_network(inputs.network, device, index.classes)
    network.backbone.fold()
    shown = images_with_maps(index, inputs.maps, options.product, options.cam.image_long_side)
    classes = len(index.classes) + 1
    with (
        locked(outputs.pixels),
        write_pixels(outputs.pixels, network.dimension, classes) as writer,
        Workers(runtime.workers) as workers,
        workers.writing(lambda *image: writer.append(_rows_when_there(*image))) as write,
        torch.inference_mode(),
    ):
        seen = workers.map(read_stored, shown)
        images = Progress(index.images, "store pixels", runtime, unit="image")
        for record, (pixels, *maps) in zip(images, seen, strict=True):
            with computing(options.precision, device):
                features = pixel_features(network, image_tensor(pixels, None, device))
            labels = label_vector(record, index, CPU).numpy().astype(bool)
            present = np.concatenate([[True], labels])
            write(record, begin_copy(features.float()), *maps, present)


def read_stored(*place: *ImageWithMaps) -> tuple[NDArray[np.uint8], Labels, NDArray[np.float16]]:
    """Return an image [h, w, 3], the classes of its maps, and the maps as they are stored: half of
    the bytes on their way from process to process.
    """
    pixels, maps = read_with_maps(*place)
    return pixels, maps.classes, as_stored(maps.values)


def _rows_when_there(
    record: ImageRecord, features: Callable[[], Tensor], *others: Any
) -> PixelRows:
    """Return the rows of an image whose features [D, h, w] are on their way: here, in the thread
    that writes, is time to wait for them.
    """
    return _rows(record, features().numpy(), *others)


def _rows(
    record: ImageRecord,
    features: NDArray[np.float32],
    classes: Labels,
    stored: NDArray[np.float16],
    present: NDArray[np.bool_],
) -> PixelRows:
    """Pair the features [D, h, w] of an image with its maps, reduced to the same grid by area."""
    height, width = features.shape[1:]
    channels = [
        cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA)
        for channel in stored.astype(np.float32)
    ]
    reduced = np.stack(channels).reshape(len(channels), -1)
    if len(classes):
        score, label = reduced[1:].max(0), classes[reduced[1:].argmax(0)]
    else:
        score, label = np.zeros(height * width, np.float32), np.zeros(height * width, np.intp)
    return PixelRows(
        image=record.id,
        grid=(height, width),
        present=present,
        feature=features.reshape(len(features), -1).T,
        score=score,
        background=reduced[0],
        label=label,
        position=np.arange(height * width, dtype=np.int32),
    )


if __name__ == "__main__":
    run_stage(run)
