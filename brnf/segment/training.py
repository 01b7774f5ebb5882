"""Train the segmentation network on pseudo-labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from brnf.engine import distributed
from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Row, Trainer
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss

__all__ = ["SegmentationTrainer", "TrainingOptions"]


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

    def rate_share(self, done: int) -> float:
        """Return the share of the learning rate in the step that follows so many others."""
        every, beyond = self.schedule_every, self.schedule_beyond
        return polynomial(done, self.iterations, self.power, every=every, beyond=beyond)


class SegmentationTrainer(Trainer[tuple[Tensor, Tensor]]):
    """Train a segmentation network step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        options: how.
        device: where to compute.
    """

    network: DeepLab

    def __init__(self, network: DeepLab, options: TrainingOptions, device: torch.device) -> None:
        network = network.to(device).to(memory_format=torch.channels_last)
        groups = network.parameter_groups(options.learning_rate, options.weight_decay)
        optimiser = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
        descent = Descent(optimiser, options.rate_share, "lower segmentation.learning_rate")
        super().__init__(network, descent, options.iterations)
        self.options = options

    def add_gradient(self, batch: tuple[Tensor, Tensor]) -> Row:
        """Return the loss and the learning rate of the backbone's weights.

        The loss is the mean over the step's batches in nats: of each the mean cross entropy of its
        labelled pixels, or the sum of several of them with ``loss_scales``.

        Arguments:
            batch: images [A N, 3, H, W] in 0..255 and labels [A N, H, W] with 255 where ignored:
                the ``accumulate`` batches of the step, one behind the other; of several processes
                that train together each has its share of each.

        Raises:
            UserError: a batch of one image meets the head aspp.
        """
        value = 0.0
        for images, labels in self._batches(batch):
            loss = self._loss(images, labels) / self.options.accumulate
            value += distributed.mean(loss.detach()).item()
            loss.backward()
        rate = self.options.learning_rate * self.options.rate_share(len(self.history))
        return {"loss": value, "learning_rate": rate}

    def _batches(self, batch: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a step on the device."""
        size = len(batch[0]) // self.options.accumulate
        if size < 2 and self.network.options.head == "aspp":
            fault = "the head aspp needs batches of 2 images or more; raise segmentation.batch_size"
            raise UserError(f"train_segmentation: {fault}")
        for images, labels in zip(batch[0].split(size), batch[1].split(size), strict=True):
            moved = images.to(self.device, non_blocking=True)
            yield (
                moved.contiguous(memory_format=torch.channels_last),
                labels.to(self.device, non_blocking=True).long(),
            )

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        options, align = self.options, self.network.options.align_corners
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.amp):
            if options.loss_scales:
                scales = options.loss_scales
                seen = multi_scale_logits(self.network, images, scales, align_corners=align)
            else:
                logits = self.network(images)
        if options.loss_scales:
            return multi_scale_loss(seen, labels, options.balanced_loss)
        return segmentation_loss(logits, labels, options.balanced_loss, align_corners=align)
