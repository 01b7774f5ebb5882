"""With processes a device waits less, whatever the machine: nearly all work is sleeping here."""

import pytest

from benchmarks.pipeline import STAGES, Size, busy

SLEEPS = Size(height=24, width=32, images=20, device=0.1, processor=0.2)


@pytest.mark.parametrize("stage", STAGES)
def test_a_device_waits_less_than_before(stage: str) -> None:
    before, now = busy(stage, SLEEPS, 8, before=True), busy(stage, SLEEPS, 8)
    assert before < 0.4 and before < now <= 1, (before, now)
