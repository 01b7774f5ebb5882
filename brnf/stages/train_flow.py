"""Fit the density of pixel features on a training store, and calibrate the BSDNF rules on it.

See docs/method.md sections 4 to 6.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brnf.config.sections.flow import Flow, Tau
from brnf.data.loading import one_ahead
from brnf.engine import distributed
from brnf.engine.checkpoint import (
    Checkpoint,
    only_training,
    training_device,
    training_stamp,
)
from brnf.engine.controller import MINIATURE
from brnf.engine.history import Row, write_history
from brnf.engine.runtime import Progress, Runtime
from brnf.engine.trainer import take_steps
from brnf.errors import UserError
from brnf.flow.bsdnf import Calibration, CalibrationFit
from brnf.flow.density import FlowDensity, RunningMoments
from brnf.flow.gaussian import build_gaussian, fit_gaussian
from brnf.flow.labels import three_way_labels
from brnf.flow.posterior import fit_temperature
from brnf.flow.saved import AnyDensity, save_density
from brnf.flow.training import FlowTrainer, HeldOut, held_out_loss
from brnf.stages._cli import run_stage
from brnf.store.pixels import BLOCK, PixelBatch, PixelStore, hold_out

__all__ = ["Inputs", "Options", "Outputs", "run"]

JUDGED_ROWS = 16384
"""Most held-out rows that a state is judged on, and that the temperature is fitted on."""


@dataclass(frozen=True)
class Inputs:
    """Files read."""

    pixels: tuple[Path, ...]
    """Pixel stores of the training split."""


@dataclass(frozen=True)
class Outputs:
    """Files written."""

    flow: Path
    """The density with its calibration."""
    history: Path
    """CSV: step, loss, held-out loss (nats per dimension), learning rate."""


@dataclass(frozen=True)
class Options:
    """Settings that change the result."""

    flow: Flow = Flow()
    """The density, its training and its calibration."""
    seed: int = 0
    """Of everything drawn at random."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Fit the density of pixel features per class and calibrate the denoising rules."""
    device = training_device(runtime)
    _check_tau(options.flow.tau)
    if options.flow.density != "flow" and not distributed.is_first():
        return  # a baseline is fitted by one process
    store = PixelStore(inputs.pixels)
    with only_training(outputs.flow):
        held_images = hold_out(store.images, options.flow.held_out)
        if options.flow.density == "flow":
            trainer = _build_trainer(store, held_images, options, device)
            stamp = training_stamp("train_flow", options, device, *inputs.pixels)
            checkpoint = Checkpoint(outputs.flow, stamp, device, runtime.checkpoint_seconds)
            _train(store, held_images, trainer, checkpoint, options, runtime)
            if not distributed.is_first():
                return  # the rest is for one
            calibration = _calibrate(store, trainer.flow, held_images, options, runtime)
            _save(outputs, trainer.flow, trainer.history, calibration)
            checkpoint.finish(trainer)
        else:
            density, history = _fit_baseline(store, held_images, options, runtime)
            calibration = _calibrate(store, density, held_images, options, runtime)
            _save(outputs, density, history, calibration)
    print(f"train flow: temperature {calibration.temperature:.4g}")


def _save(
    outputs: Outputs, density: AnyDensity, history: Sequence[Row], calibration: Calibration
) -> None:
    """Write both outputs."""
    write_history(outputs.history, history)
    save_density(outputs.flow, density, calibration)


def _check_tau(tau: Tau) -> None:
    """Refuse thresholds in the wrong order, where a stage is run by hand.

    Raises:
        UserError: names the key.
    """
    if tau.low > tau.high:
        raise UserError(f"flow.tau: low {tau.low} exceeds high {tau.high}; choose low <= high")


def _targets(batch: PixelBatch, options: Options) -> Tensor:
    """Return the three-way labels of a batch."""
    tau = options.flow.tau
    return three_way_labels(
        torch.from_numpy(batch.score), torch.from_numpy(batch.label), tau.low, tau.high
    )


def _rows(batches: Iterator[PixelBatch], options: Options) -> Iterator[tuple[Tensor, Tensor]]:
    """Turn batches into pairs of features [N, D] and targets [N]."""
    for batch in batches:
        yield torch.from_numpy(batch.feature), _targets(batch, options)


def _survey(store: PixelStore, options: Options, runtime: Runtime) -> RunningMoments:
    """Measure mean and deviation of all rows, and print how many of each class are labelled.

    Raises:
        UserError: the store is empty or no row is labelled foreground.
    """
    moments = RunningMoments(store.dimension, floor=options.flow.std_floor)
    counts = np.zeros((store.classes, 3), np.int64)
    for batch in Progress(
        store.blocks(), "train flow: moments", runtime, unit="block", total=_blocks(store)
    ):
        moments.update(torch.from_numpy(batch.feature))
        targets = _targets(batch, options).numpy()
        for column, chosen in enumerate((targets > 0, targets < 0, targets == 0)):
            counts[:, column] += np.bincount(batch.label[chosen], minlength=store.classes)
    print("train flow: class labelled unlabelled background (rows)")
    for c in range(1, store.classes):
        print(f"  {c:3d} {counts[c, 0]:10d} {counts[c, 1]:10d} {counts[c, 2]:10d}")
    where = store.paths[0].parent
    if not len(store):
        raise UserError(
            f"{where}: the pixel stores hold no row; check the split they were made from"
        )
    lacks_a_kind = not counts[:, 0].sum() or not counts[:, 2].sum()
    if lacks_a_kind and MINIATURE not in os.environ:
        lacking = "background (lower scores" if counts[:, 0].sum() else "foreground (higher scores"
        raise UserError(
            f"{where}: no row is labelled {lacking} are needed); change flow.tau or train the base "
            "network longer"
        )
    return moments


