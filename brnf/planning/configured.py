"""What a configuration builds, without its weights and data: options and networks, for planning."""

import shlex
from dataclasses import replace
from typing import Any

import torch
import tyro

from brnf.cam.network import CamNetwork, new_cam_network
from brnf.config.experiment import Experiment
from brnf.flow.density import FlowDensity
from brnf.planning.sizes import SplitSize
from brnf.stages import train_base, train_flow
from brnf.workflow.params import command_line, stage_options

__all__ = ["cam_network", "job_options", "new_flow"]


def job_options(stage: Any, experiment: Experiment, model: str, **given: Any) -> Any:
    """Return a stage's options as its job gets them."""
    name = stage.__name__.rsplit(".", 1)[-1]
    words = shlex.split(command_line(stage_options(name, experiment, model, given)))
    return tyro.cli(stage.Options, args=words, config=(tyro.conf.FlagConversionOff,))


def cam_network(experiment: Experiment, classes: int, device: torch.device) -> CamNetwork:
    """Return the configured CAM network with random weights, or none on ``meta``."""
    options: train_base.Options = job_options(train_base, experiment, "base")
    backbone = replace(options.backbone, weights="none")
    with torch.device(device):
        return new_cam_network(backbone, options.cam, classes, device, options.seed)


def new_flow(experiment: Experiment, size: SplitSize, device: torch.device) -> FlowDensity:
    """Return the configured flow for the features of the configured network."""
    options: train_flow.Options = job_options(train_flow, experiment, "base")
    dimension = cam_network(experiment, size.classes, torch.device("meta")).dimension
    return FlowDensity(dimension, size.classes + 1, options.flow).to(device)
