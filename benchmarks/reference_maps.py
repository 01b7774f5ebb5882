"""Seeds, prototypes and their maps in the structure of SIPE's network: over all classes, with all
intermediates in memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["intermediate_prototype_maps", "intermediate_seeds"]


def intermediate_seeds(maps: Tensor, features: Tensor, present: Tensor) -> Tensor:
    """Return one-hot seeds [N, K, h, w] by way of the overlaps of all pixels with all classes, [N,
    K, hw, hw].

    Arguments:
        maps: A, [N, K, h, w].
        features: f, [N, S, h, w].
        present: [N, K] bool.
    """
    height, width = maps.shape[2:]
    flat = features.flatten(2)
    unit = flat / (flat.norm(dim=1, keepdim=True) + 1e-5)
    relation = torch.matmul(unit.transpose(1, 2), unit).relu().unsqueeze(1)
    rows = maps.flatten(2).unsqueeze(2)
    intersection = (relation * rows).sum(-1)
    union = relation.sum(-1) + rows.sum(-1) - intersection
    overlap = (intersection / union).view(len(maps), -1, height, width)
    overlap[:, 0] *= 0.5
    winner = overlap.argmax(1).view(-1, height, width, 1)
    seeds = (
        torch.zeros(len(maps), height, width, maps.shape[1])
        .scatter_(-1, winner, 1)
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    return seeds * present[:, :, None, None]


def intermediate_prototype_maps(features: Tensor, seeds: Tensor) -> Tensor:
    """Return the cosine maps of all classes [N, K, h, w] by way of [N, K, D, h, w].

    Arguments:
        features: v, [N, D, h, w].
        seeds: [N, K, h, w].
    """
    parts = seeds.unsqueeze(2) * features.unsqueeze(1)
    centres = F.adaptive_avg_pool2d(parts.flatten(0, 1), (1, 1)).view(*seeds.shape[:2], -1, 1, 1)
    return F.relu(torch.cosine_similarity(features.unsqueeze(1), centres, dim=2))
