"""The tempered posterior over the classes an image may hold (docs/method.md section 5)."""

import math

import torch
from torch import Tensor

__all__ = ["fit_temperature", "search_temperature", "tempered_posterior"]

LOWEST, HIGHEST = 1e-2, 1e5
HALVINGS = 60
PARTS, ROUNDS = 16, 15
"""Of a search that divides by 16 what the halvings divide by 2, and ends at the same width."""


def tempered_posterior(log_prob: Tensor, allowed: Tensor, temperature: float | Tensor) -> Tensor:
    """Return ``softmax_k(log p(v|k) / T)`` over the allowed classes alone.

    Arguments:
        log_prob: [N, K] nats.
        allowed: [N, K] bool, background and the labels of the pixel's image.
        temperature: T; 1 is nearly one-hot, D nearly uniform.

    Returns:
        [N, K], rows sum to one, 0 where not allowed.
    """
    return (log_prob / temperature).masked_fill(~allowed, -math.inf).softmax(1)


def fit_temperature(log_prob: Tensor, allowed: Tensor, target: float = 0.9) -> float:
    """Find the temperature at which the mean largest posterior is ``target``, by bisection of log
    T.

    Arguments:
        log_prob: [N, K] nats of labelled rows, best of held-out images.
        allowed: [N, K] bool, as in :func:`tempered_posterior`.
        target: mean largest posterior; above its value for infinite T, which is the mean of one
            over the allowed classes.

    Returns:
        T in 1e-2..1e5; a bound when the target cannot be reached.
    """
    below_best = _below_best(log_prob, allowed)
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # The largest posterior falls in every row when T rises.
        if torch.exp(below_best / math.exp(middle)).sum(1).reciprocal().mean() > target:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def search_temperature(log_prob: Tensor, allowed: Tensor, target: float = 0.9) -> Tensor:
    """Find what :func:`fit_temperature` does where the host had better not wait for each
    comparison: on a GPU, which tries fifteen temperatures at once.

    Arguments:
        log_prob: as of :func:`fit_temperature`.
        allowed: likewise.
        target: likewise.

    Returns:
        T, a float64 scalar on the device of ``log_prob``.
    """
    below_best = _below_best(log_prob, allowed)
    low = below_best.new_full((), math.log(LOWEST))
    width = math.log(HIGHEST) - math.log(LOWEST)
    numbers = torch.arange(1, PARTS, dtype=below_best.dtype, device=below_best.device)
    for _ in range(ROUNDS):
        width /= PARTS
        temperatures = (low + width * numbers).exp()[:, None, None]
        largest = torch.exp(below_best / temperatures).sum(2).reciprocal().mean(1)
        low = low + width * (largest > target).sum()
    return (low + width / 2).exp()


def _below_best(log_prob: Tensor, allowed: Tensor) -> Tensor:
    """Return the log-densities less the largest of the allowed ones of each row, float64."""
    if not len(log_prob):
        raise ValueError("no labelled row to fit the temperature on")
    below_best = log_prob.double().masked_fill(~allowed, -math.inf)
    below_best -= below_best.max(1, keepdim=True).values
    return below_best
