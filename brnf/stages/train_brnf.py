"""Training of the BRNF network: guidance, CCNF and FSCL with an online flow (`docs/method.md`
section 7).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from brnf.cam.batch import Batch
from brnf.cam.classifier_fit import fit_classifier
from brnf.cam.contrast import ContrastBank
from brnf.cam.crops import TrainingSource
from brnf.cam.network import CamOutput, load_cam_network, new_cam_network, save_cam_network
from brnf.cam.objective import BrnfObjective
from brnf.cam.training import CamTrainer
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import BackboneOptions, BrnfTraining, CamTraining
from brnf.config.sections.flow import FlowInTraining
from brnf.data.index import Index
from brnf.engine import distributed
from brnf.engine.checkpoint import Checkpoint, only_training, training_device, training_stamp
from brnf.engine.history import write_history
from brnf.engine.runtime import Runtime
from brnf.engine.schedule import total_steps
from brnf.engine.trainer import take_steps
from brnf.flow.online import OnlineFlow
from brnf.stages._cli import run_stage
from brnf.store.maps import MapReader


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    base: Path
    """Trained base network; its weights are used with `--init base`."""
    seeds: tuple[Path, ...]
    """Base seed maps of the training split, refined by BSDNF or raw."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """Trained BRNF network."""
    history: Path
    """CSV with the terms of the loss of each step."""


@dataclass(frozen=True)
class Options:
    """The network, its loss, its online flow and its training (`docs/method.md` section 7)."""

    split: str = "train_aug"
    """Split to train on."""
    seed_product: Literal["seeds", "classifier", "prototype"] = "seeds"
    """Which maps of the seed files are the base seeds."""
    backbone: BackboneOptions = BackboneOptions()
    """The backbone and its weights."""
    cam: CamTraining = CamTraining()
    """Side convolutions, and how maps are made in training."""
    brnf: BrnfTraining = BrnfTraining()
    """Training images, optimiser, loss, bank and use of the flow."""
    flow: FlowInTraining = FlowInTraining()
    """The online flow."""
    precision: Precision = "fp32"
    """In which the network computes; losses and flow stay in float32."""
    seed: int = 0
    """Of new layers, data order and everything random."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train the BRNF network."""
    index = Index.of_split(inputs.index, options.split, inputs.packed)
    brnf, classes = options.brnf, len(index.classes)
    most = min(brnf.batch_size, len(index.images))
    device = training_device(runtime, options.precision, most)
    seeds = MapReader(inputs.seeds, options.seed_product)
    network = new_cam_network(options.backbone, options.cam, classes, device, options.seed)
    if brnf.init == "base":
        network = load_cam_network(inputs.base, device, index.classes)
        network.affinity = None  # BRNF's maps are not propagated, whatever the base is
    per_epoch, steps = total_steps(len(index.images), brnf.batch_size, brnf.epochs, brnf.steps)
    objective = build_objective(options, network.dimension, classes + 1, steps, device)

    def loss(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
        assert batch.seeds is not None
        use_flow = (
            objective.flow is not None
            and step >= per_epoch
            and objective.flow.ready(brnf.online_warmup)
        )
        return objective(output, batch.labels, batch.valid, batch.seeds, use_flow, batch.places)

    with (
        only_training(outputs.network),
        TrainingSource(
            network, index, seeds, brnf, options.seed, outputs.network.parent, device, runtime
        ) as source,
    ):
        trainer = CamTrainer(network, loss, steps, brnf, objective, precision=options.precision)
        loaded = network.backbone.loaded
        stamp = training_stamp(
            "train_brnf",
            options,
            device,
            index.classes,
            index.images,
            loaded,
            inputs.base,
            *inputs.seeds,
        )
        checkpoint = Checkpoint(outputs.network, stamp, device, runtime.checkpoint_seconds)
        # The trained base brings a classifier of its own.
        fits = brnf.fit_classifier and brnf.init == "imagenet"
        if not checkpoint.restore(trainer) and fits:
            fit_classifier(network, source, brnf.classifier_weight_decay)
        batches = partial(source.batches, steps)
        take_steps("train BRNF", trainer, batches, steps, checkpoint, runtime)
        if distributed.is_first():
            write_history(outputs.history, trainer.history)
            save_cam_network(outputs.network, network, options.backbone, index.classes)
        checkpoint.finish(trainer)


def build_objective(
    options: Options, dimension: int, classes: int, steps: int, device: torch.device
) -> BrnfObjective:
    """Return the loss with the online flow and the bank it needs.

    Arguments:
        options: of the stage.
        dimension: D of the pixel features.
        classes: K with the background.
        steps: of the training: the online flow's learning rate falls over them.
        device: where the flow learns.
    """
    brnf = options.brnf
    flow = bank = None
    if brnf.ccnf or brnf.fscl:
        flow = OnlineFlow(
            dimension,
            classes,
            options.flow,
            brnf,
            updates=steps,
            seed=options.seed,
            device=device,
        )
    if brnf.fscl:
        bank = ContrastBank(classes, dimension, brnf.bank_region, brnf.bank_sampled).to(device)
    return BrnfObjective(brnf, options.cam, flow, bank, fixed_shapes=device.type != "cpu")


if __name__ == "__main__":
    run_stage(run)
