"""Trained networks and the images they see."""

from collections.abc import Sequence
from pathlib import Path

import torch

from brnf.backbones import BackboneOptions
from brnf.cam.network import CamNetwork, pack_network, unpack_network
from brnf.data.images import read_image, resize_long_side
from brnf.data.index import ImageRecord, Index
from brnf.errors import DamagedProduct, UserError
from brnf.store.tensors import read_tensors, write_tensors

__all__ = ["label_vector", "load_cam_network", "load_image", "map_size", "save_cam_network"]


def save_cam_network(
    path: Path, network: CamNetwork, options: BackboneOptions, classes: Sequence[str]
) -> None:
    """Write a network and all that rebuilds it."""
    write_tensors(path, pack_network(network, options, classes))


def load_cam_network(path: Path, device: torch.device, classes: Sequence[str]) -> CamNetwork:
    """Read what :func:`save_cam_network` wrote, in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, or was trained for other classes.
    """
    stage = "its training"
    packed = read_tensors(path, f"run {stage} first", stage)
    try:
        network = unpack_network(packed)
        trained = [str(name) for name in packed["classes"]]
    except Exception as error:  # whatever stands in the place of sizes and names
        raise DamagedProduct(path, "holds no CAM network", stage) from error
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise DamagedProduct(path, "holds values that are not finite", stage)
    if list(classes) != trained:
        raise UserError(
            f"{path}: trained for the classes {', '.join(trained)}, not those of the index; train "
            "it again"
        )
    return network.to(device).eval()


def load_image(record: ImageRecord, long_side: int | None, device: torch.device) -> torch.Tensor:
    """Return an image as [3, h, w] uint8 on the device, resized to a long side if given."""
    pixels = read_image(record.path)
    if long_side is not None:
        pixels = resize_long_side(pixels, long_side)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(device)


def map_size(record: ImageRecord, stride: int) -> tuple[int, int]:
    """Return height and width of an image's stored maps: its own size divided by a stride."""
    return -(-record.height // stride), -(-record.width // stride)


def label_vector(record: ImageRecord, index: Index, device: torch.device) -> torch.Tensor:
    """Return the image's labels as [C] float32 in {0, 1}."""
    vector = torch.zeros(len(index.classes), device=device)
    vector[[label - 1 for label in record.labels]] = 1
    return vector
