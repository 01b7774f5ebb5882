"""The reference of the flow's training, in the structure of DDFP, over pixels in one HDF5 file
that has grown by images.
"""

import copy
import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.finished_run import STEPS, FinishedRun
from benchmarks.growing_store import GrowingStore
from benchmarks.reference_flow import ReferenceFlow
from benchmarks.stopwatch import Runner, Stopwatch
from brnf.config.sections.flow import Flow
from brnf.engine.schedule import decay
from brnf.errors import UserError
from brnf.flow.bsdnf import CalibrationFit
from brnf.flow.density import FlowDensity, RunningMoments
from brnf.flow.labels import three_way_labels
from brnf.flow.posterior import fit_temperature
from brnf.flow.saved import save_density
from brnf.stages import train_flow
from brnf.stages.train_flow import JUDGED_ROWS
from brnf.store.pixels import hold_out

__all__ = ["reference_flow_training"]

BLOCK = 4096
"""Rows of a batch in the passes over all pixels."""


class _FlowTraining:
    """The flow's training on one growing HDF5 file: random rows by sorted fancy indexing, whole
    batches, a plain Adam.

    Arguments:
        store: all pixels.
        options: of section flow.
        seed: of everything drawn at random.
        steps: of the training that are taken.
        watch: of the reference.
    """

    def __init__(
        self, store: GrowingStore, options: Flow, seed: int, steps: int, watch: Stopwatch
    ) -> None:
        self.options, self.seed, self.steps, self.watch = options, seed, steps, watch
        self.feature = store.file["feature"]
        self.score, self.background, self.label = (
            torch.from_numpy(store.file[name][()]) for name in ("score", "background", "label")
        )
        self.targets = three_way_labels(self.score, self.label, options.tau.low, options.tau.high)
        counts = np.diff(store.begin)
        self.image = np.repeat(np.arange(len(counts)), counts)
        held_out = hold_out(list(store.images), options.held_out)
        held = np.repeat([image in held_out for image in store.images], counts)
        self.trained, self.held = np.flatnonzero(~held), np.flatnonzero(held)
        self.allowed = torch.from_numpy(np.array(store.present))
        self.density = FlowDensity(self.feature.shape[1], self.allowed.shape[1], options, seed)
        self.flow = ReferenceFlow(self.density)
        self.history: list[tuple[int, float, float | None]] = []

    def rows(self, chosen: NDArray[np.integer]) -> Tensor:
        """Return the features [n, D] of random rows, float32."""
        with self.watch.loop("pixel-store minibatches"):
            return torch.from_numpy(self.feature[np.sort(chosen)]).float()

    def fit_standardisation(self) -> None:
        """Measure mean and deviation in a pass over all rows."""
        moments = RunningMoments(self.feature.shape[1], floor=self.options.std_floor)
        for begin in range(0, len(self.feature), BLOCK):
            moments.update(torch.from_numpy(self.feature[begin : begin + BLOCK]))
        self.density.fit_standardisation(moments.mean, moments.std())
        self.flow.fit_standardisation(moments.mean, moments.std())

    def batches(self) -> Iterator[NDArray[np.integer]]:
        """Yield the sorted rows of one step after the other, each row once an epoch."""
        random, size = (
            np.random.default_rng(self.seed),
            min(self.options.batch_rows, len(self.trained)),
        )
        while True:
            permutation = random.permutation(self.trained)
            for begin in range(0, len(permutation) - size + 1, size):
                yield np.sort(permutation[begin : begin + size])

    def train(self) -> None:
        """Take the steps and keep the state of the least held-out loss."""
        options, flow = self.options, self.flow
        parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(
            parameters,
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            foreach=False,
        )
        interval = max(25, options.steps // 20)
        judged = np.sort(np.random.default_rng(self.seed).permutation(self.held)[:JUDGED_ROWS])
        drawn = torch.randn(
            len(judged), flow.dimension, generator=torch.Generator().manual_seed(self.seed)
        )
        scale = (
            options.noise / self.density.std if options.noise_unit == "feature" else options.noise
        )
        noise = scale * drawn
        best, state = math.inf, copy.deepcopy(flow.state_dict())
        for number, rows in zip(range(1, self.steps + 1), self.batches(), strict=False):
            features = self.rows(rows)
            with self.watch.loop("flow training step"):
                rate = decay(options.decay, number - 1, options.steps, options.final_rate)
                for group in optimiser.param_groups:
                    group["lr"] = options.learning_rate * rate
                loss = flow.loss(features, self.targets[rows], scale * torch.randn_like(features))
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, options.clip_norm, foreach=False)
                assert torch.isfinite(loss)
                optimiser.step()
            held_out = None
            if len(judged) and (number % interval == 0 or number == options.steps):
                features = self.rows(judged)
                with self.watch.loop("flow log-density"), torch.no_grad():
                    held_out = flow.loss(features, self.targets[judged], noise).item()
                if held_out < best:
                    best, state = held_out, copy.deepcopy(flow.state_dict())
            self.history.append(
                (number, loss.item() / flow.dimension, held_out and held_out / flow.dimension)
            )
        if len(judged):
            flow.load_state_dict(state)
        flow.requires_grad_(False)

    def temperature(self) -> float:
        """Fit the temperature on labelled held-out rows, or on others where there is none."""
        if self.options.temperature != "auto":
            return self.options.temperature
        labelled = self.targets.numpy() >= 0
        rows = next(
            found
            for found in (self.held[labelled[self.held]], self.trained[labelled[self.trained]])
            if len(found)
        )
        rows = np.sort(np.random.default_rng(self.seed).permutation(rows)[:JUDGED_ROWS])
        return fit_temperature(
            self._log_prob(self.rows(rows)), self.allowed[self.image[rows]], self.options.target
        )

    def calibrate(self, path: Path) -> None:
        """Gather the quantiles in a pass over all rows and save the flow."""
        temperature = self.temperature()
        tau = self.options.tau
        fit = CalibrationFit(self.flow.classes, tau.low, tau.high, self.seed)
        for begin in range(0, len(self.feature), BLOCK):
            part = slice(begin, begin + BLOCK)
            log_prob = self._log_prob(torch.from_numpy(self.feature[part]).float())
            fit.update(log_prob, self.label[part], self.score[part], self.background[part])
        own = {f"network.{name}": value for name, value in self.flow.network.state_dict().items()}
        self.density.load_state_dict(
            {**self.density.state_dict(), **own, "mixture.means": self.flow.means.data}
        )
        save_density(path, self.density, fit.finish(temperature))

    def _log_prob(self, features: Tensor) -> Tensor:
        with self.watch.loop("flow log-density"), torch.no_grad():
            return self.flow.log_prob(features)


def reference_flow_training(run: FinishedRun, watch: Stopwatch) -> Runner:
    stage: train_flow.Options = run.options(train_flow)
    options = stage.flow
    if options.density != "flow" or options.balanced or not options.learn_means:
        raise UserError("the reference trains a flow with learnt means on rows as they come")

    def work(folder: Path) -> None:
        with GrowingStore.open(run.folder / "growing.h5") as store:
            steps = run.steps("train_flow")[0]
            training = _FlowTraining(store, options, stage.seed, steps, watch)
            training.fit_standardisation()
            with watch.phase(STEPS):
                training.train()
            training.calibrate(folder / "flow.pt")
        with (folder / "history.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("step", "loss", "held_out"), *training.history])

    return work
