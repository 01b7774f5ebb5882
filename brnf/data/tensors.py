"""The images of an index, their labels and the sizes of their maps, as networks take them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.data.images import read_image, resize_long_side
from brnf.data.index import ImageRecord, Index

__all__ = ["image_tensor", "label_vector", "load_image", "map_size"]


def load_image(record: ImageRecord, long_side: int | None, device: torch.device) -> Tensor:
    """Return an image as [3, h, w] uint8 on the device, resized to a long side if one is given."""
    return image_tensor(read_image(record.path), long_side, device)


def image_tensor(pixels: NDArray[np.uint8], long_side: int | None, device: torch.device) -> Tensor:
    """Return [H, W, 3] pixels in the form of :func:`load_image`.

    The host does not wait until a GPU has them, which first does what it was told before: CUDA
    keeps them beside.
    """
    if long_side is not None:
        pixels = resize_long_side(pixels, long_side)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(device, non_blocking=True)


def map_size(record: ImageRecord, stride: int) -> tuple[int, int]:
    """Return height and width of an image's stored maps: its own size divided by a stride."""
    return -(-record.height // stride), -(-record.width // stride)


def label_vector(record: ImageRecord, index: Index, device: torch.device) -> Tensor:
    """Return the image's labels as [C] float32 in {0, 1}."""
    vector = torch.zeros(len(index.classes), device=device)
    vector[[label - 1 for label in record.labels]] = 1
    return vector
