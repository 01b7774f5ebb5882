"""The latent Gaussian mixture of the flow (docs/method.md section 5; FlowGMM)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["LatentMixture", "log_marginal"]


class LatentMixture(nn.Module):
    """K Gaussians ``N(mu_k, I)`` with equal weights.

    Arguments:
        classes: K.
        dimension: D.
        learn_means: whether the means, at first standard normal, are trained.
        seed: of the means.
    """

    def __init__(self, classes: int, dimension: int, learn_means: bool, seed: int) -> None:
        super().__init__()
        means = torch.randn(classes, dimension, generator=torch.Generator().manual_seed(seed))
        self.means = nn.Parameter(means, requires_grad=learn_means)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density of each point under each Gaussian.

        ``|z - mu|^2`` is expanded so that one matrix product does the work; subtracting the mean of
        the means first keeps its digits when the means lie far from the origin.

        Arguments:
            z: [N, D].

        Returns:
            [N, K] nats.
        """
        centre = self.means.detach().mean(0)
        of_points = _log_prob if z.device.type == "cpu" else _LogProb.apply
        found: Tensor = of_points(self.means - centre, z - centre)
        return found.T

    def sample(
        self, classes: Tensor, std: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw a point [N, D] of ``N(mu_c, std^2 I)`` for each class [N], without gradient."""
        noise = torch.randn(
            len(classes),
            self.means.shape[1],
            generator=generator,
            device=self.means.device,
            dtype=self.means.dtype,
        )
        return self.means.detach()[classes] + std * noise


def _log_prob(means: Tensor, points: Tensor) -> Tensor:
    """Return the log-density [K, N] of points [N, D] under Gaussians of means [K, D]."""
    constant = -0.5 * (means.square().sum(1) + means.shape[1] * math.log(2 * math.pi))
    return torch.addmm(constant.unsqueeze(1), means, points.T).sub_(
        _squared_norms(points), alpha=0.5
    )


class _LogProb(torch.autograd.Function):
    """:func:`_log_prob` with its gradient in 6 calls, for devices on which calls cost: autograd
    takes 16.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(means, points)
        return _log_prob(means, points)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """Weight ``z - mu`` by the gradient [K, N], with the sum over the other one expanded."""
        means, points = ctx.saved_tensors
        of_mean, of_point = by_log_prob.sum(1, keepdim=True), by_log_prob.sum(0)
        by_means = torch.addcmul(by_log_prob @ points, means, of_mean, value=-1)
        by_points = torch.addcmul(means.T @ by_log_prob, points.T, of_point, value=-1)
        return by_means, by_points.T


def _squared_norms(points: Tensor) -> Tensor:
    """Return [N] of points [N, D] in the faster of two ways, which is another one where channels
    lie together (the couplings').
    """
    found: Tensor = (
        torch.linalg.vector_norm(points, dim=1).square()
        if points.is_contiguous()
        else torch.linalg.vecdot(points, points)
    )
    return found


def log_marginal(log_prob: Tensor) -> Tensor:
    """Return ``log sum_k p(v|k) / K``, [N], of class log-densities [N, K]."""
    return log_prob.logsumexp(1) - math.log(log_prob.shape[1])
