"""How much a training step tells a device, and how often it waits for it, at the paper's size.

The device is a pretended one (`tests/pretended_device.py`).
"""

import pytest
import torch

from brnf.backbones import build_backbone
from brnf.cam.batch import Batch
from brnf.cam.network import CamNetwork
from brnf.cam.objective import base_loss
from brnf.cam.training import CamTrainer
from brnf.config.sections.cam import BackboneOptions, CamTraining
from brnf.segment.random_walk import affinity_loss
from brnf.stages import train_brnf
from tests.pretended_device import DEVICE, counted

CLASSES, IN_BATCH = 20, 14
IMAGES, CROP, GRID = 16, 512, 32
OPTIONS = train_brnf.Options(backbone=BackboneOptions(weights="none"))


def batch(with_seeds: bool) -> Batch:
    """Return images of two classes each, 14 of the 20 in all; the last ends in padding."""
    labels = torch.zeros(IMAGES, CLASSES)
    for image in range(IMAGES):
        labels[image, [image % IN_BATCH, (image + 3) % IN_BATCH]] = 1
    valid = torch.ones(IMAGES, 1, GRID, GRID, dtype=torch.bool)
    valid[-1, :, :, GRID // 2 :] = False
    seeds = torch.zeros(IMAGES, CLASSES + 1, GRID, GRID) if with_seeds else None
    images = torch.zeros(IMAGES, 3, CROP, CROP, dtype=torch.uint8)
    return Batch(images, labels, valid, seeds)


def network() -> CamNetwork:
    with DEVICE:
        backbone = build_backbone(OPTIONS.backbone, load=False)
        return CamNetwork(backbone, CLASSES, CamTraining().side_widths)


def trainer_of(kind: str) -> CamTrainer:
    """Return a training on the device; BRNF's with the flow in use from the first step on."""
    if kind == "base":
        return CamTrainer(
            network(),
            lambda output, batch, step: base_loss(output, batch.labels, batch.valid, OPTIONS.cam),
            1000,
            OPTIONS.brnf,
        )
    dimension = sum(CamTraining().side_widths)
    objective = train_brnf.build_objective(OPTIONS, dimension, CLASSES + 1, 1000, DEVICE)
    return CamTrainer(
        network(),
        lambda output, batch, step: objective(
            output, batch.labels, batch.valid, batch.seeds, True, batch.places
        ),
        1000,
        OPTIONS.brnf,
        objective,
    )


@pytest.mark.parametrize(("kind", "kernels", "waits"), [("base", 450, 1), ("brnf", 1000, 2)])
def test_a_step_launches_and_waits_no_more(kind: str, kernels: int, waits: int) -> None:
    """The third step, of which 19 in 20 are like; the others fit the temperature, too."""
    with counted():
        trainer = trainer_of(kind)
        for _ in range(2):
            trainer.step(batch(kind == "brnf"))
        with counted() as found:
            trainer.step(batch(kind == "brnf"))
    assert found.kernels.total() <= kernels and found.waits.total() <= waits, str(found)


def test_fitting_the_temperature_waits_for_nothing() -> None:
    with counted():
        trainer = trainer_of("brnf")
        with counted() as found:
            trainer.step(batch(with_seeds=True))
    assert found.waits.total() <= 2, str(found)


def test_the_loss_of_boundaries_does_little_for_each_offset() -> None:
    """At IRN's size: 32 crops of 512 pixels on a grid of stride 4, pairs within 10 places."""
    with counted() as found:
        boundaries = torch.zeros(32, 128, 128, device=DEVICE, requires_grad=True)
        labels = torch.zeros(32, 128, 128, dtype=torch.uint8, device=DEVICE)
        affinity_loss(boundaries, labels, 10).backward()
    assert found.kernels.total() <= 1450 and not found.waits, str(found)


def test_the_device_sees_what_it_is_made_for() -> None:
    with counted() as found:
        values = torch.ones(3, 4).to(DEVICE, non_blocking=True)
        assert not found.waits and not found.kernels.total()
        values.mul(2).t()[1:].detach()
        assert not found.waits and found.kernels.total() == 1
        float(values.sum())
        values.nonzero()
        values[values > 0].tolist()
        torch.ones(2).to(DEVICE)
        assert found.waits.total() == 5, str(found)
        with pytest.raises(AssertionError, match="mixes devices"):
            values + torch.ones(3, 4)
