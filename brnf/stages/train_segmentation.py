"""From pseudo-labels to the segmentation network."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from brnf.config.sections.bounds import Precision
from brnf.config.sections.segmentation import SegmentationTraining
from brnf.data.index import Index
from brnf.engine import distributed
from brnf.engine.checkpoint import (
    Checkpoint,
    only_training,
    training_device,
    training_stamp,
)
from brnf.engine.history import write_history
from brnf.engine.runtime import Runtime
from brnf.engine.schedule import fewest_steps
from brnf.engine.trainer import take_steps
from brnf.segment.dataset import SegmentationDraws, endless_batches, pair_with_masks
from brnf.segment.deeplab import DeepLab, build_deeplab, save_deeplab
from brnf.segment.training import LEAST_IMAGES, SegmentationTrainer
from brnf.stages._cli import run_stage

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    masks: tuple[Path, ...]
    """Folders of pseudo-labels, ``<id>.png``, or of true masks."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """The trained network with its options and classes."""
    history: Path
    """CSV, a row each step: step, loss, learning_rate."""


@dataclass(frozen=True)
class Options:
    """How to train (``docs/method.md`` section 9)."""

    split: str = "train_aug"
    """The images to train on."""
    all_masked: bool = True
    """Whether every image of the split must have a mask, as a pseudo-label; else those without are
    left out.
    """
    segmentation: SegmentationTraining = SegmentationTraining()
    """Network, augmentation and optimiser."""
    precision: Precision = "fp32"
    """In which the network computes; weights, logits and loss stay float32."""
    seed: int = 0
    """Of the head's first weights, the order of the images and their augmentation."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train DeepLabV2 on pseudo-labels, or on true masks."""
    least = LEAST_IMAGES if options.segmentation.head == "aspp_concat" else 1
    most = options.segmentation.batch_size // least
    device = training_device(runtime, options.precision, most)
    with only_training(outputs.network):
        index = Index.of_split(inputs.index, options.split, inputs.packed)
        images = pair_with_masks(index.images, inputs.masks, options.all_masked)
        how = _within_epochs(options.segmentation, len(index.images))
        torch.manual_seed(options.seed)
        network = build_deeplab(how, len(index.classes) + 1)
        draws = SegmentationDraws(
            images,
            classes=len(index.classes),
            draws=how.iterations * how.accumulate * how.batch_size,
            options=how,
            fill=_mean_colour(network),
            seed=options.seed,
        )
        trainer = SegmentationTrainer(network, how, device, precision=options.precision)
        loaded = network.backbone.loaded
        stamp = training_stamp(
            "train_segmentation",
            options,
            device,
            index.classes,
            index.images,
            loaded,
            *inputs.masks,
        )
        checkpoint = Checkpoint(outputs.network, stamp, device, runtime.checkpoint_seconds)
        checkpoint.restore(trainer)
        take_steps(
            "train segmentation",
            trainer,
            lambda done: endless_batches(
                draws,
                how.batch_size,
                runtime.workers,
                accumulate=how.accumulate,
                pin=device.type == "cuda",
                done=done,
            ),
            how.iterations,
            checkpoint,
            runtime,
        )
        if distributed.is_first():
            write_history(outputs.history, trainer.history)
            save_deeplab(outputs.network, network, index.classes)
        checkpoint.finish(trainer)


def _within_epochs(how: SegmentationTraining, images: int) -> SegmentationTraining:
    """Return the options with no more iterations than ``epochs`` over the images take."""
    batch = how.batch_size * how.accumulate
    return replace(how, iterations=fewest_steps(images, batch, how.iterations, how.epochs))


def _mean_colour(network: DeepLab) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in network.backbone.mean.flatten().tolist())
    return red, green, blue


if __name__ == "__main__":
    run_stage(run)
