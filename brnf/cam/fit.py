"""What the trainings of the base and of the BRNF network share: options, the network to start from,
the loop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from brnf.backbones import BackboneOptions, build_backbone
from brnf.base.sfc import ImageBank
from brnf.cam.classifier_fit import fit_classifier
from brnf.cam.crops import CropOptions, TrainingSource
from brnf.cam.network import CamNetwork
from brnf.cam.saved import save_cam_network
from brnf.cam.training import Batch, CamTrainer, TrainingOptions
from brnf.config.sections.cam import MapRules
from brnf.engine import distributed
from brnf.engine.checkpoint import Checkpoint, take_steps
from brnf.engine.history import write_history
from brnf.engine.runtime import Runtime

__all__ = ["CamTrainingOptions", "train_and_save"]


@dataclass(frozen=True)
class CamTrainingOptions:
    """The network, its training images and its optimiser (`docs/method.md` section 2)."""

    split: str = "train_aug"
    """Split to train on."""
    backbone: str = "resnet50"
    """Name of a timm network."""
    weights: str = "resnet50.tv_in1k"
    """A tag of timm, efficientnet_lite0, a file with a state dictionary, caffe:<file>, or none."""
    stride: int = 16
    """Stride of the last stage: 8, 16 or 32."""
    dilated: bool = False
    """Replace lost strides by dilation; SIPE's ResNet does not."""
    trainable_stages: int = 2
    """How many of the last stages learn; 0 freezes the backbone."""
    side_widths: tuple[int, int, int, int] = (128, 128, 256, 256)
    """Channels of the side convolutions, at most those of their stage."""
    seed_rule: Literal["structure", "plain"] = "structure"
    """Seeds under which prototypes are averaged: structure (SIPE) or plain (SFC)."""
    background_over: Literal["all", "present"] = "all"
    """Classes that count against the background: all, or those of the image."""
    background_weight: float | None = None
    """Factor of the background when seeds are chosen; None: 0.5 (structure) or 0.3 (plain)."""
    detach_sides: bool = True
    """Keep losses on features and prototype maps from teaching the backbone, as SIPE does [D]."""
    fit_classifier: bool = False
    """Fit the classifier to the untrained backbone before the training: for small data [D]."""
    classifier_penalty: float = 1e-4
    """Weight decay of that fit [D]."""
    batch_size: int = 16
    """Images of a step."""
    epochs: int = 5
    """Passes over the images."""
    steps: int | None = None
    """Steps in all; overrules the epochs. 0 leaves the fitted classifier as it is."""
    learning_rate: float = 0.1
    """Of the backbone's trainable stages."""
    head_learning_rate: float = 1.0
    """Of the new layers."""
    weight_decay: float = 1e-4
    """Of all layers."""
    momentum: float = 1e-4
    """Of SGD; SIPE passes its weight decay here."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    resize_low: int = 320
    """Smallest long side of a training image in pixels."""
    resize_high: int = 640
    """Largest long side of a training image in pixels."""
    crop: int = 512
    """Side of the training crop in pixels, a multiple of 16 [P]."""
    cache: bool = False
    """Keep a frozen backbone's outputs on disk while training; images are then only mirrored, never
    cropped.
    """
    amp: bool = False
    """Compute the network in bfloat16; losses and flow stay in float32."""
    seed: int = 0
    """Of new layers, data order and everything random."""

    def backbone_options(self) -> BackboneOptions:
        """Return what to build."""
        return BackboneOptions(
            self.backbone, self.weights, self.stride, self.dilated, self.trainable_stages
        )

    def crop_options(self) -> CropOptions:
        """Return how training images are cut."""
        return CropOptions(
            self.batch_size, self.resize_low, self.resize_high, self.crop, self.cache, self.seed
        )

    def optimiser_options(self) -> TrainingOptions:
        """Return the optimiser's settings."""
        return TrainingOptions(
            self.learning_rate,
            self.head_learning_rate,
            self.weight_decay,
            self.momentum,
            self.clip_norm,
            self.amp,
        )

    def fits_classifier(self) -> bool:
        """Tell whether the training begins with a fit of the classifier."""
        return self.fit_classifier

    def map_rules(self) -> MapRules:
        """Return how maps are made in training."""
        return MapRules(
            seed_rule=self.seed_rule,
            background_over=self.background_over,
            background_weight=self.background_weight,
        )

    def new_network(self, classes: int, device: torch.device, affinity: bool = False) -> CamNetwork:
        """Return a network with the backbone's weights and random new layers, the same ones for the
        same seed.

        Arguments:
            classes: number C.
            device: where it shall be.
            affinity: whether it propagates maps by pixel similarity (SFC).
        """
        torch.manual_seed(self.seed)
        backbone = build_backbone(self.backbone_options())
        heads = self.side_widths, affinity, self.detach_sides
        return CamNetwork(backbone, classes, *heads).to(device)


def train_and_save(
    name: str,
    trainer: CamTrainer,
    source: TrainingSource,
    steps: int,
    checkpoint: Checkpoint,
    options: CamTrainingOptions,
    classes: tuple[str, ...],
    outputs: tuple[Path, Path],
    runtime: Runtime,
    bank: ImageBank | None = None,
) -> None:
    """Train a network to the end, from a checkpoint if there is one, and write it with its history.

    Arguments:
        name: shown with the progress.
        trainer: new; its classifier is fitted first when the options say so.
        source: of batches.
        steps: length of the training.
        checkpoint: of this training.
        options: stored with the network.
        classes: names of the foreground classes, stored with the network.
        outputs: the network and its history.
        runtime: progress.
        bank: whose images join the batches (SFC).
    """

    def batches(done: int) -> Iterator[Batch]:
        if bank is None:
            return source.batches(steps, done)
        return (batch.share() for batch in bank.join(source.batches(steps, done, whole=True), done))

    if not checkpoint.restore(trainer) and options.fits_classifier():
        fit_classifier(trainer.network, source, options.classifier_penalty)
    take_steps(name, trainer, batches, steps, checkpoint, runtime, dict)
    if distributed.is_first():
        write_history(outputs[1], trainer.history)
        save_cam_network(outputs[0], trainer.network, options.backbone_options(), classes)
    checkpoint.finish(trainer)
