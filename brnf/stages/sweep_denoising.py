"""Stage: measure the seeds after BSDNF by every rule and threshold in one pass, and the density as
a classifier.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brnf.config.sections.flow import DenoisedMaps, Rule, Tau
from brnf.config.studies import XIS
from brnf.data.index import ImageRecord, Index
from brnf.engine.history import read_history
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.evaluate.confusion import Confusion, cross_validated_iou, halves, mean_iou
from brnf.evaluate.density import Accuracy, ClassDensity, ImageLosses, MarginHistogram, true_classes
from brnf.evaluate.truth import GroundTruth, at_image_size
from brnf.flow.bsdnf import enlarge_margin, suppress
from brnf.flow.denoiser import Denoiser
from brnf.flow.labels import three_way_labels
from brnf.flow.posterior import tempered_posterior
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked
from brnf.store.label_type import Labels
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
    truth: tuple[Path, ...] = ()
    """Folders of drawn ground truth, where the data set has no mask files."""
    packed: tuple[Path, ...] = ()
    """Packs of their masks, where no disk is shared (`docs/storage.md`)."""


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
    rules: tuple[Rule, ...] = get_args(Rule)
    """Rules of BSDNF."""
    xis: tuple[float, ...] = XIS
    """Thresholds of each rule."""
    bsdnf: DenoisedMaps = DenoisedMaps()
    """How noise is suppressed."""
    tau: Tau = Tau()
    """Scores at which a pixel counts as labelled when the density's accuracy is measured."""
    shown_rule: Rule = "quantile"
    """Rule whose margins are gathered in a histogram and whose losses are told image by image."""
    shown_xi: float = 0.9
    """Threshold for these."""
    density: str = "flow"
    """What the density is called in the tables."""
    model: str = "base"
    """Model whose maps these are."""
    protocol: str = "bench"
    """Protocol of the row in the tables."""
    seed: int = 0
    """Random seed the model was trained with."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Measure the seeds after BSDNF by every rule and threshold."""
    index = Index.of_split(inputs.index, options.split)
    truth = GroundTruth(index, inputs.index, options.split, inputs.truth, inputs.packed)
    cv2.setNumThreads(runtime.threads)
    denoiser = Denoiser(inputs.pixels, inputs.flow, runtime.torch_device())
    maps = MapReader(inputs.maps, options.product)
    sweep = Sweep(denoiser, index, options)
    with locked(outputs.sweep):
        for image in Progress(
            index.images, f"sweep denoising {options.model}", runtime, unit="image"
        ):
            objects = truth.objects(image)
            if objects is not None:
                sweep.add(image, objects, maps[image.id])
        if not sweep.images:
            raise UserError(
                f"split '{options.split}': none of its images has a ground-truth mask; evaluate "
                "another split"
            )
        measured = {
            **{
                key: getattr(options, key)
                for key in ("model", "split", "protocol", "seed", "density")
            },
            "tau_low": options.tau.low,
            "tau_high": options.tau.high,
            "classes": ["background", *index.classes],
            "held_out": smallest_held_out(inputs.history),
            **sweep.state(),
        }
        with atomic_file(outputs.sweep) as temporary:
            temporary.write_text(json.dumps(measured, indent=1, allow_nan=False) + "\n")


class Sweep:
    """All that is counted over the images.

    Arguments:
        denoiser: gives log-densities and margins.
        index: of the images.
        options: of the stage.
    """

    def __init__(self, denoiser: Denoiser, index: Index, options: Options) -> None:
        classes = len(index.classes) + 1
        self._denoiser, self._options = denoiser, options
        self.images = 0
        self._half_of = halves(image.id for image in index.images)
        self._raw = Confusion(classes)
        self._points = {
            (rule, xi): (Confusion(classes), Confusion(classes))
            for rule in options.rules
            for xi in options.xis
        }
        self._accuracy, self._margins = Accuracy(), MarginHistogram(options.shown_rule)
        self._densities, self._losses = ClassDensity(classes), ImageLosses(classes)

    def add(self, image: ImageRecord, objects: Labels, found: CamMaps) -> None:
        """Denoise the maps of an image by every rule and threshold, and count."""
        self.images += 1
        before = at_image_size(found, image).labels()
        self._raw.add(objects, before)
        rows, log_prob = self._denoiser.log_prob(image.id)
        self._count_pixels(rows, log_prob, true_classes(objects, rows.grid, rows.position))
        for (rule, xi), confusions in self._points.items():
            after = self._denoised(
                image,
                found,
                self._denoiser.grid_margin(
                    rows, log_prob, rule, xi, self._options.bsdnf.population
                ),
            )
            confusions[self._half_of[image.id]].add(objects, after)
            if (rule, xi) == (self._options.shown_rule, self._options.shown_xi):
                self._losses.add(image.id, objects, before, after)

    def _denoised(self, image: ImageRecord, found: CamMaps, grid: Tensor) -> Labels:
        margin = enlarge_margin(
            grid, (found.values.shape[1], found.values.shape[2]), self._options.bsdnf.upsample
        )
        values = suppress(torch.from_numpy(found.values), margin, self._options.bsdnf.factor)
        return at_image_size(CamMaps(found.classes, values.numpy()), image).labels()

    def _count_pixels(self, rows: PixelRows, log_prob: Tensor, truth: Labels) -> None:
        options = self._options
        label, score, background = (
            np.asarray(values) for values in (rows.label, rows.score, rows.background)
        )
        targets = three_way_labels(
            torch.from_numpy(score), torch.from_numpy(label), options.tau.low, options.tau.high
        )
        allowed = torch.from_numpy(rows.present).expand(len(log_prob), -1)
        posterior = tempered_posterior(log_prob, allowed, self._denoiser.calibration.temperature)
        self._accuracy.add(truth, targets.numpy(), posterior.argmax(1).numpy())
        self._densities.add(truth, log_prob.numpy())
        foreground = score > background
        grid = self._denoiser.grid_margin(
            rows, log_prob, options.shown_rule, options.shown_xi, options.bsdnf.population
        )
        margin = grid.flatten().numpy()[np.asarray(rows.position, np.int64)]
        self._margins.add(margin[foreground], truth[foreground], label[foreground])

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        counts = {
            point: np.stack([half.counts for half in both]) for point, both in self._points.items()
        }
        points = [
            {
                "rule": rule,
                "xi": xi,
                "miou": float(mean_iou(both.sum(0))),
                # To choose a setting of the density on one half and read it on the other.
                "miou_of_halves": [
                    None if math.isnan(one) else one for one in mean_iou(both).tolist()
                ],
            }
            for (rule, xi), both in counts.items()
        ]
        cross_validated = {
            rule: cross_validated_iou(np.stack([counts[rule, xi] for xi in self._options.xis]))
            for rule in self._options.rules
        }
        return {
            "images": self.images,
            "raw_miou": float(mean_iou(self._raw.counts)),
            "points": points,
            "cross_validated": cross_validated,
            **self._accuracy.shares(),
            **self._densities.state(),
            "shown": {"rule": self._options.shown_rule, "xi": self._options.shown_xi},
            "margins": self._margins.state(),
            "worst": self._losses.worst(),
        }


def smallest_held_out(history: Path) -> float | None:
    """Return the smallest held-out loss of a density's training, nats per dimension; None when
    nothing was held out.
    """
    judged = read_history(history, "held_out")["held_out"].min()
    return None if pd.isna(judged) else float(judged)


if __name__ == "__main__":
    run_stage(run)
