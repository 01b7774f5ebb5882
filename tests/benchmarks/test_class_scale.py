"""Every loop of the table over numbers of classes, at a tiny size, around the limit of a byte."""

import pytest

from benchmarks.class_scale import LOOPS, TINY


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("classes", [5, 255, 256, 301])
def test_every_loop_runs(loop: str, classes: int) -> None:
    LOOPS[loop](TINY, classes)
