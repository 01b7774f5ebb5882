"""The flow against autograd's Jacobian, its mixture against torch.distributions, its
standardisation, its file.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributions

from brnf.config.sections.flow import FlowArchitecture
from brnf.errors import UserError
from brnf.flow.density import Density, FlowDensity, RunningMoments
from brnf.flow.mixture import LatentMixture, _log_prob, _LogProb, log_marginal
from brnf.flow.realnvp import build_real_nvp
from brnf.flow.saved import KIND, load_density, save_density
from brnf.store.networks import read_network
from brnf.store.tensors import write_tensors

ARCHITECTURES = [("one_sided", 5, 0), ("one_sided", 8, 3), ("glow", 2, 0), ("glow", 4, 7)]


def strong_flow(
    coupling: str, blocks: int, seed: int, dimension: int = 6, classes: int = 4
) -> FlowDensity:
    """Return a float64 flow far from the identity, with a standardisation."""
    flow = FlowDensity(
        dimension, classes, FlowArchitecture(coupling=coupling, blocks=blocks, hidden=16), seed
    ).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.network.parameters():
            if parameter.requires_grad:
                parameter.copy_(
                    0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                )
    mean = torch.randn(dimension, generator=generator, dtype=torch.float64)
    flow.fit_standardisation(
        mean, 0.1 + torch.rand(dimension, generator=generator, dtype=torch.float64)
    )
    return flow


ROUNDINGS = 2 * ((3 + 1) + (16 + 1) + 4)
"""Of a coupling with 3 inputs, 16 hidden units and biases, there and back. Whatever the order of
its terms, and with fused multiplications or without, a sum of n is that of terms changed by at most
n roundings each (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1): all that
processors differ by. Arc tangent, exponential, product and sum add one each.
"""


def change_of_round_trip(flow: FlowDensity, features: Tensor) -> Tensor:
    """Return how far each row of features [N, D] comes back from where it was, [N], when every
    parameter of the way forwards is another by one rounding, and those of the way back are not.

    That is the condition of the round trip, measured; at this size of change it is linear.
    """
    generator, size = torch.Generator().manual_seed(0), 1e-8
    changes = []
    with torch.no_grad():
        for _ in range(16):
            other = copy.deepcopy(flow)
            for parameter in other.network.parameters():
                if parameter.requires_grad:
                    change = 2 * torch.rand(parameter.shape, generator=generator).double() - 1
                    parameter.mul_(1 + size * change)
            changes.append((flow.inverse(other.latent(features)[0]) - features).norm(dim=1))
    return torch.stack(changes).amax(0) * torch.finfo(torch.float64).eps / size


def by_autograd(flow: FlowDensity, point: Tensor) -> tuple[Tensor, float]:
    """Return log |det dz/dv| at a point [D], and how much one rounding of dz/dv may change it.

    d log |det J| = trace(J^-1 dJ), so that relative changes of the entries weigh trace(|J^-1| |J|).
    """
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.latent(v[None])[0][0], point)
    weight = (jacobian.inverse().abs() * jacobian.abs().T).sum()
    log_determinant = torch.linalg.slogdet(jacobian).logabsdet
    return log_determinant, float(weight * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize(("coupling", "blocks", "seed"), ARCHITECTURES)
def test_inverse_and_log_determinant(coupling: str, blocks: int, seed: int) -> None:
    flow = strong_flow(coupling, blocks, seed)
    features = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        z, log_determinant = flow.latent(features)
        away = (flow.inverse(z) - features).norm(dim=1)
    assert (z - features).abs().max() > 0.5
    allowed = ROUNDINGS * change_of_round_trip(flow, features)
    assert bool((away <= allowed).all()), f"{away} where {allowed} are allowed"
    assert allowed.median() < 1e-7 and allowed.max() < 1e-5, "the flow is too strong to tell"
    for i in range(7):
        expected, one_rounding = by_autograd(flow, features[i])
        allowed = ROUNDINGS * one_rounding
        torch.testing.assert_close(log_determinant[i], expected, rtol=0, atol=allowed)


@pytest.mark.parametrize(("coupling", "blocks", "seed"), ARCHITECTURES)
def test_log_density_is_the_change_of_variables(coupling: str, blocks: int, seed: int) -> None:
    flow = strong_flow(coupling, blocks, seed)
    features = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = flow.class_log_prob(features)
    for i in range(5):
        z = flow.latent(features[i : i + 1])[0][0]
        log_determinant, one_rounding = by_autograd(flow, features[i])
        for k in range(4):
            latent = distributions.MultivariateNormal(
                flow.mixture.means[k], torch.eye(6, dtype=torch.float64)
            )
            # The mixture's part has the relative error of a sum of squares, far below 1e-7.
            expected = latent.log_prob(z) + log_determinant
            allowed = ROUNDINGS * one_rounding
            torch.testing.assert_close(found[i, k], expected, rtol=1e-7, atol=allowed)


def test_density_integrates_to_one() -> None:
    flow = strong_flow("one_sided", 4, 1, dimension=2, classes=2)
    with torch.no_grad():
        flow.mixture.means.mul_(0.5)
        draws = flow.inverse(
            flow.mixture.means[1]
            + torch.randn(20000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        )
    low, high = draws.min(0).values - 1, draws.max(0).values + 1
    axes = [
        torch.linspace(float(low[d]), float(high[d]), 1200, dtype=torch.float64) for d in range(2)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    cell = float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))
    assert float(flow.log_prob(grid)[:, 1].double().exp().sum()) * cell == pytest.approx(
        1, abs=0.01
    )


def test_density_equals_a_transformed_distribution() -> None:
    # Without couplings only the standardisation and the mixture remain.
    flow = FlowDensity(4, 3, FlowArchitecture(blocks=0)).double()
    mean, std = (
        torch.tensor([5.0, -3, 0, 1]).double(),
        torch.tensor([0.1, 2, 30, 0.5]).double(),
    )
    flow.fit_standardisation(mean, std)
    # FrEIA's empty sequence returns log-determinant 0.
    features = mean + std * torch.randn(6, 4, dtype=torch.float64)
    for k in range(3):
        base = distributions.Independent(
            distributions.Normal(flow.mixture.means[k], torch.ones(4).double()), 1
        )
        expected = distributions.TransformedDistribution(
            base, distributions.AffineTransform(mean, std, event_dim=1)
        )
        found = flow.mixture.log_prob(flow.standardise(features))[:, k] - std.log().sum()
        torch.testing.assert_close(found, expected.log_prob(features))


def test_units_of_the_density_follow_the_features() -> None:
    """Scaling features by 10 lowers the log-density by D log 10, standardised or not."""
    torch.manual_seed(0)
    features = torch.randn(50, 4)
    flows = []
    for scale in (1.0, 10.0):
        flow = FlowDensity(4, 2, FlowArchitecture(blocks=2, hidden=8))
        moments = RunningMoments(4)
        moments.update(features * scale)
        flow.fit_standardisation(moments.mean, moments.std())
        flows.append(flow.log_prob(features * scale))
    torch.testing.assert_close(flows[1], flows[0] - 4 * math.log(10), rtol=1e-5, atol=1e-4)


def test_tiles_equal_the_whole() -> None:
    flow = FlowDensity(4, 3, FlowArchitecture(blocks=2, hidden=8))
    features = torch.randn(5000, 4)
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(features), flow.class_log_prob(features))
    assert flow.log_prob(features[:0]).shape == (0, 3)
    assert flow.log_prob(features.half()).dtype == torch.float32
    assert not flow.log_prob(features).requires_grad
    assert isinstance(flow, Density)


def channels_together(points: Tensor) -> Tensor:
    """Return the same points [N, D] in the order of memory in which the couplings leave them."""
    return points.T.contiguous().T


@pytest.mark.parametrize("ordered", [Tensor.contiguous, channels_together])
def test_mixture_against_torch_distributions(ordered: Callable[[Tensor], Tensor]) -> None:
    mixture = LatentMixture(5, 7, True, 0).double()
    z = ordered(3 * torch.randn(11, 7, dtype=torch.float64))
    means = mixture.means.detach()
    for k in range(5):
        normal = distributions.Independent(
            distributions.Normal(means[k], torch.ones(7).double()), 1
        )
        torch.testing.assert_close(mixture.log_prob(z).detach()[:, k], normal.log_prob(z))
    components = distributions.Independent(
        distributions.Normal(means, torch.ones(5, 7).double()), 1
    )
    whole = distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(5).double()), components
    )
    torch.testing.assert_close(log_marginal(mixture.log_prob(z)).detach(), whole.log_prob(z))


@pytest.mark.parametrize("ordered", [Tensor.contiguous, channels_together])
def test_mixture_gradients_against_the_plain_formula(ordered: Callable[[Tensor], Tensor]) -> None:
    mixture = LatentMixture(3, 4, True, 0).double()
    z = ordered(torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(6, 3, dtype=torch.float64)
    found = torch.autograd.grad((weights * mixture.log_prob(z)).sum(), [z, mixture.means])
    plain = -0.5 * (z.unsqueeze(1) - mixture.means).square().sum(2)
    expected = torch.autograd.grad((weights * plain).sum(), [z, mixture.means])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ordered", [Tensor.contiguous, channels_together])
def test_the_written_out_gradient_of_the_mixture_is_autograds(
    ordered: Callable[[Tensor], Tensor],
) -> None:
    means = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    z = ordered(torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(3, 6, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((weights * way(means, z)).sum(), [means, z])
        for way in (_LogProb.apply, _log_prob)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ordered", [Tensor.contiguous, channels_together])
def test_means_far_from_the_origin_keep_their_digits(ordered: Callable[[Tensor], Tensor]) -> None:
    mixture = LatentMixture(4, 64, True, 0)
    with torch.no_grad():
        mixture.means.add_(1000.0)
    z = ordered(mixture.means.detach()[:1] + torch.randn(20, 64))
    found = mixture.log_prob(z).detach()
    expected = -0.5 * (
        (z.double().unsqueeze(1) - mixture.means.detach().double()).square().sum(2)
        + 64 * math.log(2 * math.pi)
    )
    assert float((found.double() - expected).abs().max()) < 1e-3


def test_samples_have_the_latent_moments() -> None:
    flow = strong_flow("glow", 2, 5).float()
    drawn = flow.sample(torch.full((4000,), 2), 0.5, torch.Generator().manual_seed(0))
    z = flow.latent(drawn)[0]
    torch.testing.assert_close(z.mean(0), flow.mixture.means[2], atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(0), torch.full((6,), 0.5), atol=0.03, rtol=0)
    assert not drawn.requires_grad


def test_gradient_reaches_parameters_and_means() -> None:
    flow = FlowDensity(4, 3, FlowArchitecture(blocks=2, hidden=8))
    flow.class_log_prob(torch.randn(5, 4)).sum().backward()
    assert all(
        parameter.grad is not None for parameter in flow.parameters() if parameter.requires_grad
    )
    fixed = FlowDensity(4, 3, FlowArchitecture(blocks=2, hidden=8, learn_means=False))
    assert not fixed.mixture.means.requires_grad


def test_autocast_around_the_flow_changes_nothing() -> None:
    flow = FlowDensity(8, 3, FlowArchitecture(blocks=4, hidden=16))
    features = torch.randn(20, 8)
    plain = (
        flow.log_prob(features),
        flow.class_log_prob(features),
        flow.inverse(features),
        *flow.latent(features),
    )
    with torch.autocast("cpu", torch.bfloat16):
        cast = (
            flow.log_prob(features),
            flow.class_log_prob(features),
            flow.inverse(features),
            *flow.latent(features),
        )
    for one, other in zip(plain, cast, strict=True):
        assert other.dtype == torch.float32 and torch.equal(one, other)


def test_odd_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        build_real_nvp(5, FlowArchitecture(blocks=2, hidden=8), 0)


def test_building_touches_no_global_generator() -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    expected = (np.random.rand(), torch.rand(1))
    np.random.seed(5)
    torch.manual_seed(5)
    FlowDensity(6, 3, FlowArchitecture(), seed=1)
    assert (np.random.rand(), torch.rand(1)) == expected


def test_permutations_differ_between_blocks_and_seeds() -> None:
    def permutations(seed: int) -> list[list[int]]:
        network = build_real_nvp(16, FlowArchitecture(blocks=4, hidden=8), seed)
        return [network[i].perm.tolist() for i in (1, 3, 5, 7)]

    assert permutations(0) == permutations(0)
    assert permutations(0) != permutations(1)
    assert len({tuple(permutation) for permutation in permutations(0)}) == 4


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6), st.floats(-1e4, 1e4), st.integers(0, 100)
)
def test_running_moments_equal_those_of_all_rows(
    sizes: list[int], offset: float, seed: int
) -> None:
    rows = [
        offset + np.random.default_rng(seed + i).normal(size=(size, 3))
        for i, size in enumerate([*sizes, 5])
    ]
    moments = RunningMoments(3)
    for batch in rows:
        moments.update(torch.from_numpy(batch))
    whole = np.concatenate(rows)
    np.testing.assert_allclose(moments.mean.numpy(), whole.mean(0), rtol=1e-9)
    np.testing.assert_allclose(moments.std().numpy(), whole.std(0), rtol=1e-6)


def test_running_moments_forget_behind_their_window() -> None:
    moments = RunningMoments(2, window=100)
    moments.update(torch.full((1000, 2), 50.0))
    for _ in range(20):
        moments.update(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))
    assert float(moments.mean.abs().max()) < 0.5
    assert float(moments.std().max()) < 2


def test_a_dead_channel_is_not_blown_up() -> None:
    moments = RunningMoments(3)
    moments.update(torch.cat([torch.randn(100, 2), torch.zeros(100, 1)], 1))
    assert float(moments.std()[2]) == pytest.approx(
        0.01 * float(moments.squares.div(100).mean().sqrt())
    )
    moments = RunningMoments(2)
    moments.update(torch.ones(10, 2))
    assert moments.std().tolist() == [1, 1]


def test_file_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    options = FlowArchitecture(coupling="glow", blocks=2, hidden=8)
    flows = [FlowDensity(4, 3, options, seed=4) for _ in range(2)]
    flows[0].fit_standardisation(torch.ones(4), torch.full((4,), 2.0))
    flows[1].fit_standardisation(torch.ones(4), torch.full((4,), 2.0))
    save_density(tmp_path / "one.pt", flows[0])
    save_density(tmp_path / "another_name.pt", flows[1])
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another_name.pt").read_bytes()
    loaded, calibration = load_density(tmp_path / "one.pt")
    features = torch.randn(9, 4)
    assert torch.equal(loaded.log_prob(features), flows[0].log_prob(features))
    assert calibration is None


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path, options = tmp_path / "flow.pt", FlowArchitecture(blocks=1, hidden=8, noise_unit="std")
    flow = FlowDensity(4, 3, options, seed=4)
    flow.fit_standardisation(torch.ones(4), torch.full((4,), 2.0))
    save_density(path, flow)
    content = read_network(path, KIND)
    content["options"]["options"]["noise_unit"] = "deviation"
    content["state"]["deviation"] = content["state"].pop("std")
    write_tensors(path, content)
    loaded, _ = load_density(path)
    features = torch.randn(9, 4)
    assert torch.equal(loaded.log_prob(features), flow.log_prob(features))
    assert loaded.options == options


def test_damaged_files_end_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "flow.pt"
    with pytest.raises(UserError, match="no such file; run train_flow first"):
        load_density(path)
    save_density(path, FlowDensity(4, 3, FlowArchitecture(blocks=1, hidden=8)))
    content = path.read_bytes()
    others = {"cut": content[: len(content) // 2], "text": b"not a flow", "empty": b""}
    for damaged in others.values():
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"flow\.pt: [^\n]*damaged") as caught:
            load_density(path)
        assert "\n" not in str(caught.value)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no network file"):
        load_density(path)
