"""The training of the CAM networks: parameter groups and schedule (`docs/method.md` section 2,
SIPE).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.cam.batch import Batch
from brnf.cam.network import CamNetwork, CamOutput
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import Training
from brnf.engine import distributed
from brnf.engine.checkpoint import Stateful
from brnf.engine.precision import computing, needs_scaling
from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Measured, Trainer
from brnf.engine.watching import Pictures

__all__ = ["CamTrainer"]


class CamTrainer(Trainer[Batch]):
    """Train a CAM network step by step.

    Arguments:
        network: on the device to train on; changed in place.
        loss: from the network's output, the batch and the step's number (from 0) to named terms;
            their sum is minimised, except for terms that carry no gradient, which are only
            reported.
        steps: length of the training and of the polynomial decay of the learning rates.
        options: the optimiser's settings.
        precision: in which the network computes.
        beside: what learns within ``loss`` beside the network, or None.
    """

    network: CamNetwork

    def __init__(
        self,
        network: CamNetwork,
        loss: Callable[[CamOutput, Batch, int], dict[str, Tensor]],
        steps: int,
        options: Training,
        beside: Stateful | None = None,
        *,
        precision: Precision = "fp32",
    ) -> None:
        groups = [
            {"params": network.backbone_parameters(), "lr": options.learning_rate},
            {"params": network.head_parameters(), "lr": options.head_learning_rate},
        ]
        optimiser = torch.optim.SGD(
            [group for group in groups if group["params"]],
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=network.classifier.weight.device.type != "cpu",
        )
        descent = Descent(
            optimiser,
            lambda step: polynomial(step, steps),
            "lower the learning rates",
            clip_norm=options.clip_norm,
            scales=needs_scaling(precision),
            averages=False,
        )
        super().__init__(network, descent, steps)
        self._loss, self._beside, self._precision = loss, beside, precision
        self._step_loss = distributed.overlapping(network, self._sum_and_terms)

    def add_gradient(self, batch: Batch) -> Measured:
        """Return the loss, the sum of its terms, and the terms.

        Arguments:
            batch: of several processes that train together each has its share.
        """
        total, terms = self._step_loss(batch.to(self.device))
        values = distributed.mean(torch.stack([total, *terms.values()]).detach())
        self.descent.scaled(total).backward()
        return dict(zip(("loss", *terms), values.unbind(), strict=True))

    def _sum_and_terms(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with computing(self._precision, self.device):
            output = (
                self.network(batch.pixels)
                if isinstance(batch.pixels, Tensor)
                else self.network.heads(batch.pixels)
            )
        terms = self._loss(output.in_float32(), batch, len(self.history))
        return torch.stack([term for term in terms.values() if term.requires_grad]).sum(), terms

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Pictures:
        """Return the classifier's map of the first image's first class, white where it is highest,
        behind the image unless only a frozen backbone's features of that are there.
        """
        named = batch.labels[0].nonzero().flatten()
        if not len(named):
            return {}
        image = batch.pixels[:1] if isinstance(batch.pixels, Tensor) else None
        self.network.eval()
        if image is None:
            output = self.network.heads([stage[:1].to(self.device) for stage in batch.pixels])
        else:
            output = self.network(image.to(self.device))
        self.network.train()
        logits = output.logits[:, named[:1]].float().relu().cpu()
        size = logits.shape[2:] if image is None else image.shape[2:]
        scaled = F.interpolate(logits / logits.amax().clamp(min=1e-6), size, mode="bilinear")
        gray = (255 * scaled[0, 0]).to(torch.uint8).numpy()
        shown = [np.repeat(gray[..., np.newaxis], 3, axis=2)]
        if image is not None:
            shown.insert(0, image[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy())
        return {"image, classifier CAM": np.concatenate(shown, axis=1)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        beside = None if self._beside is None else dict(self._beside.state_dict())
        return {**super().state_dict(), "beside": beside}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        if self._beside is not None:
            self._beside.load_state_dict(state["beside"])
