"""Train the segmentation network on pseudo-labels."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.config.sections.bounds import Precision
from brnf.config.sections.segmentation import SegmentationOptimiser
from brnf.data.masks import colour_map
from brnf.engine import distributed
from brnf.engine.precision import computing, needs_scaling
from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Measured, Trainer
from brnf.engine.watching import Pictures
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss
from brnf.store.label_type import ignored_value

__all__ = ["LEAST_IMAGES", "SegmentationTrainer", "rate_share"]

LEAST_IMAGES = 2
"""Of a process that trains the head aspp_concat, whose BatchNorm sees one mean an image."""


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
        precision: in which the network computes; weights, logits and loss stay float32.
    """

    network: DeepLab

    def __init__(
        self,
        network: DeepLab,
        options: SegmentationOptimiser,
        device: torch.device,
        *,
        precision: Precision = "fp32",
    ) -> None:
        self.options = options
        network = network.to(device).to(memory_format=torch.channels_last)
        groups = network.parameter_groups(options.learning_rate, options.weight_decay)
        optimiser = torch.optim.SGD(
            groups,
            lr=options.learning_rate,
            momentum=options.momentum,
            fused=device.type != "cpu",
        )
        descent = Descent(
            optimiser,
            partial(rate_share, options),
            "lower segmentation.learning_rate",
            scales=needs_scaling(precision),
            averages=False,
        )
        super().__init__(network, descent, options.iterations)
        self._precision = precision
        self._batch_loss = distributed.overlapping(network, self._loss)

    def add_gradient(self, batch: tuple[Tensor, Tensor]) -> Measured:
        """Return the loss and the learning rate of the backbone's weights.

        The loss is the mean over the step's batches in nats: of each the mean cross entropy of its
        labelled pixels, or the sum of several of them with ``loss_scales``.

        Arguments:
            batch: images [A N, 3, H, W] in 0..255 and labels [A N, H, W]:
                the ``accumulate`` batches of the step, one behind the other; of several processes
                that train together each has its share of each.

        Raises:
            UserError: a batch of one image meets the head aspp_concat.
        """
        value = torch.zeros((), dtype=torch.float64, device=self.device)
        batches = self.options.accumulate
        for number, (images, labels) in enumerate(self._batches(batch), 1):
            with distributed.without_exchange(self._batch_loss, number < batches):
                loss = self._batch_loss(images, labels) / batches
                value += distributed.mean(loss.detach())
                self.descent.scaled(loss).backward()
        rate = self.options.learning_rate * rate_share(self.options, len(self.history))
        return {"loss": value, "learning_rate": rate}

    @torch.no_grad()
    def pictures(self, batch: tuple[Tensor, Tensor]) -> Pictures:
        """Return the first image beside its labels and its prediction, in VOC's colours."""
        images, labels = batch[0][:1], batch[1][0]
        self.network.eval()
        logits = self.network(images.to(self.device)).float()
        self.network.train()
        align = self.network.options.align_corners
        size = images.shape[2:]
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=align)
        colours = colour_map(1 + ignored_value(logits.shape[1] - 1))
        seen = images[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()
        maps = (labels, logits[0].argmax(0).cpu())
        return {
            "image, labels, prediction": np.concatenate(
                [seen, *(colours[one.numpy()] for one in maps)], axis=1
            )
        }

    def _batches(self, batch: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a step on the device."""
        size = len(batch[0]) // self.options.accumulate
        if size < LEAST_IMAGES and self.network.options.head == "aspp_concat":
            fault = "the head aspp_concat needs batches of 2 images or more"
            raise UserError(f"train_segmentation: {fault}; raise segmentation.batch_size")
        for images, labels in zip(batch[0].split(size), batch[1].split(size), strict=True):
            moved = images.to(self.device, non_blocking=True)
            yield (
                moved.contiguous(memory_format=torch.channels_last),
                labels.to(self.device, non_blocking=True).long(),
            )

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        options, align = self.options, self.network.options.align_corners
        with computing(self._precision, self.device):
            if options.loss_scales:
                scales = options.loss_scales
                seen = multi_scale_logits(self.network, images, scales, align_corners=align)
            else:
                logits = self.network(images)
        if options.loss_scales:
            return multi_scale_loss(seen, labels, options.balanced_loss)
        return segmentation_loss(logits, labels, options.balanced_loss, align_corners=align)
