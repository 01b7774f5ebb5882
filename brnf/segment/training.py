"""Train the segmentation network on pseudo-labels."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from brnf.config.sections.segmentation import SegmentationOptimiser
from brnf.engine import distributed
from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Row, Trainer
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss

__all__ = ["SegmentationTrainer", "rate_share"]


def rate_share(options: SegmentationOptimiser, done: int) -> float:
    """Return the share of the learning rate in the step that follows so many others."""
    every, beyond = options.schedule_every, options.schedule_beyond
    return polynomial(done, options.iterations, options.power, every=every, beyond=beyond)


class SegmentationTrainer(Trainer[tuple[Tensor, Tensor]]):
    """Train a segmentation network step by step.

    Arguments:
        network: trained in place; moved to ``device``.
        options: how.
        device: where to compute.
        amp: whether to compute convolutions in bfloat16; weights, logits and loss stay float32.
    """

    network: DeepLab

    def __init__(
        self,
        network: DeepLab,
        options: SegmentationOptimiser,
        device: torch.device,
        *,
        amp: bool = False,
    ) -> None:
        self.options = options
        network = network.to(device).to(memory_format=torch.channels_last)
        groups = network.parameter_groups(options.learning_rate, options.weight_decay)
        optimiser = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
        descent = Descent(
            optimiser, partial(rate_share, options), "lower segmentation.learning_rate"
        )
        super().__init__(network, descent, options.iterations)
        self._amp = amp

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
        rate = self.options.learning_rate * rate_share(self.options, len(self.history))
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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            if options.loss_scales:
                scales = options.loss_scales
                seen = multi_scale_logits(self.network, images, scales, align_corners=align)
            else:
                logits = self.network(images)
        if options.loss_scales:
            return multi_scale_loss(seen, labels, options.balanced_loss)
        return segmentation_loss(logits, labels, options.balanced_loss, align_corners=align)
