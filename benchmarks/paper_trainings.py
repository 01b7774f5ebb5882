"""The trainings of the paper's experiments at their true sizes, with random weights and images, on
any device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from brnf.backbones import build_backbone
from brnf.cam.batch import Batch
from brnf.cam.network import CamNetwork, CamOutput
from brnf.cam.objective import base_loss
from brnf.cam.training import CamTrainer
from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.config.sections.bounds import Precision
from brnf.flow.density import FlowDensity
from brnf.flow.training import FlowTrainer
from brnf.planning.sizes import CLASSES, LABELS
from brnf.segment.deeplab import build_deeplab
from brnf.segment.training import SegmentationTrainer
from brnf.stages import train_brnf
from tests.stage_options import options_of

__all__ = ["GRID_STRIDE", "TRAININGS", "Steps", "foreground_classes", "new_density"]
__all__ += ["new_network", "paper_experiment"]

ROOT = Path(__file__).parents[1]
GRID_STRIDE = 16
MANY_STEPS = 1000


@dataclass(frozen=True)
class Steps:
    """A training at its true size.

    Attributes:
        step: takes one step on a full batch.
        samples: of a step: images, or rows.
    """

    step: Callable[[], object]
    samples: int


def paper_experiment(name: str, root: Path, changes: Mapping[str, Any] | None = None) -> Experiment:
    """Return the experiment of ``config/<name>.yaml`` with a data set that is pretended.

    Arguments:
        name: of the file.
        root: an empty folder that stands for the data set.
        changes: what differs from the file.
    """
    settings = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    (root / "annotations").mkdir(exist_ok=True)
    settings["dataset"]["root"] = str(root)
    settings["device"] = "cpu"  # of the planning, which would look for a GPU
    return next(iter(read_experiments(merged(settings, changes or {})).values()))


def foreground_classes(experiment: Experiment) -> int:
    """Return C."""
    dataset = experiment.settings["dataset"]
    return len(dataset["classes"]) or CLASSES[dataset["kind"]]


def batch_of(experiment: Experiment, model: str) -> Batch:
    """Return a full batch of crops whose images have as many labels as the data set's on average;
    BRNF's with seeds.
    """
    training, classes = experiment.network(model), foreground_classes(experiment)
    images, crop = training["batch_size"], training["crop"]
    labels = torch.zeros(images, classes)
    for image in range(images):
        shown = round(LABELS.get(experiment.settings["dataset"]["kind"], 1))
        labels[image, [(image * shown + number) % classes for number in range(shown)]] = 1
    grid = crop // GRID_STRIDE
    valid = torch.ones(images, 1, grid, grid, dtype=torch.bool)
    seeds = None if model == "base" else torch.zeros(images, 1 + classes, grid, grid)
    pixels = torch.randint(0, 256, (images, 3, crop, crop), dtype=torch.uint8)
    return Batch(pixels, labels, valid, seeds)


def new_network(experiment: Experiment, device: torch.device) -> CamNetwork:
    """Return an untrained CAM network."""
    options = options_of("train_base", experiment, "base")
    with device:
        backbone = build_backbone(replace(options.backbone, weights="none"), load=False)
        network = CamNetwork(backbone, foreground_classes(experiment), options.cam.side_widths)
    return network.to(device)


def new_density(experiment: Experiment, device: torch.device) -> FlowDensity:
    """Return an untrained flow."""
    options = options_of("train_flow", experiment, "base").flow
    dimension = sum(experiment.settings["cam"]["side_widths"])
    return FlowDensity(dimension, 1 + foreground_classes(experiment), options).to(device)


def base_steps(experiment: Experiment, device: torch.device, precision: Precision) -> Steps:
    """Return the training of the base."""
    options = options_of("train_base", experiment, "base")
    trainer = CamTrainer(
        new_network(experiment, device),
        lambda output, batch, step: base_loss(output, batch.labels, batch.valid, options.cam),
        MANY_STEPS,
        options.base,
        precision=precision,
    )
    return Steps(partial(trainer.step, batch_of(experiment, "base")), options.base.batch_size)


def brnf_steps(experiment: Experiment, device: torch.device, precision: Precision) -> Steps:
    """Return the training of BRNF, with the flow in use from the start."""
    options = options_of("train_brnf", experiment, "brnf")
    network = new_network(experiment, device)
    objective = train_brnf.build_objective(
        options, network.dimension, 1 + foreground_classes(experiment), MANY_STEPS, device
    )

    def loss(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
        assert batch.seeds is not None
        return objective(output, batch.labels, batch.valid, batch.seeds, True, batch.places)

    trainer = CamTrainer(network, loss, MANY_STEPS, options.brnf, objective, precision=precision)
    return Steps(partial(trainer.step, batch_of(experiment, "brnf")), options.brnf.batch_size)


def flow_steps(experiment: Experiment, device: torch.device, precision: Precision) -> Steps:
    """Return the training of the flow, which is float32 in every precision."""
    options = options_of("train_flow", experiment, "base").flow
    flow = new_density(experiment, device)
    rows = torch.randn(options.batch_rows, flow.dimension).half()
    targets = torch.arange(options.batch_rows) % (2 + foreground_classes(experiment)) - 1
    step = FlowTrainer(flow, options, None).step
    return Steps(partial(step, (rows, targets)), options.batch_rows)


def segmentation_steps(experiment: Experiment, device: torch.device, precision: Precision) -> Steps:
    """Return the training of the segmenter."""
    options = options_of("train_segmentation", experiment, "base").segmentation
    with device:
        network = build_deeplab(options, 1 + foreground_classes(experiment), load=False)
    trainer = SegmentationTrainer(network, options, device, precision=precision)
    images, side = options.batch_size * options.accumulate, options.crop
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
    classes = 1 + foreground_classes(experiment)
    kind = torch.uint8 if classes < 256 else torch.int32
    labels = torch.randint(0, classes, (images, side, side), dtype=kind)
    return Steps(partial(trainer.step, (pixels, labels)), images)


TRAININGS: Mapping[str, Callable[[Experiment, torch.device, Precision], Steps]] = {
    "train_base": base_steps,
    "train_flow": flow_steps,
    "train_brnf": brnf_steps,
    "train_segmentation": segmentation_steps,
}
"""By rule; weights and images are random."""
