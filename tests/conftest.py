"""What many tests need: compiled kernels, and a CLIP of the real classes, small and untrained."""

import json
from pathlib import Path

import pytest
from hypothesis import settings

from brnf.segment.compiled import kernels

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}

settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Compile the dense CRF, once for a machine, before the clock of any test runs."""
    kernels()


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Make the architecture known to open_clip; return its name and a file of weights."""
    import open_clip  # here, since it takes seconds that other tests need not spend
    import torch

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip", load_weights=False)
    with torch.no_grad():  # the initial weights are so small that attention would be uniform
        for name, parameter in model.named_parameters():
            if "attn" in name or "mlp" in name:
                parameter.mul_(3)
    torch.save(model.state_dict(), folder / "tiny.pt")
    return "tiny-clip", folder / "tiny.pt"
