"""Train the boundary network on pairs of labelled pixels (`docs/method.md` section 8, IRN)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Row, Trainer
from brnf.segment.boundaries import BoundaryNetwork, labels_on_grid
from brnf.segment.random_walk import affinity_loss

__all__ = ["BoundaryOptions", "BoundaryTrainer"]


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


class BoundaryTrainer(Trainer[tuple[Tensor, Tensor]]):
    """Train a boundary network step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        options: how.
        steps: length of the training.
        device: where to compute.
    """

    network: BoundaryNetwork

    def __init__(
        self, network: BoundaryNetwork, options: BoundaryOptions, steps: int, device: torch.device
    ) -> None:
        optimiser = torch.optim.SGD(
            network.to(device).head_parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        descent = Descent(
            optimiser, lambda step: polynomial(step, steps), "lower random_walk.learning_rate"
        )
        super().__init__(network, descent, steps)
        self.options = options

    def add_gradient(self, batch: tuple[Tensor, Tensor]) -> Row:
        """Return the loss.

        Arguments:
            batch: images [N, 3, H, W] in 0..255 and labels [N, H, W] with 255 where ignored.
        """
        logits = self.network(batch[0].to(self.device))
        labels = labels_on_grid(batch[1].to(self.device), logits.shape[1:])
        loss = affinity_loss(logits.sigmoid(), labels, self.options.training_radius)
        loss.backward()
        return {"loss": loss.item()}
