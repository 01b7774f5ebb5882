"""The latent Gaussian mixture of the flow (docs/method.md section 5; FlowGMM)."""

import math

import torch
from torch import Tensor, nn

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
        means, points = self.means - centre, z - centre
        constant = -0.5 * (means.square().sum(1) + means.shape[1] * math.log(2 * math.pi))
        return (
            torch.addmm(constant.unsqueeze(1), means, points.T)
            .sub_(_squared_norms(points), alpha=0.5)
            .T
        )

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
