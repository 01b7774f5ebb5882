"""Stage: measure the seeds after BSDNF by every rule and threshold in one pass, and the density as a classifier."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.data.index import Index
from brnf.errors import UserError
from brnf.evaluate.confusion import Confusion, mean_iou
from brnf.evaluate.truth import GroundTruth, at_image_size
from brnf.flow.bsdnf import Rule, depress, enlarge_margin
from brnf.flow.labels import three_way_labels
from brnf.flow.posterior import tempered_posterior
from brnf.stages.common import Progress, Runtime, run_stage
from brnf.stages.denoise_seeds import Denoiser
from brnf.store.files import locked, whole_file
from brnf.store.maps import CamMaps, MapReader
from brnf.store.pixels import PixelRows

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    index: Path
    """Image index."""
    pixels: tuple[Path, ...]
    """Shards of the pixel store that hold the split."""
    maps: tuple[Path, ...]
    """Maps of the same shards."""
    flow: Path
    """Density with its calibration."""
    history: Path
    """Its training: the smallest held-out loss is reported."""


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    sweep: Path
    """JSON file of all measurements."""


@dataclass(frozen=True)
class Options:
    """What is measured."""

    split: str
    """Split to evaluate on."""
    product: str = "prototype"
    """Which of the maps is denoised."""
    rules: tuple[Rule, ...] = ("quantile", "likelihood", "posterior", "ratio")
    """Rules of BSDNF."""
    xis: tuple[float, ...] = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
    """Thresholds of each rule."""
    factor: float = 0.0
    """What the foreground of depressed pixels is multiplied with."""
    population: Literal["predicted", "above_low", "above_high"] = "predicted"
    """Pixels whose quantiles decide."""
    upsample: Literal["bilinear", "nearest"] = "bilinear"
    """How the decision of the grid reaches maps of image size."""
    tau_low: float = 0.3
    """Largest score at which a pixel counts as labelled background when the density's accuracy is measured."""
    tau_high: float = 0.7
    """Smallest score at which a pixel counts as labelled with its class there."""
    density: str = "flow"
    """What the density is called in the tables."""
    model: str = "base"
    """Model whose maps these are."""
    protocol: str = "paper"
    """Protocol of the row in the tables."""
    seed: int = 0
    """Random seed the model was trained with."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Measure the seeds after BSDNF by every rule and threshold."""
    index = Index.read(inputs.index)
    truth = GroundTruth(index, inputs.index)
    cv2.setNumThreads(runtime.threads)
    denoiser = Denoiser(inputs.pixels, inputs.flow, runtime.torch_device())
    maps = MapReader(inputs.maps, options.product)
    classes = len(index.classes) + 1
    raw = Confusion(classes)
    confusions = {(rule, xi): Confusion(classes) for rule in options.rules for xi in options.xis}
    accuracy = Accuracy()
    images = 0
    with locked(outputs.sweep):
        for image in Progress(index.split(options.split), f"sweep denoising {options.model}", runtime, unit="image"):
            objects = truth.objects(image)
            if objects is None:
                continue
            images += 1
            found = maps[image.id]
            raw.add(objects, at_image_size(found, image).labels())
            rows, log_prob = denoiser.log_prob(image.id)
            accuracy.add(rows, log_prob, denoiser.calibration.temperature, objects, options)
            for (rule, xi), confusion in confusions.items():
                grid = denoiser.grid_margin(rows, log_prob, rule, xi, options.population)
                margin = enlarge_margin(grid, (found.values.shape[1], found.values.shape[2]), options.upsample)
                values = depress(torch.from_numpy(found.values), margin, options.factor)
                confusion.add(objects, at_image_size(CamMaps(found.classes, values.numpy()), image).labels())
        if not images:
            raise UserError(f"split '{options.split}': none of its images has a ground-truth mask; evaluate another split")
        measured = {
            **{key: getattr(options, key) for key in ("model", "split", "protocol", "seed", "density", "tau_low", "tau_high")},
            "held_out": smallest_held_out(inputs.history),
            "images": images,
            "raw_miou": float(mean_iou(raw.counts)),
            "points": [{"rule": rule, "xi": xi, "miou": float(mean_iou(found.counts))} for (rule, xi), found in confusions.items()],
            **accuracy.shares(),
        }
        with whole_file(outputs.sweep) as temporary:
            temporary.write_text(json.dumps(measured, indent=1, allow_nan=False) + "\n")


class Accuracy:
    """Count how often the seeds' three-way labels and the density's posterior agree with the truth, where the seeds label."""

    def __init__(self) -> None:
        self._labelled = self._by_seed = self._by_density = 0

    def add(self, rows: PixelRows, log_prob: Tensor, temperature: float, objects: NDArray[np.uint8], options: Options) -> None:
        """Add the grid positions of one image; the truth is that of their centre."""
        codes = three_way_labels(
            torch.from_numpy(np.asarray(rows.score)), torch.from_numpy(np.asarray(rows.label)), options.tau_low, options.tau_high
        )
        allowed = torch.from_numpy(rows.present).expand(len(log_prob), -1)
        predicted = tempered_posterior(log_prob, allowed, temperature).argmax(1)
        row, column = np.divmod(np.asarray(rows.position, np.int64), rows.grid[1])
        height, width = objects.shape
        true = objects[((row + 0.5) * height / rows.grid[0]).astype(int), ((column + 0.5) * width / rows.grid[1]).astype(int)]
        counted = torch.from_numpy(true != 255) & (codes >= 0)
        expected = torch.from_numpy(true.astype(np.int64))
        self._labelled += int(counted.sum())
        self._by_seed += int((counted & (codes == expected)).sum())
        self._by_density += int((counted & (predicted == expected)).sum())

    def shares(self) -> Mapping[str, Any]:
        """Return the number of labelled positions and both accuracies, None when there is none."""
        total = self._labelled
        return {
            "labelled": total,
            "seed_accuracy": self._by_seed / total if total else None,
            "density_accuracy": self._by_density / total if total else None,
        }


def smallest_held_out(history: Path) -> float | None:
    """Return the smallest held-out loss of a density's training, nats per dimension; None when nothing was held out."""
    judged = pd.read_csv(history)["held_out"].min()
    return None if pd.isna(judged) else float(judged)


if __name__ == "__main__":
    run_stage(run)
