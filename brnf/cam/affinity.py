"""Pixel correlation: maps that flow along the similarity of pixels (SFC's PCM, `docs/method.md`
section 3).
"""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["propagate"]

EPSILON = 1e-5


def propagate(maps: Tensor, features: Tensor, times: int = 2) -> Tensor:
    """Give each pixel the mean of the maps at the pixels that resemble it.

    ``W_ij = relu(cos(f_i, f_j))``, each column divided by its sum; ``A <- A W``, twice.

    Arguments:
        maps: A, [N, K, h, w].
        features: f, [N, S, h, w].
        times: how often.

    Returns:
        [N, K, h, w], within the range of the maps.
    """
    directions = F.normalize(features.flatten(2), dim=1, eps=EPSILON)
    similarity = (directions.transpose(1, 2) @ directions).relu()
    weights = similarity / (similarity.sum(1, keepdim=True) + EPSILON)
    flat = maps.flatten(2)
    for _ in range(times):
        flat = flat @ weights
    return flat.view_as(maps)
