"""Train the boundary network on pairs of labelled pixels (`docs/method.md` section 8, IRN)."""

import torch
from torch import Tensor

from brnf.config.sections.segmentation import BoundaryTraining
from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Measured, Trainer
from brnf.segment.boundaries import BoundaryNetwork, labels_on_grid
from brnf.segment.random_walk import affinity_loss
from brnf.store.label_type import MOST_IN_A_BYTE

__all__ = ["BoundaryTrainer"]


class BoundaryTrainer(Trainer[tuple[Tensor, Tensor]]):
    """Train a boundary network step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        options: how.
        steps: length of the training.
        device: where to compute.
        classes: C, whose number says which label is ignored.
    """

    network: BoundaryNetwork

    def __init__(
        self,
        network: BoundaryNetwork,
        options: BoundaryTraining,
        steps: int,
        device: torch.device,
        classes: int = MOST_IN_A_BYTE,
    ) -> None:
        optimiser = torch.optim.SGD(
            network.to(device).head_parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=device.type != "cpu",
        )
        descent = Descent(
            optimiser, lambda step: polynomial(step, steps), "lower random_walk.learning_rate"
        )
        super().__init__(network, descent, steps)
        self.options, self._classes = options, classes

    def add_gradient(self, batch: tuple[Tensor, Tensor]) -> Measured:
        """Return the loss.

        Arguments:
            batch: images [N, 3, H, W] in 0..255 and labels [N, H, W].
        """
        logits = self.network(batch[0].to(self.device))
        labels = labels_on_grid(batch[1].to(self.device), logits.shape[1:])
        radius = self.options.training_radius
        loss = affinity_loss(logits.sigmoid(), labels, radius, self._classes)
        loss.backward()
        return {"loss": loss}
