"""Every benchmark asserts that both sides agree, here at a tiny size. No time is judged."""

import time
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import harness, large_store
from benchmarks.harness import Goal, Repeats, Row, Timing, at_least, compare, interleave, table
from benchmarks.image_scale import off_the_line, scaling_table
from benchmarks.no_op import finish, no_op_seconds, write_voc
from benchmarks.run import LOOPS


@pytest.mark.parametrize("loop", LOOPS)
def test_both_sides_agree(loop: str) -> None:
    torch.set_num_threads(1)
    module = import_module(f"benchmarks.{loop}")
    rows = module.measure(module.TINY, Repeats(1, 0))
    assert rows and all(row.ours.median > 0 and row.reference.median > 0 for row in rows)
    assert table(rows).splitlines()[-1].startswith("goals: ")


def test_contenders_take_turns() -> None:
    order: list[str] = []
    timings = interleave(
        {name: lambda name=name: order.append(name) for name in ("a", "b")},
        Repeats(3, 0),
        time.perf_counter,
    )  # type: ignore[misc]
    assert order == ["a", "b"] * 4  # the first turn is not timed
    assert all(len(timing.seconds) == 3 for timing in timings.values())


@pytest.mark.parametrize(("seconds", "runs"), [(0.0, 2), (0.75, 3), (2.0, 8)])
def test_short_runs_are_repeated_as_long_as_there_is_time(
    seconds: float,
    runs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def run() -> None:
        nonlocal now
        now += 0.25

    monkeypatch.setattr(harness.time, "monotonic", lambda: now)
    timings = interleave({"a": run}, Repeats(2, seconds), lambda: now)
    assert timings["a"].seconds == (0.25,) * runs


def test_table_counts_goals_and_takes_ratios_of_neighbouring_runs() -> None:
    ours, reference = Timing((1.0, 2.0, 1.0)), Timing((4.0, 4.0, 6.0))
    goals = (at_least(3, 4.0), at_least(5, 4.0))
    lines = table(
        [Row("loop", "size", ours, reference, "GEMM", Timing((0.5, 1.0, 0.5)), goals)]
    ).splitlines()
    assert "| 4.0 (2.0 to 6.0) |" in " ".join(
        lines[2].split()
    ) and "| GEMM 500 ms | 0.50" in " ".join(lines[2].split())
    assert "≥ 3×; ≥ 5×" in lines[2] and "yes, NO" in lines[2]
    assert lines[-1] == "goals: 1 met, 1 missed"


def test_a_share_of_the_work_counts_for_the_whole() -> None:
    row = compare(
        "loop",
        "size",
        lambda: None,
        lambda: None,
        Repeats(1, 0),
        reference_share=0.5,
        goals=[Goal("g", True)],
    )
    assert table([row]).splitlines()[-1] == "goals: 1 met, 0 missed"
    assert Timing((2.0,)).divided(0.5).seconds == (4.0,)


def test_nothing_is_to_be_done_where_every_product_counts_as_finished(tmp_path: Path) -> None:
    write_voc(tmp_path / "voc", train=6, train_aug=12, val=6)
    assert finish(tmp_path) > 100
    assert len(no_op_seconds(tmp_path, repeats=1)) == 1


def test_a_large_store_is_written_read_and_trained_on(tmp_path: Path) -> None:
    phases = large_store.measure(large_store.TINY, tmp_path)
    assert [phase.rows for phase in phases] == [1000, 1000, 640]
    assert all(phase.pieces and phase.seconds > 0 and phase.peak > 0 for phase in phases)
    assert len(large_store.shown(phases).splitlines()) == 2 + 3


def test_rates_are_those_of_the_last_fifth_over_the_first() -> None:
    phase = large_store.Phase(
        "append", 100, 40.0, (1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 2.0, 2.0), 1000
    )
    assert phase.rate_kept() == 0.5 and phase.cells()[-1] == "NO"
    assert large_store.Phase("append", 100, 2.0, (1.0, 1.0), 3000).cells()[-1] == "NO"
    assert large_store.Phase("append", 100, 2.0, (1.0, 1.0), 1000).cells()[-1] == "yes"
    assert large_store.Phase("append", 100, 2.0, (0.0, 0.0), 1000).cells()[-1] == "NO"


def test_a_constant_part_is_on_the_line_and_a_quadratic_one_is_not() -> None:
    assert off_the_line((24, 96, 384), (5 + 24, 5 + 96, 5 + 384)) == pytest.approx(0)
    assert off_the_line((24, 96, 384), (24**2, 96**2, 384**2)) < -0.15
    rows = [("linear", size, 3 + size / 10, 500.0) for size in (24, 96, 384)] + [
        ("greedy", size, float(size), size * 9.0) for size in (24, 96, 384)
    ]
    lines = scaling_table(
        pd.DataFrame(rows, columns=["stage", "images", "seconds", "peak_mb"])
    ).splitlines()
    assert "yes, yes" in lines[2] and "| 100 " in lines[2] and "yes, NO" in lines[3]


def test_a_disturbed_run_of_three_changes_no_line_of_the_table() -> None:
    calm = [(stage, size, 3 + size / 10, 500.0) for size in (24, 96, 384) for stage in ("a", "b")]
    disturbed = [
        ("a", 24, 100.0, 900.0),
        ("a", 24, 2.0, 500.0),
        ("b", 24, 5.4, 500.0),
        ("b", 24, 5.4, 500.0),
    ]
    columns = ["stage", "images", "seconds", "peak_mb"]
    first, second = (
        scaling_table(pd.DataFrame(rows, columns=columns)) for rows in (calm, disturbed + calm)
    )
    assert first == second
