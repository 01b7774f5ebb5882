"""A CLIP of the real classes, small and untrained."""

import json
from pathlib import Path

__all__ = ["make_tiny_clip"]

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def make_tiny_clip(folder: Path) -> tuple[str, Path]:
    """Make the architecture known to open_clip; return its name and a file of weights."""
    import open_clip  # here, since it takes seconds that many tests need not spend
    import torch

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
