"""Three-way labels of pixels from the scores of a map (docs/method.md section 4)."""

import torch
from torch import Tensor

__all__ = ["BACKGROUND", "UNLABELLED", "three_way_labels"]

BACKGROUND = 0
UNLABELLED = -1


def three_way_labels(score: Tensor, label: Tensor, low: float, high: float) -> Tensor:
    """Label what scores high, call what scores low background, leave the rest open.

    The thresholds are rounded to the precision of ``score``: a score stored in float16 as 0.3 is
    *at* the threshold 0.3.

    Arguments:
        score: [...] floats, largest foreground value of the map.
        label: [...] integers, its class 1..C.
        low: at or below it a pixel is background (the paper: 0.3).
        high: at or above it a pixel takes its label (the paper: 0.7).

    Returns:
        [...] int64: the label, 0 for background, -1 for unlabelled.
    """
    if low > high:
        raise ValueError(f"the low threshold {low} exceeds the high one {high}")
    # Thresholds stay on the host: a comparison takes them along, and nothing waits for a copy.
    labelled = score >= torch.tensor(high, dtype=score.dtype)
    background = score <= torch.tensor(low, dtype=score.dtype)
    others = torch.full(score.shape, UNLABELLED, dtype=torch.int64, device=score.device)
    others.masked_fill_(background, BACKGROUND)
    return torch.where(labelled, label.to(torch.int64), others)
