"""Log-likelihoods of latent points under the mixture."""

from dataclasses import dataclass

import torch

from benchmarks.harness import Repeats, Row, at_most, compare, peak_extra_memory
from benchmarks.reference_flow import repeated_log_prob
from brnf.flow.mixture import LatentMixture

__all__ = ["FULL", "TINY", "Size", "measure"]


@dataclass(frozen=True)
class Size:
    """What is measured."""

    rows: int = 16_384
    dimension: int = 256
    classes: tuple[int, ...] = (21, 81)


FULL = Size()
TINY = Size(500, 16, (4,))


@torch.no_grad()
def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare two matrix products with differences [N, K, D], also for means far from 0."""
    return [_compare(size, classes, repeats) for classes in size.classes]


def _compare(size: Size, classes: int, repeats: Repeats) -> Row:
    mixture = LatentMixture(classes, size.dimension, True, 0)
    z = 3 * torch.randn(size.rows, size.dimension, generator=torch.Generator().manual_seed(1))
    _assert_equal(mixture, z[:500])
    extra = peak_extra_memory(lambda: mixture.log_prob(z)) / (z.element_size() * z.numel())
    weight = mixture.means.detach().T.contiguous()
    return compare(
        "mixture log-likelihood",
        f"{size.rows:,} × {size.dimension}, K {classes}",
        lambda: mixture.log_prob(z),
        lambda: repeated_log_prob(z, mixture.means),
        repeats,
        limit="GEMM",
        bound=lambda: torch.mm(z, weight),
        ratio=40,
        goals=[at_most(2, extra, "extra memory / z")],
    )


def _assert_equal(mixture: LatentMixture, z: torch.Tensor) -> None:
    """Assert equality with float64 to 1e-2 nats a thousand nats, also when all means lie 1,000 away
    from the origin.
    """
    for shift in (0.0, 1000.0):
        moved = LatentMixture(len(mixture.means), mixture.means.shape[1], True, 0)
        moved.means.copy_(mixture.means + shift)
        expected = repeated_log_prob((z + shift).double(), moved.means.double())
        torch.testing.assert_close(
            moved.log_prob(z + shift).double(), expected, rtol=1e-5, atol=1e-3
        )
