"""The images of one training step of a CAM network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from brnf.engine import distributed

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Training images of one step.

    Attributes:
        pixels: images [N, 3, H, W] uint8, or the four outputs of a frozen backbone for them.
        labels: [N, C] float32 in {0, 1}.
        valid: [N, 1, h, w] bool on the grid, false on padding.
        seeds: base seed maps [N, K, h, w] float32, or None while the base itself is trained.
    """

    pixels: Tensor | list[Tensor]
    labels: Tensor
    valid: Tensor
    seeds: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Move everything to a device."""
        pixels = (
            self.pixels.to(device)
            if isinstance(self.pixels, Tensor)
            else [stage.to(device) for stage in self.pixels]
        )
        seeds = None if self.seeds is None else self.seeds.to(device)
        return Batch(pixels, self.labels.to(device), self.valid.to(device), seeds)

    def share(self) -> "Batch":
        """Return the images that this process sees of those that train together.

        Raises:
            UserError: the batch cannot be shared.
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
