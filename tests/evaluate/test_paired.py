"""Two models are compared seed by seed, and the interval is that of the t distribution."""

import math
from pathlib import Path

import pytest

from brnf.errors import UserError
from brnf.evaluate.paired import interval, main, paired
from tests.evaluate.test_evaluate_stage import write_evaluation

SCORES = {"base": (0.48, 0.49, 0.485), "brnf": (0.62, 0.65, 0.63)}
T_OF_TWO_DEGREES = 4.302653
"""The 97.5 % point of Student's distribution, as tables print it."""


def results(folder: Path, **scores: tuple[float, ...]) -> Path:
    for model, values in scores.items():
        for seed, miou in enumerate(values):
            path = folder / model / f"seed{seed}/evaluation/cam_prototype-train.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_evaluation(path, model, "cam_prototype", seed, miou, miou / 2)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def test_the_interval_is_that_of_the_textbook() -> None:
    values = (14.0, 16.0, 14.5)
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    margin = T_OF_TWO_DEGREES * deviation / math.sqrt(3)
    assert interval(values) == pytest.approx((mean - margin, mean + margin))
    assert all(map(math.isnan, interval([1.0])))
    assert interval([2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize(("measure", "factor"), [("miou", 1.0), ("bias", 0.5)])
def test_differences_are_those_of_equal_seeds(tmp_path: Path, measure: str, factor: float) -> None:
    table = paired(files(results(tmp_path, **SCORES)), "brnf", "base", measure)
    row = table.iloc[0]
    expected = [14 * factor, 16 * factor, 14.5 * factor]
    assert row["differences"] == ", ".join(f"{value:+.1f}" for value in expected)
    assert row["mean"] == pytest.approx(sum(expected) / 3)
    assert (row["base"], row["brnf"]) == pytest.approx((48.5 * factor, 63.3333 * factor), abs=1e-3)
    assert (row["low"], row["high"]) == pytest.approx(interval(expected))


def test_a_seed_that_one_model_lacks_does_not_count(tmp_path: Path) -> None:
    folder = results(tmp_path, base=(0.5, 0.6, 0.7), brnf=(0.6, 0.8))
    row = paired(files(folder), "brnf", "base").iloc[0]
    assert (row["seeds"], row["differences"]) == (2, "+10.0, +20.0")
    assert row["base"] == pytest.approx(55)


def test_models_without_a_common_seed_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = results(tmp_path, base=(0.5,))
    with pytest.raises(UserError, match="nothing was measured of both"):
        paired(files(folder), "brnf", "base")
    assert main([str(folder), "brnf", "base"]) == 2
    assert main([str(tmp_path / "nothing"), "brnf", "base"]) == 2
    nothing_in_common, nothing = capsys.readouterr().err.splitlines()
    assert nothing_in_common.startswith("error: brnf and base: nothing was measured of both")
    assert nothing.startswith(f"error: {tmp_path / 'nothing'}: no evaluation of brnf or base")


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(results(tmp_path, **SCORES)), "brnf", "base"]) == 0
    assert "| cam_prototype | train | scenes | 3 |" in capsys.readouterr().out
