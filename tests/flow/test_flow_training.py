"""Training: better than a Gaussian where a Gaussian is wrong, reproducible, safe; the online flow
resumes exactly.
"""

import io
import math

import pytest
import torch

from brnf.config.sections.cam import Online
from brnf.config.sections.flow import (
    Baseline,
    FlowArchitecture,
    FlowInTraining,
    FlowTraining,
    Noise,
    NoiseUnit,
)
from brnf.errors import UserError
from brnf.flow.density import FlowDensity, RunningMoments, StandardisedDensity
from brnf.flow.gaussian import build_gaussian, fit_gaussian
from brnf.flow.loss import mixture_loss
from brnf.flow.online import OnlineFlow
from brnf.flow.posterior import tempered_posterior
from brnf.flow.training import (
    FlowTrainer,
    HeldOut,
    balanced_rows,
    held_out_loss,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def moons(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two interleaved half circles in 2 of 4 correlated dimensions, class 0 and 1, a third
    unlabelled.
    """
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (count,), generator=generator)
    angle = math.pi * torch.rand(count, generator=generator)
    sign = 1 - 2 * label
    x = torch.stack([angle.cos() + label, sign * angle.sin() + 0.5 * label], 1)
    x = x + 0.08 * torch.randn(count, 2, generator=generator)
    rest = 0.3 * torch.randn(count, 2, generator=generator) + torch.stack(
        [x[:, 0] * x[:, 1], x[:, 1].square()], 1
    )
    targets = torch.where(torch.rand(count, generator=generator) < 0.33, -1, label)
    return 7 + 3 * torch.cat([x, rest], 1), targets


def online_flow(options: FlowInTraining, updates: int = 10_000, **online: int) -> OnlineFlow:
    return OnlineFlow(4, 2, options, Online(**online), updates=updates)


def trained(steps: int = 250, **changes: object) -> tuple[FlowDensity, FlowTrainer, HeldOut]:
    features, targets = moons(3000, 0)
    flow = FlowDensity(4, 2, FlowArchitecture(blocks=6, hidden=32))
    moments = RunningMoments(4)
    moments.update(features)
    flow.fit_standardisation(moments.mean, moments.std())
    held_out = HeldOut.draw(*moons(1000, 1), Noise(noise=0.05, noise_unit="feature"), seed=0)
    trainer = FlowTrainer(flow, FlowTraining(steps=steps, learning_rate=5e-3, **changes), held_out)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, 3000, (256,), generator=generator)
        trainer.step((features[rows], targets[rows]))
    trainer.restore_best()
    return flow, trainer, held_out


def test_flow_beats_gaussians_on_moons() -> None:
    flow, trainer, held_out = trained(decay="cosine")
    features, targets = moons(3000, 0)
    labelled = held_out.targets >= 0

    def accuracy(density: StandardisedDensity) -> float:
        return float(
            (density.log_prob(held_out.features).argmax(1) == held_out.targets)[labelled]
            .float()
            .mean()
        )

    losses = {"flow": held_out_loss(flow, held_out)}
    for kind in ("gaussian_diagonal", "gaussian_full"):
        density = build_gaussian(kind, 4, 2, Baseline())  # type: ignore[arg-type]
        density.fit_standardisation(flow.mean, flow.std)
        fit_gaussian(density, [(features, targets)])
        losses[kind] = held_out_loss(density, held_out)
        assert accuracy(flow) > accuracy(density) + 0.02
    assert losses["flow"] < losses["gaussian_full"] - 0.4 < losses["gaussian_diagonal"] - 0.4, (
        losses
    )
    # The best held-out state is the one kept, and units are nats per dimension.
    judged = [row["held_out"] for row in trainer.history if not math.isnan(row["held_out"])]
    assert len(judged) == 10
    assert losses["flow"] / 4 == pytest.approx(min(judged), abs=1e-6)


@pytest.mark.parametrize(("decay", "middle"), [("exponential", 0.1), ("cosine", 0.505)])
def test_learning_rate_falls_to_one_percent(decay: str, middle: float) -> None:
    _, trainer, _ = trained(steps=31, decay=decay)
    rates = [row["learning_rate"] for row in trainer.history]
    assert rates[0] == pytest.approx(5e-3)
    assert rates[15] == pytest.approx(5e-3 * middle)
    assert rates[-1] == pytest.approx(5e-5)
    assert rates == sorted(rates, reverse=True)


def test_noise_in_feature_units_is_noise_of_the_features() -> None:
    """Noise added before or after the standardisation is the same, in its unit."""
    features, _ = moons(50, 0)
    flow = FlowDensity(4, 2, FlowArchitecture(blocks=2, hidden=8))
    flow.fit_standardisation(features.mean(0), torch.tensor([0.5, 2.0, 4.0, 0.1]))
    noise = 0.05 * torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    raw = flow.class_log_prob(features + noise)
    found = flow.class_log_prob(features, flow.in_std(noise, "feature"))
    torch.testing.assert_close(found, raw, rtol=1e-4, atol=1e-3)
    larger = flow.class_log_prob(features + noise * flow.std)
    found = flow.class_log_prob(features, flow.in_std(noise, "std"))
    torch.testing.assert_close(found, larger, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("unit", ["feature", "std"])
def test_held_out_rows_are_judged_under_noise_of_the_unit(unit: NoiseUnit) -> None:
    features, targets = moons(400, 0)
    flow = FlowDensity(4, 2, FlowArchitecture(blocks=2, hidden=8))
    flow.fit_standardisation(features.mean(0), torch.tensor([0.5, 2.0, 4.0, 0.1]))
    drawn = torch.randn(400, 4, generator=torch.Generator().manual_seed(3))
    scale = flow.std if unit == "std" else 1
    expected = mixture_loss(flow.log_prob(features + 0.2 * drawn * scale), targets)
    found = held_out_loss(
        flow, HeldOut.draw(features, targets, Noise(noise=0.2, noise_unit=unit), 3)
    )
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_trainers_add_noise_of_the_unit() -> None:
    """Stretched features matter for noise in feature units, not for noise in deviations."""
    features, targets = moons(200, 0)
    stretch = torch.tensor([10.0, 0.1, 4.0, 1.0])
    losses = {}
    for unit in ("feature", "std"):
        options = FlowInTraining(blocks=2, hidden=8, noise=0.5, noise_unit=unit)  # type: ignore[arg-type]
        for name, rows, volume in (
            ("plain", features, 0.0),
            ("stretched", features * stretch, float(stretch.log().sum())),
        ):
            moments = RunningMoments(4)
            moments.update(rows)
            flow = FlowDensity(4, 2, options)
            flow.fit_standardisation(moments.mean, moments.std())
            offline = FlowTrainer(flow, FlowTraining(steps=9), None).step((rows, targets))["loss"]
            online = online_flow(options)
            allowed = torch.ones(200, 2, dtype=torch.bool)
            losses[unit, name] = (
                torch.tensor([offline, online.update(rows, targets, allowed)]) - volume / 4
            )
    difference = {
        unit: (losses[unit, "plain"] - losses[unit, "stretched"]).abs()
        for unit in ("feature", "std")
    }
    assert bool((difference["std"] < 1e-4).all()), difference
    assert bool((difference["feature"] > 0.05).all()), difference


def test_same_seed_same_bytes() -> None:
    def content() -> bytes:
        flow, _, _ = trained(steps=30, balanced=True)
        buffer = io.BytesIO()
        torch.save(flow.state_dict(), buffer)
        return buffer.getvalue()

    assert content() == content()


def test_non_finite_loss_names_the_step_and_keeps_the_last_good_state() -> None:
    features, targets = moons(300, 0)
    flow = FlowDensity(4, 2, FlowArchitecture(blocks=2, hidden=8))
    held_out = HeldOut.draw(features, targets, Noise(noise=0.05, noise_unit="feature"), 0)
    trainer = FlowTrainer(flow, FlowTraining(steps=100), held_out)
    for _ in range(25):
        trainer.step((features, targets))
    good = {name: value.clone() for name, value in flow.state_dict().items()}
    trainer.step((features, targets))
    broken = features.clone()
    broken[3, 1] = math.nan
    with pytest.raises(
        UserError, match=r"training step 27: the loss is nan; lower flow\.learning_rate"
    ):
        trainer.step((broken, targets))
    assert all(torch.equal(value, good[name]) for name, value in flow.state_dict().items())


def test_balanced_rows() -> None:
    targets = torch.tensor([0] * 900 + [1] * 90 + [3] * 10 + [-1] * 500)
    drawn = targets[balanced_rows(targets, torch.Generator().manual_seed(0))]
    assert len(drawn) == 1500
    counts = [int((drawn == k).sum()) for k in (-1, 0, 1, 3)]
    assert counts[0] == 500
    assert all(abs(count - 1000 / 3) < 60 for count in counts[1:])
    assert balanced_rows(torch.full((4,), -1), torch.Generator()).tolist() == [0, 1, 2, 3]


def batch(seed: int, count: int = 200) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features, targets = moons(count, seed)
    return features, targets, torch.ones(count, 2, dtype=torch.bool)


def test_online_flow_learns_and_its_temperature_follows() -> None:
    online = online_flow(
        FlowInTraining(blocks=4, hidden=32, learning_rate=5e-3), online_refit_interval=10
    )
    assert not online.ready(1)
    losses = [online.update(*batch(seed)) for seed in range(200)]
    assert online.ready(200) and not online.ready(201)
    assert sum(losses[-10:]) < sum(losses[:10]) - 5
    features, targets, allowed = batch(999, 2000)
    posterior = online.posterior(features, allowed)
    labelled = targets >= 0
    assert float((posterior.argmax(1) == targets)[labelled].float().mean()) > 0.88
    assert float(posterior[labelled].max(1).values.mean()) == pytest.approx(0.9, abs=0.04)
    assert not posterior.requires_grad
    expected = tempered_posterior(online.flow.log_prob(features), allowed, online.temperature)
    torch.testing.assert_close(posterior, expected)
    only = torch.tensor([True, False]).expand(2000, 2)
    torch.testing.assert_close(online.posterior(features, only)[:, 0], torch.ones(2000))


def test_online_standardisation_equals_all_rows_seen() -> None:
    online = online_flow(FlowInTraining(blocks=2, hidden=8, batch_rows=50))
    for seed in range(5):
        online.update(*batch(seed))
    seen = torch.cat([batch(seed)[0] for seed in range(5)]).double()
    torch.testing.assert_close(online.flow.mean, seen.mean(0).float())
    torch.testing.assert_close(online.flow.std, seen.std(0, unbiased=False).float())


def test_online_flow_takes_no_gradient_from_the_network() -> None:
    online = online_flow(FlowInTraining(blocks=2, hidden=8))
    features, targets, allowed = batch(0)
    features.requires_grad_()
    online.update(features, targets, allowed)
    assert features.grad is None


def test_online_flow_resumes_exactly() -> None:
    options = FlowInTraining(blocks=2, hidden=8, batch_rows=120)

    def make() -> OnlineFlow:
        return online_flow(options, updates=10, online_refit_interval=3, online_refit_rows=100)

    whole = make()
    for seed in range(10):
        whole.update(*batch(seed))
    first = make()
    for seed in range(5):
        first.update(*batch(seed))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second = make()
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for seed in range(5, 10):
        second.update(*batch(seed))
    assert second.temperature == whole.temperature
    assert second.updates == whole.updates == 10
    assert all(
        torch.equal(value, second.flow.state_dict()[name])
        for name, value in whole.flow.state_dict().items()
    )
    ones = torch.ones(5, dtype=torch.int64)
    assert torch.equal(second.sample(ones, 0.5), whole.sample(ones, 0.5))


@pytest.mark.parametrize(("decay", "middle"), [("exponential", 0.1), ("cosine", 0.505)])
def test_online_learning_rate_falls_over_the_training(decay: str, middle: float) -> None:
    options = FlowInTraining(blocks=1, hidden=4, learning_rate=0.1, decay=decay)  # type: ignore[arg-type]
    online = online_flow(options, updates=5)
    rates = []
    for seed in range(7):
        online.update(*batch(seed))
        rates.append(online.state_dict()["optimiser"]["param_groups"][0]["lr"])
    assert rates[0] == pytest.approx(0.1)
    assert rates[2] == pytest.approx(0.1 * middle)
    assert rates[4:] == pytest.approx([0.001] * 3)  # further updates keep the last rate


def test_running_moments_floor_a_dead_channel() -> None:
    rows = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 3
    for floor in (0.01, 0.2):
        moments = RunningMoments(4, floor=floor)
        moments.update(rows)
        mean_square = rows.double().var(0, unbiased=False).mean()
        assert float(moments.std()[2]) == pytest.approx(floor * float(mean_square.sqrt()))


def test_online_flow_has_its_floor_and_window() -> None:
    options = FlowInTraining(blocks=1, hidden=4, std_floor=0.5)
    online = online_flow(options, online_window=200)
    features, targets, allowed = batch(0)
    features[:, 2] = 3
    online.update(features, targets, allowed)
    assert float(online.flow.std[2]) == pytest.approx(
        0.5 * float(features.var(0, unbiased=False).mean().sqrt())
    )
    expected = features.mean(0)
    for seed in range(1, 4):
        online.update(*batch(seed))
        expected = (
            expected + batch(seed)[0].mean(0)
        ) / 2  # 200 rows of the past beside 200 new ones
    torch.testing.assert_close(online.flow.mean, expected)


def test_online_flow_with_a_fixed_temperature_and_bad_values() -> None:
    online = online_flow(FlowInTraining(blocks=2, hidden=8, temperature=25))
    online.update(*batch(0))
    assert online.temperature == 25
    features, targets, allowed = batch(1)
    features[0, 0] = math.nan
    with pytest.raises(UserError, match="update 2"):
        online.update(features, targets, allowed)
    with pytest.raises(ValueError, match="at least one row"):
        online.update(features[:0], targets[:0], allowed[:0])
