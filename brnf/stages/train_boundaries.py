"""From pseudo-labels to a network that finds class boundaries (`docs/method.md` section 8, IRN)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from brnf.backbones import build_backbone
from brnf.config.sections.cam import BackboneNetwork, BackboneOptions
from brnf.config.sections.segmentation import Augmentation, BoundaryTraining
from brnf.data.index import Index
from brnf.engine.checkpoint import Checkpoint, training_stamp
from brnf.engine.history import write_history
from brnf.engine.runtime import Runtime
from brnf.engine.schedule import total_steps
from brnf.engine.trainer import take_steps
from brnf.segment.boundaries import BoundaryNetwork, save_boundaries
from brnf.segment.boundary_training import BoundaryTrainer
from brnf.segment.dataset import SegmentationDraws, endless_batches, pair_with_masks
from brnf.stages._cli import run_stage
from brnf.store.files import locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    masks: tuple[Path, ...]
    """Folders of pseudo-labels, ``<id>.png``; together they hold every image of the split."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """The trained boundary network."""
    history: Path
    """CSV with the loss of each step."""


@dataclass(frozen=True)
class Options:
    """The network, its training images and its optimiser."""

    split: str = "train_aug"
    """The images to train on."""
    backbone: BackboneNetwork = BackboneNetwork()
    """The backbone, which stays frozen."""
    random_walk: BoundaryTraining = BoundaryTraining()
    """Training images and optimiser."""
    seed: int = 0
    """Of the branches' first weights, the order of the images and their augmentation."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train the boundary network."""
    device = runtime.torch_device()
    index = Index.of_split(inputs.index, options.split, inputs.packed)
    images = pair_with_masks(index.images, inputs.masks)
    torch.manual_seed(options.seed)
    backbone = BackboneOptions(**vars(options.backbone), trainable_stages=0)
    training = options.random_walk
    network = BoundaryNetwork(build_backbone(backbone))
    _, steps = total_steps(len(images), training.batch_size, training.epochs, training.steps)
    augment = Augmentation(
        crop=training.crop,
        scale_low=training.scale_low,
        scale_high=training.scale_high,
        hsv=0,
    )
    red, green, blue = (round(value) for value in network.backbone.mean.flatten().tolist())
    draws = SegmentationDraws(
        images,
        len(index.classes),
        steps * training.batch_size,
        augment,
        (red, green, blue),
        options.seed,
    )
    trainer = BoundaryTrainer(network, training, steps, device, len(index.classes))
    with locked(outputs.network):
        loaded = network.backbone.loaded
        stamp = training_stamp(
            "train_boundaries", options, device, index.classes, index.images, loaded, *inputs.masks
        )
        checkpoint = Checkpoint(outputs.network, stamp, device, runtime.checkpoint_seconds)
        checkpoint.restore(trainer)
        take_steps(
            "train boundaries",
            trainer,
            lambda done: endless_batches(
                draws, training.batch_size, runtime.workers, pin=device.type == "cuda", done=done
            ),
            steps,
            checkpoint,
            runtime,
        )
        write_history(outputs.history, trainer.history)
        save_boundaries(outputs.network, network, backbone)
        checkpoint.finish(trainer)


if __name__ == "__main__":
    run_stage(run)
