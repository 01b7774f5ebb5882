"""BSDNF over the pixel stores of a split: which positions of an image are noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brnf.errors import UserError
from brnf.flow.bsdnf import Population, Rule, decision_margin
from brnf.flow.saved import load_density
from brnf.store.pixels import PixelRows, PixelStore

__all__ = ["Denoiser"]


class Denoiser:
    """Pixel stores and the density that judges their rows.

    Arguments:
        pixels: shards of the store.
        flow: file of the density with its calibration.
        device: where to compute.

    Attributes:
        calibration: of the density.
        classes: C, foreground classes.

    Raises:
        UserError: the density has no calibration or does not fit the store.
    """

    def __init__(self, pixels: Sequence[Path], flow: Path, device: torch.device) -> None:
        density, calibration = load_density(flow)
        if calibration is None:
            raise UserError(
                f"{flow}: holds no calibration (a training that stopped); run train_flow again"
            )
        self.calibration = calibration
        self.classes = density.classes - 1
        self._density = density.to(device)
        self._store = PixelStore(pixels)
        if (self._store.dimension, self._store.classes) != (density.dimension, density.classes):
            raise UserError(
                f"{self._store.paths[0]}: {self._store.dimension} dimensions and "
                f"{self._store.classes} classes do not fit those of {flow} "
                f"({density.dimension}, {density.classes}); run store_pixels and train_flow of the "
                "same network"
            )

    def log_prob(self, image: str) -> tuple[PixelRows, Tensor]:
        """Return the rows of an image and their log-densities [N, K], nats."""
        rows = self._store.image_rows(image)
        return rows, self._density.log_prob(torch.from_numpy(np.asarray(rows.feature)))

    def grid_margin(
        self, rows: PixelRows, log_prob: Tensor, rule: Rule, xi: float, population: Population
    ) -> Tensor:
        """Return the decision margins of one image on its grid, [h, w]; positions without a row
        have an infinite one.
        """
        allowed = torch.from_numpy(rows.present).expand(len(log_prob), -1)
        label = torch.from_numpy(np.asarray(rows.label))
        margin = decision_margin(rule, xi, log_prob, label, allowed, self.calibration, population)
        grid = torch.full((rows.grid[0] * rows.grid[1],), torch.inf)
        grid[torch.from_numpy(np.asarray(rows.position, dtype=np.int64))] = margin
        found: Tensor = grid.unflatten(0, rows.grid)
        return found
