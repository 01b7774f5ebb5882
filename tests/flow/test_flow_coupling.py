"""The written-out way through the couplings against FrEIA's own and against numerical gradients."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from brnf.config.sections.flow import FlowArchitecture
from brnf.flow import coupling as one_by_one
from brnf.flow import fused
from brnf.flow.coupling import invert, steps_of, transform
from brnf.flow.density import FlowDensity
from brnf.flow.realnvp import build_real_nvp

Transform = Callable[..., tuple[Tensor, Tensor]]
both_ways = pytest.mark.parametrize("transform", [one_by_one.transform, fused.transform])


def network(coupling: str, blocks: int = 3, hidden: int = 5) -> torch.nn.Module:
    options = FlowArchitecture(coupling=coupling, blocks=blocks, hidden=hidden, clamp=1.7)  # type: ignore[arg-type]
    built = build_real_nvp(6, options, 3).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.requires_grad:
                parameter.copy_(
                    0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                )
    return built


def rows(count: int = 9) -> Tensor:
    return torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("coupling", ["one_sided", "glow"])
@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("hidden", [5, 9])
@both_ways
def test_values_equal_freia(coupling: str, count: int, hidden: int, transform: Transform) -> None:
    built, points = network(coupling, hidden=hidden), rows(count)
    kept = points.clone()
    expected = built(points)
    torch.testing.assert_close(transform(steps_of(built), points), expected)
    with torch.no_grad():  # works in place, on a copy
        torch.testing.assert_close(transform(steps_of(built), points), expected)
    assert torch.equal(points, kept)


@pytest.mark.parametrize("coupling", ["one_sided", "glow"])
@pytest.mark.parametrize("count", [0, 1, 9])
@both_ways
def test_gradients_equal_freia(coupling: str, count: int, transform: Transform) -> None:
    built, points = network(coupling), rows(count).requires_grad_()
    weights = torch.randn(count, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    learning = [points, *(parameter for parameter in built.parameters() if parameter.requires_grad)]

    def gradients(z: Tensor, log_determinant: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            (weights[:, :6] * z).sum() + (weights[:, 6] * log_determinant).sum(), learning
        )

    torch.testing.assert_close(
        gradients(*transform(steps_of(built), points)), gradients(*built(points))
    )


@pytest.mark.parametrize("coupling", ["one_sided", "glow"])
def test_gradient_equals_differences(coupling: str) -> None:
    built = network(coupling, 2)
    assert torch.autograd.gradcheck(
        lambda points: transform(steps_of(built), points), rows(2).requires_grad_()
    )


def test_the_fused_gradient_is_taken_once() -> None:
    z, _ = fused.transform(steps_of(network("one_sided")), rows())
    z.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken once"):
        z.sum().backward()


@both_ways
def test_frozen_parameters_still_pass_gradients_to_the_points(transform: Transform) -> None:
    built, points = network("one_sided").requires_grad_(False), rows().requires_grad_()
    (found,) = torch.autograd.grad(transform(steps_of(built), points)[1].sum(), points)
    (expected,) = torch.autograd.grad(built(points)[1].sum(), points)
    torch.testing.assert_close(found, expected)


def test_a_copied_or_loaded_flow_goes_by_its_own_parameters() -> None:
    flow, other = (
        FlowDensity(6, 3, FlowArchitecture(blocks=2, hidden=5)),
        FlowDensity(6, 3, FlowArchitecture(blocks=2, hidden=5), seed=1),
    )
    expected = flow.log_prob(rows(4).float())
    copied = deepcopy(flow)
    flow.load_state_dict(other.state_dict())
    torch.testing.assert_close(copied.log_prob(rows(4).float()), expected)
    torch.testing.assert_close(flow.log_prob(rows(4).float()), other.log_prob(rows(4).float()))
    assert not torch.allclose(flow.log_prob(rows(4).float()), expected)


@pytest.mark.parametrize("coupling", ["one_sided", "glow"])
@pytest.mark.parametrize("count", [1, 9])
def test_the_inverse_in_few_calls_is_freias(coupling: str, count: int) -> None:
    built, z = network(coupling), rows(count)
    with torch.no_grad():
        expected, _ = built(z, rev=True)
    torch.testing.assert_close(invert(steps_of(built), z), expected)  # type: ignore[arg-type]
