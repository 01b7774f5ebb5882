"""The training loop of the CAM networks: parameter groups, schedule, clipping (`docs/method.md`
section 2, SIPE).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from brnf.cam.network import CamNetwork, CamOutput
from brnf.engine import distributed
from brnf.errors import UserError

__all__ = ["Batch", "CamTrainer", "Stateful", "TrainingOptions", "total_steps"]

POLY_POWER = 0.9


@dataclass(frozen=True)
class Batch:
    """Training images of one step.

    Attributes:
        pixels: images [N, 3, H, W] uint8, or the four outputs of a frozen backbone for them.
        labels: [N, C] float32 in {0, 1}.
        valid: [N, 1, h, w] bool on the grid, false on padding.
        seeds: base seed maps [N, K, h, w] float32, or None while the base itself is trained.
    """

    pixels: Tensor | list[Tensor]
    labels: Tensor
    valid: Tensor
    seeds: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Move everything to a device."""
        pixels = (
            self.pixels.to(device)
            if isinstance(self.pixels, Tensor)
            else [stage.to(device) for stage in self.pixels]
        )
        seeds = None if self.seeds is None else self.seeds.to(device)
        return Batch(pixels, self.labels.to(device), self.valid.to(device), seeds)

    def share(self) -> "Batch":
        """Return the images that this process sees of those that train together.

        Raises:
            UserError: the batch cannot be shared.
        """
        chosen = distributed.share(len(self.labels))
        pixels = (
            self.pixels[chosen]
            if isinstance(self.pixels, Tensor)
            else [stage[chosen] for stage in self.pixels]
        )
        return Batch(
            pixels,
            self.labels[chosen],
            self.valid[chosen],
            None if self.seeds is None else self.seeds[chosen],
        )


@dataclass(frozen=True)
class TrainingOptions:
    """The optimiser's settings.

    Attributes:
        learning_rate: of the backbone's trainable stages.
        head_learning_rate: of the new layers.
        weight_decay: of all.
        momentum: of SGD; SIPE's optimiser passes its weight decay here, hence the tiny default.
        clip_norm: largest norm of the gradient.
        amp: whether to compute the network in bfloat16.
    """

    learning_rate: float = 0.1
    head_learning_rate: float = 1.0
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    clip_norm: float = 1.0
    amp: bool = False


def total_steps(images: int, batch_size: int, epochs: int, steps: int | None) -> tuple[int, int]:
    """Return the steps of an epoch and of the whole training; ``steps`` overrules ``epochs``."""
    per_epoch = max(1, images // batch_size)
    return per_epoch, steps if steps is not None else epochs * per_epoch


class Stateful(Protocol):
    """What can give its state and take it back."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state as tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> object:
        """Take over what :meth:`state_dict` returned."""
        ...


class CamTrainer:
    """Train a CAM network step by step.

    Arguments:
        network: on the device to train on; changed in place.
        loss: from the network's output, the batch and the step's number (from 0) to named terms;
            their sum is minimised, except for terms that carry no gradient, which are only
            reported.
        steps: length of the training and of the polynomial decay of the learning rates (power 0.9).
        options: see :class:`TrainingOptions`.
        beside: what learns within ``loss`` beside the network, or None.

    Attributes:
        history: the terms of each step's loss.
    """

    def __init__(
        self,
        network: CamNetwork,
        loss: Callable[[CamOutput, Batch, int], dict[str, Tensor]],
        steps: int,
        options: TrainingOptions,
        beside: Stateful | None = None,
    ) -> None:
        self.network, self.options = network, options
        self.history: list[dict[str, float]] = []
        self._loss, self._beside = loss, beside
        groups = [
            {"params": network.backbone_parameters(), "lr": options.learning_rate},
            {"params": network.head_parameters(), "lr": options.head_learning_rate},
        ]
        self._optimiser = torch.optim.SGD(
            [group for group in groups if group["params"]],
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: max(0.0, 1 - step / max(steps, 1)) ** POLY_POWER
        )
        self._learning = [
            parameter for group in self._optimiser.param_groups for parameter in group["params"]
        ]
        network.train()

    def step(self, batch: Batch) -> dict[str, float]:
        """Take one step of the optimiser and return the terms of its loss.

        Arguments:
            batch: of several processes that train together each has its share.

        Raises:
            UserError: the loss is no longer finite; the message names the step.
        """
        number, device = len(self.history), self.network.classifier.weight.device
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.amp):
            output = (
                self.network(batch.pixels)
                if isinstance(batch.pixels, Tensor)
                else self.network.heads(batch.pixels)
            )
        terms = self._loss(output.in_float32(), batch, number)
        total = torch.stack([term for term in terms.values() if term.requires_grad]).sum()
        values = distributed.mean(torch.stack([total, *terms.values()]).detach()).tolist()
        if not math.isfinite(values[0]):
            raise UserError(
                f"training step {number}: the loss is {values[0]}; lower the learning rates"
            )
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()
        distributed.average_gradients(self._learning)
        torch.nn.utils.clip_grad_norm_(self._learning, self.options.clip_norm)
        self._optimiser.step()
        self._schedule.step()
        self.history.append(dict(zip(("loss", *terms), values, strict=True)))
        return self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "beside": None if self._beside is None else dict(self._beside.state_dict()),
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        if self._beside is not None:
            self._beside.load_state_dict(state["beside"])
        self.history = list(state["history"])