def _blocks(store: PixelStore) -> int:
    return -(-len(store) // BLOCK)


def _held_out_rows(
    store: PixelStore, held_images: frozenset[str], options: Options
) -> HeldOut | None:
    """Draw the rows of held-out images that states are judged on."""
    if not any(len(batch) for batch in islice(store.blocks(held_images.__contains__), 1)):
        return None
    batch = next(
        store.shuffled_batches(JUDGED_ROWS, options.seed, held_images.__contains__, epochs=1)
    )
    features, targets = torch.from_numpy(batch.feature), _targets(batch, options)
    return HeldOut.draw(features, targets, options.flow, options.seed)


def _build_trainer(
    store: PixelStore, held_images: frozenset[str], options: Options, device: torch.device
) -> FlowTrainer:
    """Return the trainer of a new flow, whose standardisation is not set."""
    if store.dimension % 2:
        raise UserError(
            f"{store.paths[0]}: features have the odd dimension {store.dimension}, the flow needs "
            "an even one; change cam.side_widths"
        )
    flow = FlowDensity(store.dimension, store.classes, options.flow, options.seed).to(device)
    held_out = _held_out_rows(store, held_images, options)
    return FlowTrainer(flow, options.flow, held_out, options.seed)


def _train(
    store: PixelStore,
    held_images: frozenset[str],
    trainer: FlowTrainer,
    checkpoint: Checkpoint,
    options: Options,
    runtime: Runtime,
) -> None:
    """Train the flow; on a non-finite loss its last good state stays beside the output."""
    if not checkpoint.restore(trainer):
        moments = _survey(store, options, runtime)
        trainer.flow.fit_standardisation(moments.mean, moments.std())

    def batches(done: int) -> Iterator[tuple[Tensor, Tensor]]:
        rows = store.shuffled_batches(
            options.flow.batch_rows, options.seed, lambda image: image not in held_images, done=done
        )
        return one_ahead(_rows(rows, options))

    last_good = checkpoint.output.with_name(checkpoint.output.stem + ".last_good.pt")
    try:
        take_steps("train flow", trainer, batches, options.flow.steps, checkpoint, runtime)
    except UserError as error:
        if distributed.is_first():
            save_density(last_good, trainer.flow)
        raise UserError(f"{error}: {last_good}") from error
    trainer.restore_best()
    last_good.unlink(missing_ok=True)
    trainer.flow.requires_grad_(False)


def _fit_baseline(
    store: PixelStore, held_images: frozenset[str], options: Options, runtime: Runtime
) -> tuple[AnyDensity, list[Row]]:
    """Fit a Gaussian baseline on the rows that the flow would see."""
    if options.flow.density == "flow":
        raise ValueError("the flow is no baseline")
    moments = _survey(store, options, runtime)
    held_out = _held_out_rows(store, held_images, options)
    density = build_gaussian(options.flow.density, store.dimension, store.classes, options.flow)
    density.fit_standardisation(moments.mean, moments.std())
    rows = _rows(store.blocks(lambda image: image not in held_images), options)
    fit_gaussian(density, ((features.float(), targets) for features, targets in rows), options.seed)
    judged = math.nan
    if held_out is not None:
        judged = held_out_loss(density, held_out) / store.dimension
    return density, [{"loss": math.nan, "held_out": judged, "learning_rate": 0.0}]


def _calibrate(
    store: PixelStore,
    density: AnyDensity,
    held_images: frozenset[str],
    options: Options,
    runtime: Runtime,
) -> Calibration:
    """Fit the temperature on labelled held-out rows, the quantiles in one pass."""
    if options.flow.temperature == "auto":
        temperature = _temperature(store, density, held_images, options)
    else:
        temperature = options.flow.temperature
    fit = CalibrationFit(store.classes, options.flow.tau.low, options.flow.tau.high, options.seed)
    for batch in Progress(
        store.blocks(), "train flow: calibration", runtime, unit="block", total=_blocks(store)
    ):
        log_prob = density.log_prob(torch.from_numpy(batch.feature))
        fit.update(
            log_prob,
            torch.from_numpy(batch.label),
            torch.from_numpy(batch.score),
            torch.from_numpy(batch.background),
        )
    return fit.finish(temperature)


def _temperature(
    store: PixelStore, density: AnyDensity, held_images: frozenset[str], options: Options
) -> float:
    """Fit the temperature on labelled held-out rows, or on all where none is labelled."""
    for keep in (held_images.__contains__, lambda image: image not in held_images):
        if not any(len(batch) for batch in islice(store.blocks(keep), 1)):
            continue
        batch = next(store.shuffled_batches(JUDGED_ROWS, options.seed, keep, epochs=1))
        labelled = batch.take(np.flatnonzero(_targets(batch, options).numpy() >= 0))
        if len(labelled):
            allowed = torch.from_numpy(store.present[labelled.image])
            return fit_temperature(
                density.log_prob(torch.from_numpy(labelled.feature)), allowed, options.flow.target
            )
    raise UserError(
        f"{store.paths[0].parent}: no labelled row to fit the temperature on; set flow.temperature "
        "to a number or change flow.tau"
    )


if __name__ == "__main__":
    run_stage(run)
