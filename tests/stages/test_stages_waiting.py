"""The share of the time that a training waits for its data."""

import time
from collections.abc import Iterator

import pytest

from brnf.stages.common import Waiting


def test_share_counts_fetching_and_not_the_work() -> None:
    def items() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.03)
            yield number

    waiting = Waiting(items())
    for number, found in enumerate(waiting):
        assert found == number
        time.sleep(0.01)
    assert 0.5 < waiting.share < 0.95  # 3 to 1 on an idle machine


def test_nothing_waited_for_is_no_share() -> None:
    waiting = Waiting(range(3))
    assert waiting.share == 0
    for _ in waiting:
        time.sleep(0.01)
    assert waiting.share == pytest.approx(0, abs=0.05)
