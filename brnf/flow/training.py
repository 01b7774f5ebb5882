"""Training of the flow on a pixel store (docs/method.md section 5)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brnf.config.sections.flow import FlowTraining, Noise, NoiseUnit
from brnf.engine.schedule import decay
from brnf.engine.trainer import Descent, Measured, Row, Trainer
from brnf.errors import UserError
from brnf.flow.density import FlowDensity, StandardisedDensity, rows_at_once
from brnf.flow.loss import add_gradient, mixture_loss

__all__ = ["FlowTrainer", "HeldOut", "balanced_rows", "held_out_loss"]

EVALUATIONS, LEAST_INTERVAL = 20, 25


@dataclass(frozen=True)
class HeldOut:
    """Rows of images that are not trained on, with the noise they are judged under.

    Attributes:
        features: [N, D].
        targets: [N] int64 three-way labels.
        noise: [N, D], the same for every density that is compared.
        unit: of the noise.
    """

    features: Tensor
    targets: Tensor
    noise: Tensor
    unit: NoiseUnit

    @classmethod
    def draw(cls, features: Tensor, targets: Tensor, noise: Noise, seed: int) -> "HeldOut":
        """Return the rows with noise of this standard deviation and unit, drawn by a seed."""
        generator = torch.Generator().manual_seed(seed)
        drawn = noise.noise * torch.randn(features.shape, generator=generator)
        return cls(features, targets, drawn, noise.noise_unit)


@torch.no_grad()
def held_out_loss(density: StandardisedDensity, held_out: HeldOut) -> float:
    """Return the loss on held-out rows, nats per pixel, of any density."""
    device = density.mean.device
    rows = rows_at_once(device)
    tiles = zip(held_out.features.split(rows), held_out.noise.split(rows), strict=True)
    found = []
    for features, noise in tiles:
        added = density.in_std(noise.to(device), held_out.unit)
        found.append(density.class_log_prob(features.to(device), added))
    log_prob = torch.cat(found)
    return float(mixture_loss(log_prob, held_out.targets.to(device)))


def balanced_rows(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many rows again, so that all labels in the batch come equally often.

    Unlabelled rows stay as they are; labelled ones are drawn with replacement.

    Arguments:
        targets: [N] int64 on the CPU.
        generator: of the CPU.

    Returns:
        [N] int64 indices.
    """
    labelled = torch.nonzero(targets >= 0).squeeze(1)
    if not len(labelled):
        return torch.arange(len(targets))
    counts = torch.bincount(targets[labelled])
    weights = counts[targets[labelled]].double().reciprocal()
    drawn = labelled[
        torch.multinomial(weights, len(labelled), replacement=True, generator=generator)
    ]
    return torch.cat([torch.nonzero(targets < 0).squeeze(1), drawn])


class FlowTrainer(Trainer[tuple[Tensor, Tensor]]):
    """Train a flow step by step and keep its best held-out state.

    Arguments:
        flow: on the device to train on, with its standardisation set before the first step.
        options: of the optimiser.
        held_out: judged every ``max(25, steps / 20)`` steps and after the last; None keeps the last
            state.
        seed: of the noise and of the balanced draw.
    """

    def __init__(
        self, flow: FlowDensity, options: FlowTraining, held_out: HeldOut | None, seed: int = 0
    ) -> None:
        optimiser = torch.optim.Adam(
            [parameter for parameter in flow.parameters() if parameter.requires_grad],
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            fused=True,
        )
        descent = Descent(
            optimiser,
            lambda step: decay(options.decay, step, options.steps, options.final_rate),
            "lower flow.learning_rate or flow.clamp (the last good state is kept)",
            clip_norm=options.clip_norm,
        )
        super().__init__(flow, descent, options.steps)
        self.flow, self.options, self.held_out = flow, options, held_out
        self._noise = torch.Generator(self.device).manual_seed(seed)
        self._draw = torch.Generator().manual_seed(seed)
        self._interval = max(LEAST_INTERVAL, options.steps // EVALUATIONS)
        self._best_loss = math.inf
        self._best: dict[str, Tensor] = {}

    def step(self, batch: tuple[Tensor, Tensor]) -> Row:
        """Take one step of the optimiser, and judge the state now and then.

        Raises:
            UserError: the step is not finite; the flow is back at its last good state.
        """
        self._best = self._best or self._copy_state()
        try:
            row = super().step(batch)
        except UserError:
            self.restore_best()
            raise
        if len(self.history) % self._interval == 0 or len(self.history) == self.steps:
            row["held_out"] = self._judge()
        return row

    def add_gradient(self, batch: tuple[Tensor, Tensor]) -> Measured:
        """Return loss and held-out loss, nats per dimension, and the learning rate.

        Arguments:
            batch: features [N, D], raw, any float, and their three-way labels [N] int64, on the
                CPU.
        """
        features, targets = batch
        if self.options.balanced:
            index = balanced_rows(targets, self._draw)
            features, targets = features[index], targets[index]
        features, targets = features.to(self.device), targets.to(self.device)
        drawn = torch.randn(features.shape, generator=self._noise, device=self.device)
        own = self.flow.options
        noise = self.flow.in_std(own.noise * drawn, own.noise_unit)
        loss = add_gradient(self.flow, features, noise, targets).double() / self.flow.dimension
        rate = self.options.learning_rate * self.descent.share(len(self.history))
        return {"loss": loss, "held_out": math.nan, "learning_rate": rate}

    def restore_best(self) -> None:
        """Restore the flow's best held-out state, or the last one without held-out rows."""
        self.flow.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        return {
            **super().state_dict(),
            "noise": self._noise.get_state(),
            "draw": self._draw.get_state(),
            "best_loss": self._best_loss,
            "best": self._best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self._noise.set_state(state["noise"].cpu())
        self._draw.set_state(state["draw"])
        self._best_loss, self._best = float(state["best_loss"]), dict(state["best"])

    def _judge(self) -> float:
        """Keep the state when it is the best so far; return the held-out loss in nats per
        dimension, NaN without held-out rows.
        """
        if self.held_out is None:
            self._best = self._copy_state()
            return math.nan
        loss = held_out_loss(self.flow, self.held_out)
        if loss < self._best_loss:
            self._best_loss, self._best = loss, self._copy_state()
        return loss / self.flow.dimension

    def _copy_state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.flow.state_dict().items()}
