"""Suppress noise pixels of maps by their features' density: BSDNF (docs/method.md section 6)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from brnf.config.sections.flow import Denoising
from brnf.engine.runtime import Progress, Runtime
from brnf.flow.bsdnf import enlarge_margin, suppress
from brnf.flow.denoiser import Denoiser
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.maps import MapReader, write_maps

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
    bsdnf: Denoising = Denoising()
    """The rule and its threshold."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Suppress the noise pixels of a shard's maps."""
    device = runtime.torch_device()
    bsdnf = options.bsdnf
    denoiser = Denoiser([inputs.pixels], inputs.flow, device)
    maps = MapReader([inputs.maps], options.product)
    with locked(outputs.denoised), write_maps(outputs.denoised, denoiser.classes) as writer:
        for image in Progress(maps.images, "denoise seeds", runtime, unit="image"):
            found = maps[image]
            rows, log_prob = denoiser.log_prob(image)
            grid = denoiser.grid_margin(rows, log_prob, bsdnf.rule, bsdnf.xi, bsdnf.population)
            height, width = found.values.shape[1:]
            margin = enlarge_margin(grid, (height, width), bsdnf.upsample)
            values = suppress(torch.from_numpy(found.values), margin, bsdnf.factor)
            writer.write(image, found.classes, {"seeds": values.numpy()})


if __name__ == "__main__":
    run_stage(run)
