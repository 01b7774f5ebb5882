"""The loss of the flow over labelled and unlabelled pixels (docs/method.md section 5; DDFP)."""

import torch
from torch import Tensor

from brnf.engine import distributed
from brnf.flow.density import StandardisedDensity, rows_at_once
from brnf.flow.labels import UNLABELLED
from brnf.flow.mixture import log_marginal

__all__ = ["add_gradient", "mixture_loss"]


def mixture_loss(log_prob: Tensor, targets: Tensor) -> Tensor:
    """Return the mean negative log-likelihood: of the label where there is one, of the whole
    mixture elsewhere.

    Arguments:
        log_prob: [N, K] nats, log p(v|k).
        targets: [N] int64 three-way labels: 0..C, or -1 for unlabelled.

    Returns:
        Scalar, nats per pixel.
    """
    labelled = log_prob.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1)
    return -torch.where(targets == UNLABELLED, log_marginal(log_prob), labelled).mean()


def add_gradient(
    density: StandardisedDensity,
    features: Tensor,
    noise: Tensor,
    targets: Tensor,
    tile_rows: int | None = None,
) -> Tensor:
    """Compute the gradient of :func:`mixture_loss`, tile by tile, so that memory does not grow with
    the batch.

    Of several processes that train together each computes a part of the rows: the mean of their
    gradients is that of the whole. One without a row computes nothing.

    Arguments:
        density: whose parameters learn; they have no gradient yet.
        features: [N, D] raw, any float.
        noise: [N, D] added after standardisation.
        targets: [N] int64 three-way labels.
        tile_rows: of a tile; None takes what suits the device.

    Returns:
        The loss, a scalar without gradient.
    """
    total = torch.zeros((), device=targets.device)
    part, rows = distributed.part(len(targets)), len(targets) / distributed.processes()
    size = tile_rows or rows_at_once(targets.device)
    tiles = zip(*(values[part].split(size) for values in (features, noise, targets)), strict=True)
    with torch.enable_grad():
        for tile, tile_noise, tile_codes in tiles if part.stop > part.start else ():
            share = len(tile_codes) / rows
            loss = share * mixture_loss(density.class_log_prob(tile, tile_noise), tile_codes)
            loss.backward()
            total += loss.detach()
    return distributed.mean(total)
