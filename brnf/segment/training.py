"""Train the segmentation network on pseudo-labels."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from brnf import parallel
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss

__all__ = ["SegmentationTrainer", "StepRecord", "TrainingOptions", "poly_factor"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train (``method.md`` section 9)."""

    iterations: int = 20000
    """Optimiser steps."""
    learning_rate: float = 1e-3
    """Of the backbone at the first step; the head's weights learn 10, its biases 20 times as fast."""
    momentum: float = 0.9
    """Of the gradient descent."""
    weight_decay: float = 5e-4
    """Of all but the head's biases."""
    power: float = 0.9
    """Of the polynomial decay of the learning rate."""
    loss_scales: tuple[float, ...] = ()
    """Further sizes at which the network sees each crop; the losses of all and of their maximum are added (DeepLabV2: 0.5, 0.75).
    The labels are then reduced to the logits' grids; with none the logits are enlarged to the labels."""
    balanced_loss: bool = False
    """Whether background and foreground pixels make up half of the loss each."""
    amp: bool = False
    """Compute convolutions in bfloat16; weights, logits and loss stay float32."""


@dataclass(frozen=True)
class StepRecord:
    """What is known after one step; a row of ``history.csv``."""

    step: int
    """From 1."""
    loss: float
    """Of the batch, nats: the mean cross entropy of its labelled pixels, or the sum of several of them with ``loss_scales``."""
    learning_rate: float
    """Of the backbone in this step."""


def poly_factor(step: int, iterations: int, power: float) -> float:
    """Return the share of the learning rate that step 0, 1, ... of ``iterations`` uses: 1 at first, towards 0."""
    return (1 - step / iterations) ** power


class SegmentationTrainer:
    """Train a segmentation network step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        options: how.
        device: where to compute.

    Attributes:
        history: a record of each step.
    """

    def __init__(self, network: DeepLab, options: TrainingOptions, device: torch.device) -> None:
        self.network, self.options = network.to(device).to(memory_format=torch.channels_last).train(), options
        self.history: list[StepRecord] = []
        self._device = device
        groups = network.parameter_groups(options.learning_rate, options.weight_decay)
        self._optimiser = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
        self._learning = [parameter for group in groups for parameter in group["params"]]
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: poly_factor(step, options.iterations, options.power)
        )

    def step(self, batch: tuple[Tensor, Tensor]) -> StepRecord:
        """Take one step of the optimiser.

        Arguments:
            batch: images [N, 3, H, W] in 0..255 and labels [N, H, W] with 255 where ignored; of several processes that train
                together each has its share.

        Raises:
            UserError: the loss is not finite, the last step breaks the weights, or a batch of one image meets the head aspp.
        """
        if len(batch[0]) < 2 and self.network.options.head == "aspp":
            raise UserError("train_segmentation: the head aspp needs batches of 2 images or more; raise segmentation.batch_size")
        number = len(self.history) + 1
        images = batch[0].to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        labels = batch[1].to(self._device, non_blocking=True).long()
        loss = self._loss(images, labels)
        value = parallel.mean(loss.detach()).item()
        if not math.isfinite(value):
            raise UserError(f"train_segmentation: the loss is {value} at step {number}; lower segmentation.learning_rate")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average_gradients(self._learning)
        self._optimiser.step()
        self._schedule.step()
        if number == self.options.iterations and not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            raise UserError("train_segmentation: the last step made the weights infinite; lower segmentation.learning_rate")
        rate = self.options.learning_rate * poly_factor(number - 1, self.options.iterations, self.options.power)
        self.history.append(StepRecord(number, value, rate))
        return self.history[-1]

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        options = self.options
        with torch.autocast(self._device.type, torch.bfloat16, enabled=options.amp):
            if options.loss_scales:
                seen = multi_scale_logits(self.network, images, options.loss_scales)
            else:
                logits = self.network(images)
        if options.loss_scales:
            return multi_scale_loss(seen, labels, options.balanced_loss)
        return segmentation_loss(logits, labels, options.balanced_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "history": [astuple(record) for record in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.history = [StepRecord(*record) for record in state["history"]]
