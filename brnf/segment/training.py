"""Train the segmentation network on pseudo-labels."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from brnf.data.masks import IGNORE
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab

__all__ = ["SegmentationTrainer", "StepRecord", "TrainingOptions", "poly_factor", "segmentation_loss"]


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
    amp: bool = False
    """Compute convolutions in bfloat16; weights, logits and loss stay float32."""


@dataclass(frozen=True)
class StepRecord:
    """What is known after one step; a row of ``history.csv``."""

    step: int
    """From 1."""
    loss: float
    """Mean cross entropy of the batch's labelled pixels, nats."""
    learning_rate: float
    """Of the backbone in this step."""


def poly_factor(step: int, iterations: int, power: float) -> float:
    """Return the share of the learning rate that step 0, 1, ... of ``iterations`` uses: 1 at first, towards 0."""
    return (1 - step / iterations) ** power


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy over the labelled pixels.

    Arguments:
        logits: [N, K, h, w], enlarged bilinearly to the labels' size.
        labels: [N, H, W] int64, 255 where ignored.

    Returns:
        scalar float32; 0, with zero gradients, when no pixel is labelled.
    """
    logits = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


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
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: poly_factor(step, options.iterations, options.power)
        )

    def step(self, batch: tuple[Tensor, Tensor]) -> StepRecord:
        """Take one step of the optimiser.

        Arguments:
            batch: images [N, 3, H, W] in 0..255 and labels [N, H, W] with 255 where ignored.

        Raises:
            UserError: the loss is not finite, or the last step breaks the weights.
        """
        number = len(self.history) + 1
        images = batch[0].to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        labels = batch[1].to(self._device, non_blocking=True).long()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.options.amp):
            logits = self.network(images)
        loss = segmentation_loss(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"train_segmentation: the loss is {value} at step {number}; lower segmentation.learning_rate")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self._schedule.step()
        if number == self.options.iterations and not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            raise UserError("train_segmentation: the last step made the weights infinite; lower segmentation.learning_rate")
        rate = self.options.learning_rate * poly_factor(number - 1, self.options.iterations, self.options.power)
        self.history.append(StepRecord(number, value, rate))
        return self.history[-1]

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
