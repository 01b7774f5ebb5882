"""Gaussians and their mixtures per class: the flow's baselines (docs/method.md section 5)."""

import math
import warnings
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from brnf.config.sections.flow import Baseline
from brnf.flow.density import StandardisedDensity

__all__ = [
    "DiagonalGaussian",
    "FullGaussian",
    "GaussianDensity",
    "GaussianKind",
    "GaussianMixtures",
    "build_gaussian",
    "fit_gaussian",
]

GaussianKind = Literal["gaussian_diagonal", "gaussian_full", "gmm"]
LEAST_ROWS = 2
"""A class with fewer labelled rows takes the density of all labelled rows."""


MOST_ROWS = 8192
"""Labelled rows per class that EM sees, at most. Our choice."""


class DiagonalGaussian(StandardisedDensity):
    """One Gaussian with diagonal covariance per class."""

    kind = "gaussian_diagonal"
    class_mean: Tensor
    class_variance: Tensor

    def __init__(self, dimension: int, classes: int, options: Baseline) -> None:
        super().__init__(dimension, classes)
        self.options = options
        self.register_buffer("class_mean", torch.zeros(classes, dimension))
        self.register_buffer("class_variance", torch.ones(classes, dimension))

    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Take the moments [K, D] and [K, D, D] of standardised rows."""
        self.class_mean.copy_(mean)
        self.class_variance.copy_(covariance.diagonal(dim1=1, dim2=2) + ridge_variance(self))

    def standardised_log_prob(self, standardised: Tensor) -> Tensor:
        """Return the log-density [N, K] of standardised features."""
        return _diagonal_log_prob(standardised, self.class_mean, self.class_variance)


class FullGaussian(StandardisedDensity):
    """One Gaussian with full covariance per class, kept as a matrix that whitens it."""

    kind = "gaussian_full"
    class_mean: Tensor
    whitening: Tensor

    def __init__(self, dimension: int, classes: int, options: Baseline) -> None:
        super().__init__(dimension, classes)
        self.options = options
        self.register_buffer("class_mean", torch.zeros(classes, dimension))
        self.register_buffer("whitening", torch.eye(dimension).repeat(classes, 1, 1))

    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Take the moments [K, D] and [K, D, D] of standardised rows."""
        self.class_mean.copy_(mean)
        identity = torch.eye(self.dimension, dtype=torch.float64)
        ridge = ridge_variance(self).double().diag()
        for k in range(self.classes):
            factor = torch.linalg.cholesky(covariance[k].double() + ridge)
            self.whitening[k].copy_(torch.linalg.solve_triangular(factor, identity, upper=False))

    def standardised_log_prob(self, standardised: Tensor) -> Tensor:
        """Return the log-density [N, K] of standardised features."""
        half_log_determinant = self.whitening.diagonal(dim1=1, dim2=2).log().sum(1)
        distance = torch.stack(
            [
                ((standardised - mean) @ whitening.T).square().sum(1)
                for mean, whitening in zip(self.class_mean, self.whitening, strict=True)
            ],
            1,
        )
        return half_log_determinant - 0.5 * (distance + self.dimension * math.log(2 * math.pi))


class GaussianMixtures(StandardisedDensity):
    """A mixture of diagonal Gaussians per class, fitted by EM (scikit-learn)."""

    kind = "gmm"
    component_mean: Tensor
    component_variance: Tensor
    log_weight: Tensor

    def __init__(self, dimension: int, classes: int, options: Baseline) -> None:
        super().__init__(dimension, classes)
        self.options = options
        self.register_buffer("component_mean", torch.zeros(classes, options.components, dimension))
        self.register_buffer(
            "component_variance", torch.ones(classes, options.components, dimension)
        )
        self.register_buffer(
            "log_weight", torch.full((classes, options.components), -math.log(options.components))
        )

    def fit(self, rows: list[np.ndarray], seed: int) -> None:
        """Run EM for each class on its standardised rows, [n_k, D] with at least two rows.

        scikit-learn adds one ridge to all dimensions, so that EM runs in the ridge's own unit. A
        class with fewer rows than components leaves the others without weight.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        ridge = ridge_of(self.options)
        unit = torch.ones_like(self.std)
        if self.options.noise_unit == "feature":
            unit = self.std
        scale = unit.double().numpy()
        for k, values in enumerate(rows):
            count = min(self.options.components, len(values))
            model = GaussianMixture(
                count,
                covariance_type="diag",
                reg_covar=ridge,
                max_iter=200,
                random_state=seed,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(values * scale)
            self.component_mean[k, :count] = torch.from_numpy(model.means_ / scale)
            self.component_variance[k, :count] = torch.from_numpy(model.covariances_ / scale**2)
            self.log_weight[k] = -math.inf
            self.log_weight[k, :count] = torch.from_numpy(np.log(model.weights_))

    def standardised_log_prob(self, standardised: Tensor) -> Tensor:
        """Return the log-density [N, K] of standardised features."""
        components = _diagonal_log_prob(
            standardised, self.component_mean.flatten(0, 1), self.component_variance.flatten(0, 1)
        )
        found: Tensor = (
            components.unflatten(1, self.log_weight.shape) + self.log_weight
        ).logsumexp(2)
        return found


def ridge_of(options: Baseline) -> float:
    """Return what is added to variances, in the square of the noise's unit."""
    return options.noise**2 if options.ridge is None else options.ridge


