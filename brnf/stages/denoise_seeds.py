"""Depress noise pixels of maps by the density of their features (docs/method.md section 6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.flow.bsdnf import Population, Rule, decision_margin, depress, enlarge_margin
from brnf.flow.saved import load_density
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelRows, PixelStore

__all__ = ["Denoiser", "Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """Files read."""

    pixels: Path
    """Pixel store of the shard."""
    maps: Path
    """Maps of the same shard."""
    flow: Path
    """Density with its calibration, written by train_flow."""


@dataclass(frozen=True)
class Outputs:
    """Files written."""

    denoised: Path
    """Maps of the shard, product ``seeds``."""


@dataclass(frozen=True)
class Options:
    """Settings that change the result."""

    rule: Literal["quantile", "likelihood", "posterior", "ratio"]
    """How noise is told; only posterior and ratio compare with the background."""
    product: str = "prototype"
    """Which of the maps is denoised."""
    xi: float = 0.9
    """Threshold of the rule; a higher one depresses fewer pixels (the paper: 0.9)."""
    factor: float = 0.0
    """What the foreground of depressed pixels is multiplied with."""
    population: Literal["predicted", "above_low", "above_high"] = "predicted"
    """Pixels whose quantiles decide: predicted foreground, or above a threshold of the labels."""
    upsample: Literal["bilinear", "nearest"] = "bilinear"
    """How the decision of the grid reaches maps of image size."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Depress the noise pixels of a shard's maps."""
    device = runtime.torch_device()
    if not 0 <= options.xi <= 1:
        raise UserError(f"bsdnf.xi: {options.xi} is outside 0..1")
    if not 0 <= options.factor <= 1:
        raise UserError(f"bsdnf.factor: {options.factor} is outside 0..1")
    denoiser = Denoiser([inputs.pixels], inputs.flow, device)
    maps = MapReader([inputs.maps], options.product)
    with locked(outputs.denoised), write_maps(outputs.denoised) as writer:
        for image in Progress(maps.images, "denoise seeds", runtime, unit="image"):
            found = maps[image]
            rows, log_prob = denoiser.log_prob(image)
            grid = denoiser.grid_margin(
                rows, log_prob, options.rule, options.xi, options.population
            )
            height, width = found.values.shape[1:]
            margin = enlarge_margin(grid, (height, width), options.upsample)
            values = depress(torch.from_numpy(found.values), margin, options.factor)
            writer.write(image, found.classes, {"seeds": values.numpy()})


class Denoiser:
    """Pixel stores and the density that judges their rows.

    Arguments:
        pixels: shards of the store.
        flow: file of the density with its calibration.
        device: where to compute.

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
        return grid.unflatten(0, rows.grid)


if __name__ == "__main__":
    run_stage(run)
