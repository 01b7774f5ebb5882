"""Mixture, loss and couplings against DDFP and FrEIA (`tests/reference/README.md`)."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from brnf.config.sections.flow import FlowArchitecture
from brnf.flow.density import FlowDensity
from brnf.flow.loss import mixture_loss
from brnf.flow.mixture import LatentMixture, log_marginal
from brnf.flow.posterior import tempered_posterior
from tests.reference.recipe import integers, load, normal, reference_value

STORED = load("ddfp")
CLASSES, DIMENSION, ROWS = 21, 64, 500
LOG_PROBABILITY = 2e-4
"""Absolute, of values down to -230 nats."""
COUPLING, LOG_DETERMINANT = 1e-5, 5e-5
"""Relative to the largest value; absolute."""

Kind = Literal["one_sided", "glow"]
BLOCKS: dict[Kind, int] = {"one_sided": 4, "glow": 2}


def targets() -> Tensor:
    return torch.from_numpy(STORED["labels"]).long()


@pytest.fixture(scope="module")
def class_log_prob() -> Tensor:
    """Return log p(z|k) of the made-up latent points."""
    mixture = LatentMixture(CLASSES, DIMENSION, learn_means=False, seed=0)
    mixture.means.copy_(normal("ddfp.means", (CLASSES, DIMENSION)))
    drawn = integers("ddfp.labels", (ROWS,), CLASSES)
    centres = torch.where(targets() < 0, CLASSES - 1, drawn)
    z = mixture.means[centres] + normal("ddfp.spread", (ROWS, DIMENSION))
    return mixture.log_prob(z)


def test_labels_are_those_of_the_recipe() -> None:
    expected = integers("ddfp.labels", (ROWS,), CLASSES)
    expected[::3] = -1
    assert torch.equal(targets(), expected)


def test_class_log_probabilities(class_log_prob: Tensor) -> None:
    np.testing.assert_allclose(
        class_log_prob, STORED["class_log_prob"], rtol=0, atol=LOG_PROBABILITY
    )


def test_marginal(class_log_prob: Tensor) -> None:
    found = log_marginal(class_log_prob)
    np.testing.assert_allclose(found, STORED["marginal"], rtol=0, atol=LOG_PROBABILITY)


def test_log_probability_of_the_label_or_of_the_mixture(class_log_prob: Tensor) -> None:
    rows = zip(class_log_prob.unsqueeze(1), targets().unsqueeze(1), strict=True)
    found = torch.stack([-mixture_loss(row, code) for row, code in rows])
    np.testing.assert_allclose(found, STORED["log_prob"], rtol=0, atol=LOG_PROBABILITY)


def test_class_probabilities(class_log_prob: Tensor) -> None:
    """At temperature 1, DDFP's, over all classes; stored as float16."""
    found = tempered_posterior(class_log_prob, torch.ones(ROWS, CLASSES, dtype=torch.bool), 1.0)
    np.testing.assert_allclose(found, STORED["class_probs"], rtol=1e-3, atol=LOG_PROBABILITY)


def test_loss(class_log_prob: Tensor) -> None:
    log_determinant = normal("ddfp.logdet", (ROWS,)).unsqueeze(1)
    found = float(mixture_loss(class_log_prob + log_determinant, targets()))
    assert found == pytest.approx(float(STORED["nll_f64"]), abs=LOG_PROBABILITY)


def flow_of(kind: Kind) -> FlowDensity:
    """Return a flow with the recipe's parameters and the stored permutations."""
    options = FlowArchitecture(coupling=kind, blocks=BLOCKS[kind], hidden=32, clamp=2.0)
    flow = FlowDensity(DIMENSION, CLASSES, options).requires_grad_(False)
    for number, order in enumerate(torch.from_numpy(STORED[f"{kind}_permutations"]).long()):
        coupling, permutation = flow.network[2 * number], flow.network[2 * number + 1]
        for name, parameter in coupling.named_parameters():
            parameter.copy_(
                0.5 * reference_value(f"{kind}.{number}.{name}", tuple(parameter.shape))
            )
        permutation.perm.copy_(order)
        permutation.perm_inv.copy_(order.argsort())
    return flow


def assert_points(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=COUPLING * np.abs(expected).max())


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_couplings_forwards(kind: Kind, gradient: bool) -> None:
    """Both ways forwards: in place, and that which keeps what the gradient needs."""
    with torch.set_grad_enabled(gradient):
        z, log_determinant = flow_of(kind).latent(normal("ddfp.points", (64, DIMENSION)))
    assert_points(z.detach(), STORED[f"{kind}_forward"])
    expected = STORED[f"{kind}_logdet"]
    np.testing.assert_allclose(log_determinant.detach(), expected, rtol=0, atol=LOG_DETERMINANT)


@pytest.mark.parametrize("kind", BLOCKS)
def test_couplings_backwards(kind: Kind) -> None:
    flow, latents = flow_of(kind), normal("ddfp.latents", (64, DIMENSION))
    points = flow.inverse(latents)
    assert_points(points, STORED[f"{kind}_inverse"])
    _, log_determinant = flow.latent(points)
    expected = STORED[f"{kind}_inverse_logdet"]
    np.testing.assert_allclose(-log_determinant, expected, rtol=0, atol=LOG_DETERMINANT)
