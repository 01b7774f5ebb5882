"""The training of the CAM networks: parameter groups and schedule (`docs/method.md` section 2,
SIPE).
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brnf.cam.batch import Batch
from brnf.cam.classifier_fit import fit_classifier
from brnf.cam.crops import TrainingSource
from brnf.cam.network import CamNetwork, CamOutput, save_cam_network
from brnf.config.sections.cam import BackboneOptions, Training
from brnf.engine import distributed
from brnf.engine.checkpoint import Checkpoint, Stateful
from brnf.engine.history import write_history
from brnf.engine.runtime import Runtime
from brnf.engine.schedule import polynomial
from brnf.engine.trainer import Descent, Row, Trainer, take_steps

__all__ = ["CamTrainer", "train_and_save"]


class CamTrainer(Trainer[Batch]):
    """Train a CAM network step by step.

    Arguments:
        network: on the device to train on; changed in place.
        loss: from the network's output, the batch and the step's number (from 0) to named terms;
            their sum is minimised, except for terms that carry no gradient, which are only
            reported.
        steps: length of the training and of the polynomial decay of the learning rates.
        options: the optimiser's settings.
        amp: whether to compute the network in bfloat16.
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
        amp: bool = False,
    ) -> None:
        groups = [
            {"params": network.backbone_parameters(), "lr": options.learning_rate},
            {"params": network.head_parameters(), "lr": options.head_learning_rate},
        ]
        optimiser = torch.optim.SGD(
            [group for group in groups if group["params"]],
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        descent = Descent(
            optimiser,
            lambda step: polynomial(step, steps),
            "lower the learning rates",
            clip_norm=options.clip_norm,
        )
        super().__init__(network, descent, steps)
        self._loss, self._beside, self._amp = loss, beside, amp

    def add_gradient(self, batch: Batch) -> Row:
        """Return the loss, the sum of its terms, and the terms.

        Arguments:
            batch: of several processes that train together each has its share.
        """
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            output = (
                self.network(batch.pixels)
                if isinstance(batch.pixels, Tensor)
                else self.network.heads(batch.pixels)
            )
        terms = self._loss(output.in_float32(), batch, len(self.history))
        total = torch.stack([term for term in terms.values() if term.requires_grad]).sum()
        values = distributed.mean(torch.stack([total, *terms.values()]).detach()).tolist()
        total.backward()
        return dict(zip(("loss", *terms), values, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to go on as if it had not stopped."""
        beside = None if self._beside is None else dict(self._beside.state_dict())
        return {**super().state_dict(), "beside": beside}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        if self._beside is not None:
            self._beside.load_state_dict(state["beside"])


def train_and_save(
    name: str,
    trainer: CamTrainer,
    source: TrainingSource,
    batches: Callable[[int], Iterable[Batch]],
    checkpoint: Checkpoint,
    backbone: BackboneOptions,
    penalty: float | None,
    classes: tuple[str, ...],
    outputs: tuple[Path, Path],
    runtime: Runtime,
) -> None:
    """Train a network to the end, from a checkpoint if there is one, and write it with its history.

    Arguments:
        name: shown with the progress.
        trainer: new.
        source: of the images that the classifier is fitted to.
        batches: from the number of batches to leave out at the start to those that follow.
        checkpoint: of this training.
        backbone: stored with the network.
        penalty: weight decay of the fit of the classifier before the training; None: no fit.
        classes: names of the foreground classes, stored with the network.
        outputs: the network and its history.
        runtime: progress.
    """
    if not checkpoint.restore(trainer) and penalty is not None:
        fit_classifier(trainer.network, source, penalty)
    take_steps(name, trainer, batches, trainer.steps, checkpoint, runtime)
    if distributed.is_first():
        write_history(outputs[1], trainer.history)
        save_cam_network(outputs[0], trainer.network, backbone, classes)
    checkpoint.finish(trainer)
