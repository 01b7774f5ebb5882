"""Training of the base CAM network, SIPE or SFC (`docs/method.md` sections 2 and 3)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from brnf.base.sfc import (
    ImageBank,
    SfcObjective,
    bank_draws,
    distribution_weights,
    halved,
)
from brnf.cam.batch import Batch
from brnf.cam.classifier_fit import fit_classifier
from brnf.cam.crops import TrainingSource
from brnf.cam.network import CamNetwork, CamOutput, new_cam_network, save_cam_network
from brnf.cam.objective import base_loss
from brnf.cam.training import CamTrainer
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import BackboneOptions, BaseTraining, CamTraining
from brnf.data.index import ImageRecord, Index
from brnf.engine import distributed
from brnf.engine.checkpoint import Checkpoint, only_training, training_device, training_stamp
from brnf.engine.history import write_history
from brnf.engine.precision import computing
from brnf.engine.runtime import Runtime
from brnf.engine.schedule import total_steps
from brnf.engine.trainer import take_steps
from brnf.errors import UserError
from brnf.stages._cli import run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """Trained CAM network."""
    history: Path
    """CSV with the loss of each step."""


@dataclass(frozen=True)
class Options:
    """The network, its training images and its optimiser (`docs/method.md` section 2)."""

    split: str = "train_aug"
    """Split to train on."""
    method: Literal["sipe", "sfc"] = "sipe"
    """What it is trained as; base maps that come from elsewhere need its features only, of a sipe.
    """
    backbone: BackboneOptions = BackboneOptions()
    """The backbone and its weights."""
    cam: CamTraining = CamTraining()
    """Side convolutions, and how maps are made in training."""
    base: BaseTraining = BaseTraining()
    """Training images, optimiser, and SFC's own settings."""
    precision: Precision = "fp32"
    """In which the network computes; losses stay in float32."""
    seed: int = 0
    """Of new layers, data order and everything random."""


Loss = Callable[[CamOutput, Batch, int], dict[str, Tensor]]


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train the base CAM network."""
    index = Index.of_split(inputs.index, options.split, inputs.packed)
    sfc, base = options.method == "sfc", options.base
    batch = min(base.batch_size, len(index.images)) + (base.sfc.drawn if sfc else 0)
    device = training_device(runtime, options.precision, batch)
    if sfc and options.base.cache:
        raise UserError(
            "base.cache: sfc sees random crops at two scales, which cannot be cached; set it to "
            "false"
        )
    network = new_cam_network(
        options.backbone, options.cam, len(index.classes), device, options.seed, affinity=sfc
    )
    per_epoch, steps = total_steps(len(index.images), base.batch_size, base.epochs, base.steps)
    loss = (
        _sfc_loss(options, network, class_counts(index.images, len(index.classes)), per_epoch)
        if sfc
        else _sipe_loss(options)
    )
    bank = ImageBank(len(index.classes), base.sfc.drawn, options.seed) if sfc else None
    with (
        only_training(outputs.network),
        TrainingSource(
            network, index, None, base, options.seed, outputs.network.parent, device, runtime
        ) as source,
    ):
        trainer = CamTrainer(network, loss, steps, base, bank, precision=options.precision)
        stamp = training_stamp(
            "train_base", options, device, index.classes, index.images, network.backbone.loaded
        )
        checkpoint = Checkpoint(outputs.network, stamp, device, runtime.checkpoint_seconds)

        def batches(done: int) -> Iterator[Batch]:
            if bank is None:
                return source.batches(steps, done)
            whole = source.batches(steps, done, whole=True)
            return (batch.share() for batch in bank.join(whole, done))

        if not checkpoint.restore(trainer) and base.fit_classifier:
            fit_classifier(network, source, base.classifier_weight_decay)
        take_steps("train base", trainer, batches, steps, checkpoint, runtime)
        if distributed.is_first():
            write_history(outputs.history, trainer.history)
            save_cam_network(outputs.network, network, options.backbone, index.classes)
        checkpoint.finish(trainer)


def _sipe_loss(options: Options) -> Loss:
    rules = options.cam
    return lambda output, batch, step: base_loss(output, batch.labels, batch.valid, rules)


def _sfc_loss(options: Options, network: CamNetwork, counts: Tensor, per_epoch: int) -> Loss:
    """Return SFC's loss, which sends the batch through the network once more at half its size."""
    device = network.classifier.weight.device
    weights = distribution_weights(
        counts, bank_draws(per_epoch, options.base.sfc.drawn, len(counts))
    ).to(device)
    objective = SfcObjective(options.base.sfc, options.cam, weights)

    def loss(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
        assert isinstance(batch.pixels, Tensor)
        with computing(options.precision, device):
            half = network(halved(batch.pixels))
        return objective(output, half.in_float32(), batch.labels, batch.valid)

    return loss


def class_counts(records: Sequence[ImageRecord], classes: int) -> Tensor:
    """Return how many images show each class, [C]."""
    counts = torch.zeros(classes)
    for record in records:
        counts[[label - 1 for label in record.labels]] += 1
    return counts


if __name__ == "__main__":
    run_stage(run)
