"""Training of the flow on a pixel store (docs/method.md section 5)."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brnf.errors import UserError
from brnf.flow.density import TILE, FlowDensity, NoiseUnit, StandardisedDensity
from brnf.flow.loss import add_gradient, mixture_loss

__all__ = [
    "Decay",
    "FlowTrainer",
    "HeldOut",
    "TrainingOptions",
    "TrainingRow",
    "balanced_rows",
    "held_out_loss",
    "rate_factor",
]

Decay = Literal["exponential", "cosine"]
EVALUATIONS, LEAST_INTERVAL = 20, 25


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of the optimiser."""

    steps: int = 2000
    """Steps of the optimiser."""
    learning_rate: float = 1e-3
    """Adam's, at the start."""
    decay: Decay = "exponential"
    """How the learning rate falls: by the same factor each step (DDFP), or along a half cosine."""
    final_rate: float = 0.01
    """Share of the learning rate that is left at the last step (DDFP: 0.01); 1 keeps it."""
    beta1: float = 0.5
    """Adam's first decay."""
    beta2: float = 0.9
    """Adam's second decay."""
    clip_norm: float = 50.0
    """Largest norm of the gradient."""
    balanced: bool = False
    """Draw labelled rows so that every class in a batch comes equally often."""
    seed: int = 0
    """Of the noise and of the balanced draw."""


