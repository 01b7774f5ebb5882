"""Train the boundary network on pairs of labelled pixels (`docs/method.md` section 8, IRN)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brnf.errors import UserError
from brnf.segment.boundaries import BoundaryNetwork, labels_on_grid
from brnf.segment.random_walk import affinity_loss
from brnf.segment.training import poly_factor

__all__ = ["BoundaryOptions", "BoundaryTrainer"]

POLY_POWER = 0.9


@dataclass(frozen=True)
class BoundaryOptions:
    """How to train, by IRN's code."""

    training_radius: int = 10
    """Pairs of pixels that are nearer than this on the grid of stride 4 are compared."""
    learning_rate: float = 0.1
    """Of the branches at the first step."""
    momentum: float = 1e-4
    """Of SGD; IRN, like SIPE, passes its weight decay here."""
    weight_decay: float = 1e-4
    """Of the branches."""


class BoundaryTrainer:
    """Train a boundary network step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        options: how.
        steps: length of the training.
        device: where to compute.

    Attributes:
        history: the loss of each step.
    """

    def __init__(
        self, network: BoundaryNetwork, options: BoundaryOptions, steps: int, device: torch.device
    ) -> None:
        self.network, self.options = network.to(device).train(), options
        self.history: list[dict[str, float]] = []
        self._device = device
        self._optimiser = torch.optim.SGD(
            network.head_parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: poly_factor(step, max(steps, 1), POLY_POWER)
        )

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Take one step of the optimiser.

        Arguments:
            batch: images [N, 3, H, W] in 0..255 and labels [N, H, W] with 255 where ignored.

        Raises:
            UserError: the loss is not finite.
        """
        logits = self.network(batch[0].to(self._device))
        labels = labels_on_grid(batch[1].to(self._device), logits.shape[1:])
        loss = affinity_loss(logits.sigmoid(), labels, self.options.training_radius)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"train_boundaries: the loss is {value} at step {len(self.history) + 1}; lower "
                "random_walk.learning_rate"
            )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self._schedule.step()
        self.history.append({"loss": value})
        return self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.history = list(state["history"])
