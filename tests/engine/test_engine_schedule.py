"""The learning rates are those of their closed forms and of the peers' code."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from brnf.engine.schedule import decay, fewest_steps, polynomial, total_steps

REFERENCE = Path(__file__).parents[1] / "reference"


def test_the_polynomial_by_hand() -> None:
    assert polynomial(0, 10) == 1
    assert polynomial(5, 10) == pytest.approx(0.5**0.9, rel=1e-12)
    assert polynomial(9, 10, 2.0) == pytest.approx(0.01, rel=1e-12)
    assert polynomial(10, 10) == polynomial(11, 10) == polynomial(1, 0) == 0
    assert polynomial(10, 10, beyond=1) == pytest.approx((1 / 11) ** 0.9, rel=1e-12)


def test_the_polynomial_may_change_now_and_then() -> None:
    found = [polynomial(step, 12, every=5) for step in range(12)]
    assert [len(list(same)) for _, same in itertools.groupby(found)] == [5, 5, 2]
    assert found[::5] == [polynomial(step, 12) for step in (0, 5, 10)]


def test_sipes_polynomial() -> None:
    stored = np.load(REFERENCE / "sipe.npz")["step_rates_f64"]
    shares = [polynomial(step, 20) for step in range(len(stored))]
    np.testing.assert_allclose(np.outer(shares, stored[0]), stored, rtol=1e-9)


def test_the_polynomials_of_deeplab_pytorch_and_hsc() -> None:
    stored = np.load(REFERENCE / "deeplab.npz")
    steps = stored["schedule_steps"].tolist()
    for total, rates in zip(stored["schedule_totals"], stored["schedule_f64"], strict=True):
        shares = [polynomial(step, int(total), every=10) for step in steps]
        np.testing.assert_allclose(np.outer(shares, [2.5e-4, 2.5e-3, 5e-3]), rates, rtol=1e-9)
    shares = [polynomial(step, 20_000, beyond=1) for step in steps]
    rates = stored["hsc_schedule_f64"]
    multiples = stored["hsc_group_multiples"]
    np.testing.assert_allclose(np.outer(shares, 1e-3 * multiples), rates, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "middle", "quarter"),
    [("exponential", 0.1, 0.01**0.25), ("cosine", 0.505, 0.01 + 0.99 * (0.5 + 0.125**0.5))],
)
def test_decays_end_at_the_final_share_and_stay_there(
    kind: str, middle: float, quarter: float
) -> None:
    found = [decay(kind, step, 41, 0.01) for step in range(45)]
    assert found[0] == 1
    assert found[10] == pytest.approx(quarter, rel=1e-9)
    assert found[20] == pytest.approx(middle, rel=1e-12)
    assert found[40:] == pytest.approx([0.01] * 5, rel=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(found[:41]))
    assert {decay(kind, step, 9, 1.0) for step in range(12)} == {1.0}
    assert decay(kind, 0, 1, 0.01) == decay(kind, 0, 0, 0.01) == 1


def test_ddfps_decay_is_the_same_factor_after_every_epoch() -> None:
    """DDFP: ``ExponentialLR`` with gamma ``0.01 ** (1 / epochs)``."""
    found = [decay("exponential", step, 101, 0.01) for step in range(101)]
    factors = [later / earlier for earlier, later in itertools.pairwise(found)]
    assert factors == pytest.approx([0.01 ** (1 / 100)] * 100, rel=1e-12)


def test_steps_of_a_training() -> None:
    assert total_steps(100, 16, 5, None) == (6, 30)
    assert total_steps(100, 16, 5, 7) == (6, 7)
    assert total_steps(3, 16, 5, None) == (1, 5)
    assert total_steps(3, 16, 5, 0) == (1, 0)


def test_epochs_shorten_a_training_of_few_images_only() -> None:
    assert fewest_steps(480, 8, 150, None) == fewest_steps(480, 8, 150, 100) == 150
    assert fewest_steps(6, 8, 150, 100) == 75
    assert fewest_steps(1, 8, 150, 1) == 1, "a training takes a step at least"
