"""The boundary network: its shapes, what learns, that it learns edges, and that it goes on from its
state.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from brnf.backbones import build_backbone
from brnf.config.sections.cam import BackboneOptions
from brnf.config.sections.segmentation import BoundaryTraining
from brnf.errors import UserError
from brnf.segment.boundaries import (
    BoundaryNetwork,
    boundary_map,
    labels_on_grid,
    load_boundaries,
    save_boundaries,
)
from brnf.segment.boundary_training import BoundaryTrainer

OPTIONS = BackboneOptions(name="tf_efficientnet_lite0", weights="none", trainable_stages=0)
CPU = torch.device("cpu")


def make_network() -> BoundaryNetwork:
    torch.manual_seed(0)
    return BoundaryNetwork(build_backbone(OPTIONS))


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of a bright square on dark ground, and where it is."""
    images = torch.full((2, 3, 64, 64), 30, dtype=torch.uint8)
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    for n, (top, left) in enumerate([(8, 16), (24, 20)]):
        images[n, :, top : top + 28, left : left + 28] = 220
        labels[n, top : top + 28, left : left + 28] = 1 + n
    labels[0, :4] = 255
    return images, labels


def test_logits_stand_on_the_first_stages_grid() -> None:
    network = make_network().eval()
    images, _ = make_batch()
    with torch.inference_mode():
        assert network(images).shape == (2, 16, 16)
        assert network(torch.cat([images, images], 3)[:, :, :50]).shape == (2, 13, 32)
        boundary = boundary_map(network, images[0])
        expected = (network(images[:1])[0] + network(images[:1].flip(-1))[0].flip(-1)) / 2
        torch.testing.assert_close(boundary, expected.sigmoid(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            boundary_map(network, images[0].flip(-1)).flip(-1), boundary, atol=1e-5, rtol=1e-4
        )


def test_only_the_branches_learn() -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    trainer = BoundaryTrainer(network, BoundaryTraining(training_radius=3), 2, CPU)
    weights = [parameter.clone() for parameter in network.head_parameters()]
    trainer.step(make_batch())
    assert all(
        torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items()
    )
    assert all(
        not torch.equal(parameter, old)
        for parameter, old in zip(network.head_parameters(), weights, strict=True)
    )


def test_boundaries_of_a_square_are_found() -> None:
    network = make_network()
    trainer = BoundaryTrainer(
        network, BoundaryTraining(training_radius=3, learning_rate=0.5, momentum=0.9), 30, CPU
    )
    images, labels = make_batch()
    losses = [trainer.step((images, labels))["loss"] for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    with torch.inference_mode():
        found = network.eval()(images).sigmoid()
    coarse = labels_on_grid(labels, (16, 16))
    known = (coarse != 255).float()
    edge = F.max_pool2d(coarse.float(), 3, 1, 1) != -F.max_pool2d(-coarse.float(), 3, 1, 1)
    assert (found * edge * known).sum() / (edge * known).sum() > 2 * (
        found * ~edge * known
    ).sum() / (~edge * known).sum()


def test_a_training_goes_on_from_its_state() -> None:
    batch = make_batch()
    whole = BoundaryTrainer(make_network(), BoundaryTraining(training_radius=3), 4, CPU)
    first, second = (
        BoundaryTrainer(make_network(), BoundaryTraining(training_radius=3), 4, CPU)
        for _ in range(2)
    )
    for _ in range(2):
        first.step(batch)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.step(batch)
    for _ in range(4):
        whole.step(batch)
    assert second.history == whole.history
    assert all(
        torch.equal(*pair)
        for pair in zip(second.network.parameters(), whole.network.parameters(), strict=True)
    )


def test_a_diverging_training_names_its_step() -> None:
    trainer = BoundaryTrainer(
        make_network(), BoundaryTraining(training_radius=3, learning_rate=1e30), 5, CPU
    )
    with pytest.raises(UserError, match=r"training step \d: the loss is nan; lower random_walk"):
        for _ in range(5):
            trainer.step(make_batch())


def test_the_network_comes_back_from_its_file(tmp_path: Path) -> None:
    network = make_network().eval()
    save_boundaries(tmp_path / "network.pt", network, OPTIONS)
    again = load_boundaries(tmp_path / "network.pt", CPU)
    images, _ = make_batch()
    with torch.inference_mode():
        torch.testing.assert_close(again(images), network(images))
