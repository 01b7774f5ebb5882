"""The pictures that a CAM network's training shows."""

import cv2
import numpy as np
import torch
from torch import Tensor

from brnf.backbones import build_backbone
from brnf.cam.batch import Batch
from brnf.cam.network import CamNetwork, CamOutput
from brnf.cam.training import CamTrainer
from brnf.config.sections.cam import BackboneOptions, Training

BACKBONE = BackboneOptions(name="mobilenetv3_small_050", weights="none")
NAME = "image, classifier CAM"


def classify(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
    loss = torch.nn.functional.binary_cross_entropy_with_logits(output.scores, batch.labels)
    return {"classification": loss}


def new_trainer() -> CamTrainer:
    torch.manual_seed(0)
    network = CamNetwork(build_backbone(BACKBONE), 2, (4, 4, 4, 4))
    with torch.no_grad():
        network.classifier.weight.abs_()
    return CamTrainer(network, classify, 2, Training())


def batch(labels: list[list[float]]) -> Batch:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(1))
    return Batch(pixels.byte(), torch.tensor(labels), torch.ones(2, 1, 4, 6, dtype=torch.bool))


def test_the_cam_of_the_first_class_stands_beside_the_image() -> None:
    trainer, seen = new_trainer(), batch([[0.0, 1.0], [1.0, 0.0]])
    picture = trainer.pictures(seen)[NAME]
    assert picture.shape == (64, 2 * 96, 3) and picture.dtype == np.uint8
    assert (picture[:, :96] == seen.pixels[0].permute(1, 2, 0).numpy()).all()
    with torch.no_grad():
        trainer.network.eval()
        map_ = trainer.network(seen.pixels[:1]).logits[0, 1].relu()
    shown = picture[:, 96:, 0]
    small = cv2.resize((map_ / map_.max()).numpy(), (96, 64), interpolation=cv2.INTER_LINEAR)
    assert shown.max() > 128 and abs(shown - 255 * small).max() <= 1.5
    assert (picture[:, 96:] == picture[:, 96:, :1]).all()


def test_without_an_image_the_cam_stands_alone_and_without_a_class_nothing() -> None:
    trainer, seen = new_trainer(), batch([[1.0, 0.0], [1.0, 0.0]])
    with torch.no_grad():
        stages = trainer.network.stages(seen.pixels)
    assert trainer.pictures(Batch(stages, seen.labels, seen.valid))[NAME].shape == (4, 6, 3)
    assert trainer.pictures(batch([[0.0, 0.0], [1.0, 0.0]])) == {}


def test_pictures_change_nothing_in_the_training() -> None:
    seen = batch([[0.0, 1.0], [1.0, 0.0]])
    plain, watched = new_trainer(), new_trainer()
    for _ in range(2):
        plain.step(seen)
        watched.pictures(seen)
        watched.step(seen)
    assert plain.history == watched.history
    states = [trainer.network.state_dict() for trainer in (plain, watched)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
