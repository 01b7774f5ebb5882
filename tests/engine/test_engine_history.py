"""Histories come back as they were written; damaged ones end in one line."""

import math
from pathlib import Path

import pandas as pd
import pytest

from brnf.engine.history import partial_history, read_history, write_history
from brnf.errors import DamagedProduct, UserError


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    rows = [{"loss": 1.23456789, "held_out": math.nan}, {"loss": 1e-9, "late": -2.0}]
    write_history(path, rows)
    assert path.read_text() == "step,loss,held_out,late\n1,1.23457,,\n2,1e-09,,-2\n"
    table = read_history(path, "loss", "held_out")
    expected = {
        "step": [1.0, 2.0],
        "loss": [1.23457, 1e-9],
        "held_out": [math.nan] * 2,
        "late": [math.nan, -2.0],
    }
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected))


def test_a_training_of_no_steps_has_no_rows(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [])
    assert read_history(tmp_path / "history.csv").empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,loss\n0,1\n1,1\n", "the steps do not count from 1"),
        ("step,loss\n1,1\n3,1\n", "the steps do not count from 1"),
        ("loss\n1\n", "column 'step' is missing"),
        ("step,other\n1,1\n", "column 'loss' is missing"),
        ("step,loss\n1,inf\n", "it holds numbers that are not finite"),
        ("step,loss\n1,much\n", "could not convert string to float"),
        ("", "No columns to parse"),
    ],
)
def test_damaged_histories_are_named_and_stay(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"history\.csv: damaged history \([^\n]+\); remove it") as (
        caught
    ):
        read_history(path, "loss")
    assert message in str(caught.value) and not isinstance(caught.value, DamagedProduct)


def test_a_missing_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"history\.csv: no such file; run its training first$"):
        read_history(tmp_path / "history.csv")


def test_the_history_so_far_goes_when_the_whole_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(partial_history(path), [{"loss": 1.0}])
    assert [file.name for file in tmp_path.iterdir()] == ["history.partial.csv"]
    write_history(path, [{"loss": 1.0}, {"loss": 0.5}])
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]
