"""The loss of the flow over labelled and unlabelled pixels (method.md section 5; DDFP)."""

import torch
from torch import Tensor

from brnf.flow.labels import UNLABELLED
from brnf.flow.mixture import log_marginal

__all__ = ["mixture_loss"]


def mixture_loss(log_prob: Tensor, codes: Tensor) -> Tensor:
    """Return the mean negative log-likelihood: of the label where there is one, of the whole mixture elsewhere.

    Arguments:
        log_prob: [N, K] nats, log p(v|k).
        codes: [N] int64 three-way labels: 0..C, or -1 for unlabelled.

    Returns:
        Scalar, nats per pixel.
    """
    labelled = log_prob.gather(1, codes.clamp_min(0).unsqueeze(1)).squeeze(1)
    return -torch.where(codes == UNLABELLED, log_marginal(log_prob), labelled).mean()
