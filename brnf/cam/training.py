"""The training loop of the CAM networks: parameter groups, schedule, clipping (`method.md` section 2, SIPE)."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from brnf.cam.network import CamNetwork, CamOutput
from brnf.errors import UserError

__all__ = ["Batch", "TrainingOptions", "fit", "total_steps"]

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
        pixels = self.pixels.to(device) if isinstance(self.pixels, Tensor) else [stage.to(device) for stage in self.pixels]
        seeds = None if self.seeds is None else self.seeds.to(device)
        return Batch(pixels, self.labels.to(device), self.valid.to(device), seeds)


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


def fit(
    network: CamNetwork,
    batches: Iterable[Batch],
    loss: Callable[[CamOutput, Batch, int], dict[str, Tensor]],
    steps: int,
    options: TrainingOptions,
    device: torch.device,
) -> Iterator[dict[str, float]]:
    """Train a CAM network and yield each step's terms of the loss.

    Arguments:
        network: on ``device``; changed in place.
        batches: at least ``steps`` of them.
        loss: from the network's output, the batch and the step's number to named terms; their sum is minimised,
            except for terms that carry no gradient, which are only reported.
        steps: length of the training and of the polynomial decay of the learning rates (power 0.9).
        options: see :class:`TrainingOptions`.
        device: where to compute.

    Raises:
        UserError: the loss is no longer finite; the message names the step.
    """
    groups = [
        {"params": network.backbone_parameters(), "lr": options.learning_rate},
        {"params": network.head_parameters(), "lr": options.head_learning_rate},
    ]
    optimiser = torch.optim.SGD(
        [group for group in groups if group["params"]], momentum=options.momentum, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / max(steps, 1)) ** POLY_POWER)
    learning = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    network.train()
    for step, batch in zip(range(steps), batches, strict=False):
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
            output = network(batch.pixels) if isinstance(batch.pixels, Tensor) else network.heads(batch.pixels)
        terms = loss(CamOutput(output.logits.float(), output.features.float(), output.semantic.float()), batch, step)
        total = torch.stack([term for term in terms.values() if term.requires_grad]).sum()
        if not math.isfinite(total.item()):
            raise UserError(f"training step {step}: the loss is {total.item()}; lower the learning rates")
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(learning, options.clip_norm)
        optimiser.step()
        schedule.step()
        yield {"loss": total.item(), **{name: term.item() for name, term in terms.items()}}
