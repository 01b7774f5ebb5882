"""Training of the base CAM network, SIPE (`method.md` sections 2 and 3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from brnf.backbones import BackboneOptions, build_backbone
from brnf.cam.network import CamNetwork
from brnf.cam.objective import MapRules, base_loss
from brnf.cam.training import TrainingOptions, fit, total_steps
from brnf.data.index import Index
from brnf.stages.common import Progress, Runtime, run_stage
from brnf.stages.histories import write_history
from brnf.stages.networks import save_cam_network
from brnf.stages.training_data import CropOptions, TrainingSource, fit_classifier
from brnf.store.files import locked


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """Trained CAM network."""
    history: Path
    """CSV with the loss of each step."""


@dataclass(frozen=True)
class Options:
    """The network, its training images and its optimiser (`method.md` section 2)."""

    split: str = "train_aug"
    """Split to train on."""
    backbone: str = "resnet50"
    """Name of a timm network."""
    weights: str = "imagenet"
    """imagenet, efficientnet_lite0, none, or a file with a state dictionary."""
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
    fit_classifier: bool = False
    """Fit the classifier to the untrained backbone before the training: for small data [D]."""
    classifier_penalty: float = 1e-4
    """Weight decay of that fit [D]."""
    batch_size: int = 16
    """Images of a step."""
    epochs: int = 5
    """Passes over the images."""
    steps: int | None = None
    """Steps in all; overrules the epochs."""
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
    """Keep a frozen backbone's outputs on disk while training; images are then only mirrored, never cropped."""
    amp: bool = False
    """Compute the network in bfloat16."""
    seed: int = 0
    """Of new layers and data order."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train the base CAM network."""
    device = runtime.torch_device()
    torch.manual_seed(options.seed)
    index = Index.read(inputs.index)
    records = index.split(options.split)
    backbone = BackboneOptions(options.backbone, options.weights, options.stride, options.dilated, options.trainable_stages)
    network = CamNetwork(build_backbone(backbone), len(index.classes), options.side_widths).to(device)
    crops = CropOptions(options.batch_size, options.resize_low, options.resize_high, options.crop, options.cache, options.seed)
    rules = MapRules(options.seed_rule, options.background_over)
    training = TrainingOptions(
        options.learning_rate, options.head_learning_rate, options.weight_decay, options.momentum, options.clip_norm, options.amp
    )
    _, steps = total_steps(len(records), options.batch_size, options.epochs, options.steps)
    with locked(outputs.network), TrainingSource(network, index, records, None, crops, outputs.network.parent, device, runtime) as source:
        if options.fit_classifier:
            fit_classifier(network, source, options.classifier_penalty)
        updates = fit(
            network, source.batches(steps), lambda out, batch, _: base_loss(out, batch.labels, batch.valid, rules), steps, training, device
        )
        history = []
        progress = Progress(updates, "train base", runtime, unit="step", total=steps)
        for terms in progress:
            history.append(terms)
            progress.note(loss=terms["loss"])
        write_history(outputs.history, history)
        save_cam_network(outputs.network, network, backbone, index.classes)


if __name__ == "__main__":
    run_stage(run)
