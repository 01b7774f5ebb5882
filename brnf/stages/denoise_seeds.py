"""Depress the noise pixels of maps with the density of their features: BSDNF (method.md section 6)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from brnf.errors import UserError
from brnf.flow.bsdnf import Calibration, decision_margin, depress, enlarge_margin
from brnf.flow.saved import AnyDensity, load_density
from brnf.stages.common import Progress, Runtime, run_stage
from brnf.store.files import locked
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelRows, PixelStore

__all__ = ["Inputs", "Options", "Outputs", "run"]


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

    product: str = "prototype"
    """Which of the maps is denoised."""
    rule: Literal["quantile", "likelihood", "posterior", "ratio"] = "posterior"
    """How noise is told; only posterior and ratio compare with the background."""
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
    density, calibration = load_density(inputs.flow)
    if calibration is None:
        raise UserError(f"{inputs.flow}: holds no calibration (a training that stopped); run train_flow again")
    density = density.to(device)
    store, maps = PixelStore([inputs.pixels]), MapReader([inputs.maps], options.product)
    if (store.dimension, store.classes) != (density.dimension, density.classes):
        raise UserError(
            f"{inputs.pixels}: {store.dimension} dimensions and {store.classes} classes do not fit those of {inputs.flow} "
            f"({density.dimension}, {density.classes}); run store_pixels and train_flow of the same network"
        )
    with locked(outputs.denoised), write_maps(outputs.denoised) as writer:
        for image in Progress(maps.images, "denoise seeds", runtime, unit="image"):
            found = maps[image]
            grid = image_margin(store.image_rows(image), density, calibration, options)
            height, width = found.values.shape[1:]
            margin = enlarge_margin(grid, (height, width), options.upsample)
            values = depress(torch.from_numpy(found.values), margin, options.factor)
            writer.write(image, found.classes, {"seeds": values.numpy()})


def image_margin(rows: PixelRows, density: AnyDensity, calibration: Calibration, options: Options) -> Tensor:
    """Return the decision margins of one image on its grid, [h, w]; positions without a row have an infinite one."""
    log_prob = density.log_prob(torch.from_numpy(np.asarray(rows.feature)))
    allowed = torch.from_numpy(rows.present).expand(len(log_prob), -1)
    label = torch.from_numpy(np.asarray(rows.label))
    margin = decision_margin(options.rule, options.xi, log_prob, label, allowed, calibration, options.population)
    grid = torch.full((rows.grid[0] * rows.grid[1],), torch.inf)
    grid[torch.from_numpy(np.asarray(rows.position, dtype=np.int64))] = margin
    return grid.unflatten(0, rows.grid)


if __name__ == "__main__":
    run_stage(run)