def ridge_variance(density: DiagonalGaussian | FullGaussian) -> Tensor:
    """Return what is added to the variances of standardised features, [D]."""
    noise = torch.full_like(density.std, math.sqrt(ridge_of(density.options)))
    return density.in_std(noise, density.options.noise_unit).square()


GaussianDensity = DiagonalGaussian | FullGaussian | GaussianMixtures


def build_gaussian(
    kind: GaussianKind, dimension: int, classes: int, options: Baseline
) -> GaussianDensity:
    """Return a baseline that is not fitted yet."""
    kinds: dict[str, type[GaussianDensity]] = {
        "gaussian_diagonal": DiagonalGaussian,
        "gaussian_full": FullGaussian,
        "gmm": GaussianMixtures,
    }
    return kinds[kind](dimension, classes, options)


@torch.no_grad()
def fit_gaussian(
    density: DiagonalGaussian | FullGaussian | GaussianMixtures,
    batches: Iterable[tuple[Tensor, Tensor]],
    seed: int = 0,
    most_rows: int = MOST_ROWS,
) -> None:
    """Fit a baseline in one pass over labelled rows.

    Arguments:
        density: with its standardisation set.
        batches: (features [N, D], targets [N] int64); rows with code -1 are passed over.
        seed: of the rows drawn for EM, and of its start.
        most_rows: labelled rows per class that EM sees.
    """
    if isinstance(density, GaussianMixtures):
        density.fit(_draw_rows(density, batches, seed, most_rows), seed)
    else:
        density.fit(*_class_moments(density, batches))


def _diagonal_log_prob(values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the log-densities [N, M] of M diagonal Gaussians with two matrix products."""
    precision = variance.reciprocal()
    constant = -0.5 * (
        (mean.square() * precision + variance.log()).sum(1) + mean.shape[1] * math.log(2 * math.pi)
    )
    return constant - 0.5 * values.square() @ precision.T + values @ (mean * precision).T


def _class_moments(
    density: StandardisedDensity, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return means [K, D], covariances [K, D, D] of each class's standardised rows, float64."""
    count = torch.zeros(density.classes, dtype=torch.float64)
    total = torch.zeros(density.classes, density.dimension, dtype=torch.float64)
    product = torch.zeros(
        density.classes, density.dimension, density.dimension, dtype=torch.float64
    )
    for features, targets in batches:
        for k in targets.unique().tolist():
            if k >= 0:
                rows = density.standardise(features[targets == k]).double()
                count[k] += len(rows)
                total[k] += rows.sum(0)
                product[k] += rows.T @ rows
    enough = count >= LEAST_ROWS
    count = torch.where(enough, count, count.sum())
    total = torch.where(enough[:, None], total, total.sum(0))
    product = torch.where(enough[:, None, None], product, product.sum(0))
    mean = total / count[:, None]
    return mean, product / count[:, None, None] - mean.unsqueeze(2) * mean.unsqueeze(1)


def _draw_rows(
    density: GaussianMixtures, batches: Iterable[tuple[Tensor, Tensor]], seed: int, limit: int
) -> list[np.ndarray]:
    """Return at most ``limit`` random standardised rows of each class: those with the
    smallest random keys.
    """
    random = np.random.default_rng(seed)
    rows = [np.zeros((0, density.dimension), np.float32) for _ in range(density.classes)]
    keys = [np.zeros(0) for _ in range(density.classes)]
    for features, targets in batches:
        drawn, numbers = random.random(len(targets)), targets.numpy()
        for k in np.unique(numbers[numbers >= 0]):
            chosen = numbers == k
            all_keys = np.concatenate([keys[k], drawn[chosen]])
            all_rows = np.concatenate([rows[k], density.standardise(features[chosen]).numpy()])
            best = np.argsort(all_keys, kind="stable")[:limit]
            keys[k], rows[k] = all_keys[best], all_rows[best]
    labelled = np.concatenate(rows)
    return [values if len(values) >= LEAST_ROWS else labelled[:limit] for values in rows]
