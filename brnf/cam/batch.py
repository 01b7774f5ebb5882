"""The images of one training step of a CAM network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from brnf.cam.prototypes import present_classes
from brnf.engine import distributed

__all__ = ["Batch", "Places"]


@dataclass(frozen=True)
class Places:
    """Where a batch has what: found on the host, before a device would have to be asked for it.

    Attributes:
        inside: [P] int64, positions on the grid, of all N h w, that are not padding.
        images: [R] int64, with ``classes`` each pair of an image and one of its classes, the
            background among them, image by image.
        classes: [R] int64, 0..K-1.
    """

    inside: Tensor
    images: Tensor
    classes: Tensor

    @classmethod
    def of(cls, labels: Tensor, valid: Tensor) -> "Places":
        """Find them from labels [N, C] in {0, 1} and the mask [N, 1, h, w] of what is valid."""
        images, classes = torch.nonzero(present_classes(labels), as_tuple=True)
        return cls(torch.nonzero(valid.flatten()).squeeze(1), images, classes)

    def to(self, device: torch.device) -> "Places":
        """Move everything to a device."""
        values = (self.inside, self.images, self.classes)
        return Places(*(value.to(device, non_blocking=True) for value in values))


@dataclass(frozen=True)
class Batch:
    """Training images of one step.

    Attributes:
        pixels: images [N, 3, H, W] uint8, or the four outputs of a frozen backbone for them.
        labels: [N, C] float32 in {0, 1}.
        valid: [N, 1, h, w] bool on the grid, false on padding.
        seeds: base seed maps [N, K, h, w] float32, or None while the base itself is trained.
        places: of labels and padding, on the device that the batch was brought to; None before, and
            where there are no seeds.
    """

    pixels: Tensor | list[Tensor]
    labels: Tensor
    valid: Tensor
    seeds: Tensor | None = None
    places: Places | None = None

    def to(self, device: torch.device) -> "Batch":
        """Move everything to a device, which the host does not wait for."""

        def moved(values: Tensor) -> Tensor:
            return values.to(device, non_blocking=True)

        pixels = (
            moved(self.pixels)
            if isinstance(self.pixels, Tensor)
            else [moved(stage) for stage in self.pixels]
        )
        seeds = places = None
        if self.seeds is not None:
            seeds = moved(self.seeds)
            places = (self.places or Places.of(self.labels, self.valid)).to(device)
        return Batch(pixels, moved(self.labels), moved(self.valid), seeds, places)

    def share(self) -> "Batch":
        """Return the images that this process sees of those that train together.

        Raises:
            UserError: there are more processes than images.
        """
        chosen = distributed.share(len(self.labels))
        pixels = (
            self.pixels[chosen]
            if isinstance(self.pixels, Tensor)
            else [stage[chosen] for stage in self.pixels]
        )
        return Batch(
            pixels,
            self.labels[chosen],
            self.valid[chosen],
            None if self.seeds is None else self.seeds[chosen],
        )
