"""Three-way labels, the loss and the tempered posterior against naive references."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brnf.config.sections.flow import FlowArchitecture
from brnf.flow.density import TILE, FlowDensity
from brnf.flow.labels import three_way_labels
from brnf.flow.loss import add_gradient, mixture_loss
from brnf.flow.posterior import fit_temperature, search_temperature, tempered_posterior


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_labels_at_the_thresholds(kind: torch.dtype) -> None:
    score = torch.tensor([0.0, 0.3, 0.31, 0.5, 0.69, 0.7, 1.0], dtype=kind)
    label = torch.tensor([4, 4, 4, 4, 4, 5, 6], dtype=torch.uint8)
    assert three_way_labels(score, label, 0.3, 0.7).tolist() == [0, 0, -1, -1, -1, 5, 6]


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_labels_one_step_beside_the_thresholds(kind: torch.dtype) -> None:
    ends = torch.tensor([0.3, 0.7], dtype=kind)
    above = torch.nextafter(ends, torch.ones(2, dtype=kind))
    below = torch.nextafter(ends, torch.zeros(2, dtype=kind))
    score = torch.stack([below, ends, above])
    label = torch.full((3, 2), 9)
    assert three_way_labels(score, label, 0.3, 0.7).tolist() == [[0, -1], [0, 9], [-1, 9]]


def test_labels_refuse_crossed_thresholds() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        three_way_labels(torch.zeros(1), torch.ones(1), 0.7, 0.3)


def test_loss_equals_a_loop_over_pixels() -> None:
    torch.manual_seed(0)
    log_prob = 30 * torch.randn(40, 5, dtype=torch.float64) - 100
    targets = torch.randint(-1, 5, (40,))
    expected = 0.0
    for row, code in zip(log_prob.tolist(), targets.tolist(), strict=True):
        if code >= 0:
            expected -= row[code]
        else:
            top = max(row)
            expected -= top + math.log(sum(math.exp(value - top) / 5 for value in row))
    assert float(mixture_loss(log_prob, targets)) == pytest.approx(expected / 40, rel=1e-12)


def test_loss_gradient_is_the_responsibility() -> None:
    log_prob = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    mixture_loss(log_prob, torch.tensor([2, -1, 0])).backward()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, 2] = expected[2, 0] = -1
    expected[1] = -log_prob.detach()[1].softmax(0)
    assert log_prob.grad is not None
    torch.testing.assert_close(log_prob.grad, expected / 3)


def test_posterior_equals_softmax_of_the_subset() -> None:
    torch.manual_seed(1)
    log_prob = 50 * torch.randn(20, 6)
    allowed = torch.rand(20, 6) < 0.5
    allowed[:, 0] = True
    posterior = tempered_posterior(log_prob, allowed, 7.0)
    for i in range(20):
        subset = torch.nonzero(allowed[i]).squeeze(1)
        naive = torch.zeros(6)
        naive[subset] = torch.softmax(log_prob[i, subset] / 7.0, 0)
        torch.testing.assert_close(posterior[i], naive)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.6, 0.98), st.floats(0.5, 300.0), st.integers(0, 1000))
def test_temperature_reaches_its_target(target: float, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_prob = spread * torch.randn(200, 5, generator=generator) - 700
    allowed = torch.zeros(200, 5, dtype=torch.bool)
    allowed[:, 0] = True
    allowed[torch.arange(200), torch.randint(1, 5, (200,), generator=generator)] = True
    temperature = fit_temperature(log_prob, allowed, target)
    largest = tempered_posterior(log_prob.double(), allowed, temperature).max(1).values.mean()
    assert float(largest) == pytest.approx(target, abs=1e-6)


def test_temperature_depends_on_the_allowed_set() -> None:
    log_prob = torch.tensor([[0.0, 2.0, 1.9]] * 4)
    two = torch.tensor([[True, True, False]] * 4)
    assert fit_temperature(log_prob, two, 0.8) == pytest.approx(2 / math.log(4), rel=1e-4)
    assert fit_temperature(log_prob, torch.ones_like(two), 0.8) < 0.2


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.5, 0.99))
def test_the_search_without_waiting_finds_the_same(seed: int, rows: int, target: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_prob = 30 * torch.randn(rows, 5, generator=generator)
    allowed = torch.rand(rows, 5, generator=generator) < 0.5
    allowed[:, 0] = True  # rows of one class alone are among them: no temperature moves those
    expected = fit_temperature(log_prob, allowed, target)
    # At its bound of 1e5 the search stops 1e-6 below what halving ends at.
    assert float(search_temperature(log_prob, allowed, target)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tile_rows", [None, 1000, 10_000])
def test_gradient_by_tiles_equals_that_of_the_whole_batch(tile_rows: int | None) -> None:
    flow = FlowDensity(4, 3, FlowArchitecture(blocks=2, hidden=8)).double()
    generator = torch.Generator().manual_seed(0)
    features, noise = torch.randn(2, 2 * TILE + 5, 4, dtype=torch.float64, generator=generator)
    targets = torch.randint(-1, 3, (len(features),), generator=generator)
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    whole = mixture_loss(flow.class_log_prob(features, noise), targets)
    expected = torch.autograd.grad(whole, parameters)
    with torch.no_grad():
        loss = add_gradient(flow, features, noise, targets, tile_rows)
    torch.testing.assert_close(loss.double(), whole.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close([parameter.grad for parameter in parameters], list(expected))
