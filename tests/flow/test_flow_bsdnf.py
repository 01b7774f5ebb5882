"""The four denoising rules: hand-worked cases, exact shares, monotony in xi, enlarging."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brnf.flow.bsdnf import (
    Calibration,
    CalibrationFit,
    Rule,
    decision_margin,
    enlarge_margin,
    suppress,
)
from brnf.flow.posterior import tempered_posterior


def hand_made() -> tuple[torch.Tensor, torch.Tensor, Calibration]:
    """Return eleven pixels of class 1 with log p(v|1) = 0, 10 ... 100 and log p(v|0) = 50, all
    predicted foreground.
    """
    own = torch.arange(0, 101, 10).float()
    log_prob = torch.stack([torch.full((11,), 50.0), own, torch.full((11,), -1000.0)], 1)
    label = torch.ones(11, dtype=torch.uint8)
    fit = CalibrationFit(3, 0.3, 0.7)
    fit.update(log_prob, label, torch.full((11,), 0.9), torch.full((11,), 0.1))
    return log_prob, label, fit.finish(10.0)


def suppressed(rule: Rule, xi: float, population: str = "predicted") -> list[int]:
    log_prob, label, calibration = hand_made()
    allowed = torch.tensor([True, True, False]).expand(11, 3)
    margin = decision_margin(rule, xi, log_prob, label, allowed, calibration, population)  # type: ignore[arg-type]
    assert margin.dtype == torch.float32
    return torch.nonzero(margin < 0).squeeze(1).tolist()


def test_quantile_by_hand() -> None:
    # The 10 % quantile of 0, 10 ... 100 is 10: only 0 lies below it. At 25 % it is 25.
    assert suppressed("quantile", 0.9) == [0]
    assert suppressed("quantile", 0.75) == [0, 1, 2]
    assert suppressed("quantile", 1.0) == []


def test_ratio_by_hand() -> None:
    # Here log p(v|0) is constant, so the order is that of the quantile rule.
    assert suppressed("ratio", 0.75) == [0, 1, 2]
    log_prob, label, calibration = hand_made()
    shifted = log_prob.clone()
    shifted[:, 0] = torch.tensor([-60.0] + [50.0] * 10)
    margin = decision_margin(
        "ratio", 0.75, shifted, label, torch.ones(11, 3, dtype=torch.bool), calibration
    )
    # Pixel 0 explains itself 60 nats better than the background does, now; the quantile stays that
    # of the store.
    assert torch.nonzero(margin < 0).squeeze(1).tolist() == [1, 2]
    assert float(margin[0]) == pytest.approx(60 - (25 - 50))


def test_likelihood_by_hand() -> None:
    # 1st and 99th percentile are 1 and 99: 10 maps to 9/98 = 0.0918, 20 to 19/98 = 0.194, 30 to
    # 29/98 = 0.296.
    assert suppressed("likelihood", 0.9) == [0, 1]
    assert suppressed("likelihood", 0.8) == [0, 1, 2]
    log_prob, label, calibration = hand_made()
    margin = decision_margin(
        "likelihood", 0.8, log_prob, label, torch.ones(11, 3, dtype=torch.bool), calibration
    )
    assert float(margin[3]) == pytest.approx(29 / 98 - 0.2, abs=1e-5)
    assert float(margin[0]) == pytest.approx(-0.2)
    assert float(margin[10]) == pytest.approx(0.8)


def test_likelihood_is_not_ruled_by_one_outlier() -> None:
    log_prob = torch.zeros(1001, 2)
    log_prob[:, 1] = torch.arange(1001).float()
    log_prob[0, 1] = -1e6
    label, allowed = torch.ones(1001, dtype=torch.int64), torch.ones(1001, 2, dtype=torch.bool)
    fit = CalibrationFit(2, 0.3, 0.7)
    fit.update(log_prob, label, torch.ones(1001), torch.zeros(1001))
    margin = decision_margin("likelihood", 0.9, log_prob, label, allowed, fit.finish(1.0))
    assert 90 <= int((margin < 0).sum()) <= 130


def test_posterior_by_hand() -> None:
    # At T = 10, p(0|v) = 1 / (1 + exp((own - 50) / 10)) > 0.9 where own < 50 - 10 log 9 = 28.03.
    assert suppressed("posterior", 0.9) == [0, 1, 2]
    assert suppressed("posterior", 0.5) == [0, 1, 2, 3, 4]
    log_prob, label, calibration = hand_made()
    allowed = torch.tensor([True, True, False]).expand(11, 3)
    margin = decision_margin("posterior", 0.9, log_prob, label, allowed, calibration)
    torch.testing.assert_close(margin, 0.9 - tempered_posterior(log_prob, allowed, 10.0)[:, 0])


def test_populations() -> None:
    """Scores decide the populations, exactly at the thresholds."""
    score = torch.tensor([0.2, 0.3, 0.4, 0.6, 0.7, 0.9], dtype=torch.float16)
    background = torch.tensor([0.1, 0.7, 0.6, 0.4, 0.7, 0.1], dtype=torch.float16)
    log_prob = torch.zeros(6, 2)
    log_prob[:, 1] = torch.arange(6)
    fit = CalibrationFit(2, 0.3, 0.7)
    fit.update(log_prob, torch.ones(6, dtype=torch.uint8), score, background)
    tables = fit.finish(1.0).likelihood
    ends = {
        name: (float(table[1, 0]), float(table[1, -1]), float(table[1, 500]))
        for name, table in tables.items()
    }
    assert ends == {
        "predicted": (0.0, 5.0, 3.0),
        "above_low": (2.0, 5.0, 3.5),
        "above_high": (4.0, 5.0, 4.5),
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.sampled_from([0.95, 0.9, 0.85, 0.8, 0.5]), st.integers(0, 99))
def test_quantile_depresses_the_lowest_share(count: int, xi: float, seed: int) -> None:
    log_prob = 100 * torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    label, allowed = torch.ones(count, dtype=torch.int64), torch.ones(count, 2, dtype=torch.bool)
    fit = CalibrationFit(2, 0.3, 0.7)
    fit.update(log_prob, label, torch.ones(count), torch.zeros(count))
    margin = decision_margin("quantile", xi, log_prob, label, allowed, fit.finish(1.0))
    gone = margin < 0
    assert abs(int(gone.sum()) - (1 - xi) * count) < 1.0001
    if gone.any() and not gone.all():
        assert log_prob[gone, 1].max() < log_prob[~gone, 1].min()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(get_args(Rule)),
    st.sampled_from(["predicted", "above_low", "above_high"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 20),
)
def test_higher_xi_depresses_a_subset(
    rule: Rule, population: str, one: float, other: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_prob = 20 * torch.randn(120, 4, generator=generator)
    label = torch.randint(1, 4, (120,), generator=generator)
    allowed = torch.rand(120, 4, generator=generator) < 0.5
    allowed[:, 0] = True
    allowed[torch.arange(120), label] = True
    fit = CalibrationFit(4, 0.3, 0.7)
    fit.update(
        log_prob, label, torch.rand(120, generator=generator), torch.rand(120, generator=generator)
    )
    calibration = fit.finish(15.0)
    low, high = sorted((one, other))
    few, many = (
        decision_margin(rule, xi, log_prob, label, allowed, calibration, population) < 0
        for xi in (high, low)
    )  # type: ignore[arg-type]
    assert bool((many | ~few).all())


@pytest.mark.parametrize("rule", ["quantile", "likelihood", "ratio"])
def test_a_class_without_population_is_left_alone(rule: Rule) -> None:
    log_prob, _, calibration = hand_made()
    assert bool(calibration.likelihood["predicted"][2].eq(-math.inf).all())
    label = torch.full((11,), 2)
    margin = decision_margin(
        rule, 0.333, log_prob, label, torch.ones(11, 3, dtype=torch.bool), calibration
    )
    assert margin.tolist() == [math.inf] * 11


def test_kept_values_stay_bounded_and_true() -> None:
    random = np.random.default_rng(0)
    fit = CalibrationFit(2, 0.3, 0.7, limit=500)
    for _ in range(40):
        log_prob = torch.from_numpy(random.normal(size=(300, 2)).astype(np.float32))
        fit.update(log_prob, torch.ones(300, dtype=torch.int64), torch.ones(300), torch.zeros(300))
    assert sum(map(len, fit._kept["predicted", 1])) <= 1300
    table = fit.finish(1.0).likelihood["predicted"][1]
    assert float(table[100]) == pytest.approx(-1.2816, abs=0.25)
    assert float(table[500]) == pytest.approx(0, abs=0.2)


def test_depress_changes_depressed_pixels_alone() -> None:
    values = torch.tensor([[[0.2, 0.3, 0.4]], [[0.8, 0.5, 0.1]], [[0.1, 0.7, 0.6]]])
    margin = torch.tensor([[-0.1, 0.0, 0.1]])
    before = values.clone()
    expected = torch.tensor([[[1.0, 0.3, 0.4]], [[0.0, 0.5, 0.1]], [[0.0, 0.7, 0.6]]])
    assert torch.equal(suppress(values, margin, 0.0), expected)
    halved = suppress(values, margin, 0.5)
    assert halved[:, 0, 0].tolist() == pytest.approx([1.0, 0.4, 0.05])
    assert torch.equal(halved[:, :, 1:], before[:, :, 1:])
    assert torch.equal(values, before)


def test_enlarging_the_margin() -> None:
    margin = torch.tensor([[-1.0, 3.0]])
    nearest = enlarge_margin(margin, (2, 8), "nearest")
    assert (nearest < 0).tolist() == [[True] * 4 + [False] * 4] * 2
    bilinear = enlarge_margin(margin, (1, 8), "bilinear")
    # Centres of the grid lie at 1.5 and 5.5; the margin crosses 0 a quarter of the way: at 2.5.
    assert bilinear[0].tolist() == pytest.approx([-1, -1, -0.5, 0.5, 1.5, 2.5, 3, 3])


def test_infinite_margins_stay_finite_and_harmless() -> None:
    margin = torch.tensor([[-2.0, math.inf, 1.0]])
    enlarged = enlarge_margin(margin, (3, 9), "bilinear")
    assert bool(enlarged.isfinite().all())
    torch.testing.assert_close(
        enlarged, enlarge_margin(torch.tensor([[-2.0, 2.0, 1.0]]), (3, 9), "bilinear")
    )
    assert bool((enlarge_margin(torch.full((2, 2), math.inf), (4, 4), "nearest") > 0).all())
