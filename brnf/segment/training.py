"""Train the segmentation network on pseudo-labels."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from brnf.data.masks import IGNORE
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab

__all__ = ["StepRecord", "TrainingOptions", "poly_factor", "segmentation_loss", "train_steps"]


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


def train_steps(
    network: DeepLab, batches: Iterable[tuple[Tensor, Tensor]], options: TrainingOptions, device: torch.device
) -> Iterator[StepRecord]:
    """Train step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        batches: endless, of images [N, 3, H, W] in 0..255 and labels [N, H, W] with 255 where ignored.
        options: how.
        device: where to compute.

    Yields:
        a record after each step; exhaust the iterator to finish the training.

    Raises:
        UserError: the loss is not finite.
    """
    network.to(device).to(memory_format=torch.channels_last).train()
    groups = network.parameter_groups(options.learning_rate, options.weight_decay)
    optimiser = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: poly_factor(step, options.iterations, options.power))
    for step, (images, labels) in enumerate(islice(batches, options.iterations), 1):
        images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        labels = labels.to(device, non_blocking=True).long()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
            logits = network(images)
        loss = segmentation_loss(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"train_segmentation: the loss is {value} at step {step}; lower segmentation.learning_rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        rate = options.learning_rate * poly_factor(step - 1, options.iterations, options.power)
        schedule.step()
        if step == options.iterations and not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
            raise UserError("train_segmentation: the last step made the weights infinite; lower segmentation.learning_rate")
        yield StepRecord(step, value, rate)
