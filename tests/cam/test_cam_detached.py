"""Whom guidance, FSCL and CCNF teach, with and without the stages detached from the sides."""

import pytest
import torch
import torch.nn.functional as F

from brnf.backbones import build_backbone
from brnf.cam.contrast import ContrastBank
from brnf.cam.network import CamNetwork
from brnf.cam.objective import BrnfObjective
from brnf.config.sections.cam import BackboneOptions, BrnfLoss, MapRules, Online
from brnf.config.sections.flow import FlowInTraining
from brnf.flow.online import OnlineFlow

OPTIONS = BackboneOptions(name="resnet18", weights="none", trainable_stages=2)
LABELS = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
VALID = torch.ones(2, 1, 6, 6, dtype=torch.bool)
SEEDS = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def taught_by(term: str, detached: bool) -> set[str]:
    """Return the parts of the network that a term of BRNF's loss has a gradient for."""
    torch.manual_seed(0)
    network = CamNetwork(build_backbone(OPTIONS), 2, (8, 8, 8, 8), detach_sides=detached).train()
    options = FlowInTraining(blocks=2, hidden=8, batch_rows=64)
    flow = OnlineFlow(32, 3, options, Online(), updates=10_000)
    bank = ContrastBank(3, 32, 5, 5)
    bank.add_regions(F.normalize(torch.randn(3, 32), dim=1), torch.arange(3))
    objective = BrnfObjective(BrnfLoss(), MapRules(), flow, bank)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    terms = objective(network(images), LABELS, VALID, SEEDS, True)
    terms[term].backward()
    named = network.named_parameters()
    return {
        name.split(".")[0] for name, value in named if value.grad is not None and value.grad.any()
    }


@pytest.mark.parametrize("term", ["guidance", "contrast"])
def test_guidance_and_contrast_teach_the_backbone_only_where_nothing_is_detached(term: str) -> None:
    assert taught_by(term, detached=True) == {"sides"}
    assert taught_by(term, detached=False) == {"sides", "backbone"}


@pytest.mark.parametrize("detached", [True, False])
def test_calibration_teaches_backbone_and_classifier(detached: bool) -> None:
    assert taught_by("calibration", detached) == {"backbone", "classifier"}
