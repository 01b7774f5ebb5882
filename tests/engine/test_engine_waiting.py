"""The share of the time that a training waits for its data."""

from collections.abc import Iterator

import pytest

from brnf.engine import runtime as common
from brnf.engine.runtime import Waiting


class Clock:
    """A clock that goes on when it is told to, so that nothing hangs on what else runs here."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(common.time, "perf_counter", clock)
    return clock


def test_share_counts_fetching_and_not_the_work(clock: Clock) -> None:
    def items() -> Iterator[int]:
        for number in range(4):
            clock.now += 3
            yield number

    waiting = Waiting(items())
    clock.now += 50  # before the first item is asked for
    for number, found in enumerate(waiting):
        assert found == number
        clock.now += 1
    assert waiting.share == 0.75


def test_nothing_waited_for_is_no_share(clock: Clock) -> None:
    waiting = Waiting(range(3))
    assert waiting.share == 0
    for _ in waiting:
        clock.now += 1
    assert waiting.share == 0
