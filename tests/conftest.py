"""What many tests need: compiled kernels, and a CLIP of the real classes, small and untrained."""

from pathlib import Path

import pytest
from hypothesis import settings

from brnf.segment.compiled import kernels
from tests.tiny_clip import make_tiny_clip

settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Compile the dense CRF, once for a machine, before the clock of any test runs."""
    kernels()


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Make the architecture known to open_clip; return its name and a file of weights."""
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))
