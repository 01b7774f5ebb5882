"""With COCO's 81 classes no tensor has an entry for every pixel, class and feature together."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brnf.cam.contrast import ContrastBank
from brnf.cam.network import CamOutput
from brnf.cam.objective import BrnfObjective, base_loss
from brnf.config.sections.cam import BrnfLoss, MapRules, Online
from brnf.config.sections.flow import Baseline, FlowArchitecture, FlowInTraining, Tau
from brnf.flow.density import FlowDensity
from brnf.flow.gaussian import GaussianKind, build_gaussian, fit_gaussian
from brnf.flow.loss import mixture_loss
from brnf.flow.online import OnlineFlow

IMAGES, CLASSES, DIMENSION, SIDE = 4, 81, 64, 8
PIXELS = IMAGES * SIDE * SIDE


class Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation returns, those of backward passes too."""

    numbers, shape = 0, torch.Size()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.numel() > self.numbers:
                self.numbers, self.shape = value.numel(), value.shape
        return result


def largest(compute: Callable[[], Any]) -> Largest:
    with Largest() as seen:
        compute()
    return seen


def test_the_watch_sees_what_it_is_made_for() -> None:
    seen = largest(
        lambda: torch.zeros(PIXELS, DIMENSION)[:, None] - torch.zeros(CLASSES, DIMENSION)
    )
    assert seen.shape == (PIXELS, CLASSES, DIMENSION)


def batch() -> tuple[CamOutput, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.zeros(IMAGES, CLASSES - 1)
    for image in range(IMAGES):
        labels[image, [image, 10 + image, 79]] = 1
    parts = (
        torch.randn(IMAGES, channels, SIDE, SIDE, requires_grad=True)
        for channels in (CLASSES - 1, DIMENSION, 32)
    )
    seeds = (
        torch.rand(IMAGES, CLASSES, SIDE, SIDE)
        * torch.cat([torch.ones(IMAGES, 1), labels], 1)[:, :, None, None]
    )
    return CamOutput(*parts), labels, torch.ones(IMAGES, 1, SIDE, SIDE, dtype=torch.bool), seeds


def backward(terms: dict[str, torch.Tensor]) -> None:
    torch.stack([term for term in terms.values() if term.requires_grad]).sum().backward()


@pytest.mark.parametrize("rule", ["structure", "plain"])
def test_losses_of_the_base(rule: Any) -> None:
    output, labels, valid, _ = batch()
    seen = largest(lambda: backward(base_loss(output, labels, valid, MapRules(seed_rule=rule))))
    assert seen.numbers <= PIXELS * max(CLASSES, DIMENSION, SIDE * SIDE), seen.shape


def test_losses_of_brnf() -> None:
    """The largest are the features of the batch's regions, which grow with the labels of its images
    and not with K.
    """
    output, labels, valid, seeds = batch()
    options = FlowInTraining(blocks=2, hidden=32, tau=Tau(high=0.5))
    online = Online(online_refit_rows=64)
    flow = OnlineFlow(DIMENSION, CLASSES, options, online, updates=10_000)
    objective = BrnfObjective(BrnfLoss(), MapRules(), flow, ContrastBank(CLASSES, DIMENSION, 4, 2))
    seen = largest(lambda: backward(objective(output, labels, valid, seeds, use_flow=True)))
    regions = int(labels.sum()) + IMAGES
    assert seen.numbers <= regions * DIMENSION * SIDE * SIDE < PIXELS * CLASSES * DIMENSION // 10, (
        seen.shape
    )


def test_mixture_of_the_flow() -> None:
    flow = FlowDensity(DIMENSION, CLASSES, FlowArchitecture(blocks=2, hidden=32))
    features, codes = torch.randn(PIXELS, DIMENSION), torch.arange(PIXELS) % CLASSES
    seen = largest(
        lambda: mixture_loss(
            flow.class_log_prob(features, torch.zeros_like(features)), codes
        ).backward()
    )
    assert seen.numbers <= PIXELS * max(CLASSES, DIMENSION), seen.shape
    assert largest(lambda: flow.log_prob(features)).numbers <= PIXELS * max(CLASSES, DIMENSION)


@pytest.mark.parametrize("kind", ["gaussian_diagonal", "gaussian_full", "gmm"])
def test_gaussians(kind: GaussianKind) -> None:
    density = build_gaussian(kind, DIMENSION, CLASSES, Baseline(components=2))
    features, codes = torch.randn(PIXELS, DIMENSION), torch.arange(PIXELS) % CLASSES
    fit_gaussian(density, [(features, codes)])
    seen = largest(lambda: density.log_prob(features))
    assert seen.numbers <= PIXELS * 2 * max(CLASSES, DIMENSION), seen.shape
