"""Train the segmentation network on pseudo-labels."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from brnf.engine import distributed
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss

__all__ = ["SegmentationTrainer", "StepRecord", "TrainingOptions", "poly_factor", "rate_factor"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train (``docs/method.md`` section 9)."""

    iterations: int = 20000
    """Steps of the optimiser."""
    accumulate: int = 1
    """Batches of an optimiser step, whose gradients are averaged (deeplab-pytorch: 2)."""
    learning_rate: float = 1e-3
    """Of the backbone's weights at the first step; its biases learn 2, the head's weights 10, its
    biases 20 times as fast."""
    momentum: float = 0.9
    """Of the gradient descent."""
    weight_decay: float = 5e-4
    """Of all but biases."""
    power: float = 0.9
    """Of the polynomial decay of the learning rate."""
    schedule_every: int = 1
    """Steps between two changes of the learning rate (deeplab-pytorch: 10)."""
    schedule_beyond: int = 1
    """Steps after the last one at which the learning rate would be 0 (deeplab-pytorch: 0)."""
    loss_scales: tuple[float, ...] = ()
    """Further sizes at which the network sees each crop; the losses of all and of their maximum are
    added (deeplab-pytorch: 0.5, 0.75). The labels are then reduced to the logits' grids; with none
    the logits are enlarged to the labels."""
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
    """Nats, the mean over the step's batches: of each the mean cross entropy of its labelled
    pixels, or the sum of several of them with ``loss_scales``."""
    learning_rate: float
    """Of the backbone's weights in this step."""


def poly_factor(step: int, iterations: int, power: float) -> float:
    """Return the share of the learning rate of step 0, 1, ...: 1 at first, 0 at ``iterations``."""
    return (1 - step / iterations) ** power


def rate_factor(step: int, options: TrainingOptions) -> float:
    """Return the share of the learning rate that step 0, 1, ... of a training uses."""
    changed = step - step % options.schedule_every
    return poly_factor(changed, options.iterations + options.schedule_beyond, options.power)


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
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.options = options
        self.history: list[StepRecord] = []
        self._device = device
        groups = network.parameter_groups(options.learning_rate, options.weight_decay)
        self._optimiser = torch.optim.SGD(
            groups, lr=options.learning_rate, momentum=options.momentum
        )
        self._learning = [parameter for group in groups for parameter in group["params"]]
        self._schedule = LambdaLR(self._optimiser, lambda step: rate_factor(step, options))

    def step(self, batch: tuple[Tensor, Tensor]) -> StepRecord:
        """Take one step of the optimiser.

        Arguments:
            batch: images [A N, 3, H, W] in 0..255 and labels [A N, H, W] with 255 where ignored:
                the ``accumulate`` batches of the step, one behind the other; of several processes
                that train together each has its share of each.

        Raises:
            UserError: the loss is not finite, the last step breaks the weights, or a batch of one
                image meets the head aspp.
        """
        number = len(self.history) + 1
        self._optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for images, labels in self._batches(batch):
            loss = self._loss(images, labels) / self.options.accumulate
            value += distributed.mean(loss.detach()).item()
            if not math.isfinite(value):
                fault = f"the loss is {value} at step {number}; lower segmentation.learning_rate"
                raise UserError(f"train_segmentation: {fault}")
            loss.backward()
        distributed.average_gradients(self._learning)
        self._optimiser.step()
        self._schedule.step()
        if number == self.options.iterations and not self._finite():
            fault = "the last step made the weights infinite; lower segmentation.learning_rate"
            raise UserError(f"train_segmentation: {fault}")
        rate = self.options.learning_rate * rate_factor(number - 1, self.options)
        self.history.append(StepRecord(number, value, rate))
        return self.history[-1]

    def _batches(self, batch: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a step on the device."""
        size = len(batch[0]) // self.options.accumulate
        if size < 2 and self.network.options.head == "aspp":
            fault = "the head aspp needs batches of 2 images or more; raise segmentation.batch_size"
            raise UserError(f"train_segmentation: {fault}")
        for images, labels in zip(batch[0].split(size), batch[1].split(size), strict=True):
            moved = images.to(self._device, non_blocking=True)
            yield (
                moved.contiguous(memory_format=torch.channels_last),
                labels.to(self._device, non_blocking=True).long(),
            )

    def _finite(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self.network.parameters())

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        options, align = self.options, self.network.options.align_corners
        with torch.autocast(self._device.type, torch.bfloat16, enabled=options.amp):
            if options.loss_scales:
                scales = options.loss_scales
                seen = multi_scale_logits(self.network, images, scales, align_corners=align)
            else:
                logits = self.network(images)
        if options.loss_scales:
            return multi_scale_loss(seen, labels, options.balanced_loss)
        return segmentation_loss(logits, labels, options.balanced_loss, align_corners=align)

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