def rate_factor(decay: Decay, final_rate: float, progress: float) -> float:
    """Return what the learning rate is multiplied by.

    DDFP multiplies its flow's rate by ``0.01 ** (1 / epochs)`` after each epoch; here every step
    does its part of that.

    Arguments:
        decay: ``exponential``: ``final_rate ** progress``; ``cosine``: a half cosine from 1 down.
        final_rate: factor at the last step, above 0.
        progress: 0 at the first step, 1 at the last.
    """
    if decay == "exponential":
        return float(final_rate**progress)
    return final_rate + (1 - final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class HeldOut:
    """Rows of images that are not trained on, with the noise they are judged under.

    Attributes:
        features: [N, D].
        codes: [N] int64 three-way labels.
        noise: [N, D], the same for every density that is compared.
        unit: of the noise.
    """

    features: Tensor
    codes: Tensor
    noise: Tensor
    unit: NoiseUnit

    @classmethod
    def draw(
        cls, features: Tensor, codes: Tensor, noise: float, unit: NoiseUnit, seed: int
    ) -> "HeldOut":
        """Return the rows with noise of this standard deviation, unit and seed."""
        generator = torch.Generator().manual_seed(seed)
        drawn = noise * torch.randn(features.shape, generator=generator)
        return cls(features, codes, drawn, unit)


@dataclass(frozen=True)
class TrainingRow:
    """One line of the history; losses in nats per dimension."""

    step: int
    loss: float
    held_out: float | None
    learning_rate: float


@torch.no_grad()
def held_out_loss(density: StandardisedDensity, held_out: HeldOut) -> float:
    """Return the loss on held-out rows, nats per pixel, of any density."""
    device = density.mean.device
    tiles = zip(held_out.features.split(TILE), held_out.noise.split(TILE), strict=True)
    found = []
    for features, noise in tiles:
        added = density.in_deviations(noise.to(device), held_out.unit)
        found.append(density.class_log_prob(features.to(device), added))
    log_prob = torch.cat(found)
    return float(mixture_loss(log_prob, held_out.codes.to(device)))


def balanced_rows(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many rows again, so that all labels in the batch come equally often.

    Unlabelled rows stay as they are; labelled ones are drawn with replacement.

    Arguments:
        codes: [N] int64 on the CPU.
        generator: of the CPU.

    Returns:
        [N] int64 indices.
    """
    labelled = torch.nonzero(codes >= 0).squeeze(1)
    if not len(labelled):
        return torch.arange(len(codes))
    counts = torch.bincount(codes[labelled])
    weights = counts[codes[labelled]].double().reciprocal()
    drawn = labelled[
        torch.multinomial(weights, len(labelled), replacement=True, generator=generator)
    ]
    return torch.cat([torch.nonzero(codes < 0).squeeze(1), drawn])


class FlowTrainer:
    """Train a flow step by step and keep its best held-out state.

    Arguments:
        flow: on the device to train on, with its standardisation set before the first step.
        options: of the optimiser.
        held_out: judged every ``max(25, steps / 20)`` steps and after the last; None keeps the last
            state.

    Attributes:
        history: a row of each step.
    """

    def __init__(
        self, flow: FlowDensity, options: TrainingOptions, held_out: HeldOut | None
    ) -> None:
        self.flow, self.options, self.held_out = flow, options, held_out
        self.history: list[TrainingRow] = []
        self._parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
        betas = (options.beta1, options.beta2)
        self._optimiser = torch.optim.Adam(
            self._parameters, lr=options.learning_rate, betas=betas, fused=True
        )
        self._noise = torch.Generator(flow.mean.device).manual_seed(options.seed)
        self._draw = torch.Generator().manual_seed(options.seed)
        self._interval = max(LEAST_INTERVAL, options.steps // EVALUATIONS)
        self._best_loss = math.inf
        self._best: dict[str, Tensor] = {}

    def step(self, batch: tuple[Tensor, Tensor]) -> TrainingRow:
        """Take one step of the optimiser.

        Arguments:
            batch: features [N, D], raw, any float, and their three-way labels [N] int64, on the
                CPU.

        Returns:
            The step's line of the history.

        Raises:
            UserError: loss or gradient is not finite; the flow is back at its last good state.
        """
        features, codes = batch
        number = len(self.history) + 1
        self._best = self._best or self._copy_state()
        rate = self._set_rate(number)
        if self.options.balanced:
            index = balanced_rows(codes, self._draw)
            features, codes = features[index], codes[index]
        device = self.flow.mean.device
        features, codes = features.to(device), codes.to(device)
        drawn = torch.randn(features.shape, generator=self._noise, device=device)
        own = self.flow.options
        noise = self.flow.in_deviations(own.noise * drawn, own.noise_unit)
        self._optimiser.zero_grad()
        value = float(add_gradient(self.flow, features, noise, codes))
        norm = nn.utils.clip_grad_norm_(self._parameters, self.options.clip_norm)
        if not math.isfinite(value) or not bool(norm.isfinite()):
            self.restore_best()
            raise UserError(
                f"train_flow: the loss is not finite at step {number}; lower flow.learning_rate or "
                "flow.clamp (the last good state is kept)"
            )
        self._optimiser.step()
        held_out = (
            self._judge() if number % self._interval == 0 or number == self.options.steps else None
        )
        row = TrainingRow(number, value / self.flow.dimension, held_out, rate)
        self.history.append(row)
        return row

    def restore_best(self) -> None:
        """Restore the flow's best held-out state, or the last one without held-out rows."""
        self.flow.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        return {
            "flow": self.flow.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "noise": self._noise.get_state(),
            "draw": self._draw.get_state(),
            "best_loss": self._best_loss,
            "best": self._best,
            "history": [astuple(row) for row in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.flow.load_state_dict(state["flow"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._noise.set_state(state["noise"].cpu())
        self._draw.set_state(state["draw"])
        self._best_loss, self._best = float(state["best_loss"]), dict(state["best"])
        self.history = [TrainingRow(*row) for row in state["history"]]

    def _set_rate(self, number: int) -> float:
        progress = (number - 1) / max(self.options.steps - 1, 1)
        factor = rate_factor(self.options.decay, self.options.final_rate, progress)
        rate = self.options.learning_rate * factor
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _judge(self) -> float | None:
        """Keep the state if it is the best so far; return held-out nats per dimension."""
        if self.held_out is None:
            self._best = self._copy_state()
            return None
        loss = held_out_loss(self.flow, self.held_out)
        if loss < self._best_loss:
            self._best_loss, self._best = loss, self._copy_state()
        return loss / self.flow.dimension

    def _copy_state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.flow.state_dict().items()}
