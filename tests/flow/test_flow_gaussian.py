"""The baselines against scipy and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from brnf.config.sections.flow import Baseline, NoiseUnit
from brnf.flow.gaussian import build_gaussian, fit_gaussian
from brnf.flow.saved import load_density, save_density

MEAN, DEVIATION = torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 2, 4])


def rows_of_classes(count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Return correlated rows of two classes and unlabelled ones far away, which no fit may see."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(3, 3))
    features = np.concatenate(
        [
            random.normal(size=(count, 3)) @ mixing,
            4 + random.normal(size=(count, 3)),
            np.full((50, 3), 100.0),
        ]
    )
    targets = np.repeat([0, 1, -1], [count, count, 50])
    order = random.permutation(len(targets))
    return torch.from_numpy(features[order]).float(), torch.from_numpy(targets[order])


@pytest.mark.parametrize("unit", ["feature", "std"])
@pytest.mark.parametrize("kind", ["gaussian_diagonal", "gaussian_full"])
def test_gaussians_against_scipy(kind: str, unit: NoiseUnit) -> None:
    features, targets = rows_of_classes()
    density = build_gaussian(kind, 3, 2, Baseline(ridge=0.01, noise_unit=unit))  # type: ignore[arg-type]
    density.fit_standardisation(MEAN, DEVIATION)
    fit_gaussian(density, zip(features.split(97), targets.split(97), strict=True))
    found = density.log_prob(features).numpy()
    standardised = ((features - MEAN) / DEVIATION).double().numpy()
    for k in range(2):
        own = standardised[targets.numpy() == k]
        covariance = np.cov(own.T, bias=True)
        scale = DEVIATION.double().numpy() if unit == "feature" else np.ones(3)
        covariance = np.diag(np.diag(covariance)) if kind == "gaussian_diagonal" else covariance
        covariance = covariance + 0.01 * np.diag(1 / scale**2)
        expected = (
            multivariate_normal(own.mean(0), covariance).logpdf(standardised)
            - np.log(DEVIATION.numpy()).sum()
        )
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("unit", ["feature", "std"])
def test_mixtures_against_scikit_learn(unit: NoiseUnit) -> None:
    features, targets = rows_of_classes()
    options = Baseline(ridge=0.01, noise_unit=unit, components=3)
    density = build_gaussian("gmm", 3, 2, options)
    density.fit_standardisation(MEAN, DEVIATION)
    fit_gaussian(density, zip(features.split(97), targets.split(97), strict=True), seed=2)
    standardised = ((features - MEAN) / DEVIATION).numpy()
    found = density.log_prob(features).numpy()
    scale = DEVIATION.numpy() if unit == "feature" else np.ones(3)
    for k in range(2):
        own = standardised[targets.numpy() == k]
        best = max(
            GaussianMixture(3, covariance_type="diag", reg_covar=0.01, random_state=s, max_iter=200)
            .fit(own * scale)
            .score(own * scale)
            for s in range(3)
        )
        shifted = found[targets.numpy() == k, k] + np.log(DEVIATION.numpy() / scale).sum()
        assert shifted.mean() == pytest.approx(best, abs=0.1)
        # The formula itself, at the fitted components.
        parts = [
            multivariate_normal(m, np.diag(v)).logpdf(standardised) + w
            for m, v, w in zip(
                density.component_mean[k].numpy(),
                density.component_variance[k].numpy(),
                density.log_weight[k].numpy(),
                strict=True,
            )
        ]
        np.testing.assert_allclose(
            found[:, k], logsumexp(parts, 0) - np.log(DEVIATION.numpy()).sum(), rtol=1e-3, atol=1e-2
        )


@pytest.mark.parametrize("kind", ["gaussian_diagonal", "gaussian_full", "gmm"])
def test_a_class_without_rows_takes_all_rows(kind: str) -> None:
    features, targets = rows_of_classes()
    density = build_gaussian(kind, 3, 3, Baseline(components=4))  # type: ignore[arg-type]
    fit_gaussian(density, [(features, targets)])
    found = density.log_prob(features)
    assert bool(found.isfinite().all())
    # Broader than either class: worse on each class's own rows, better on the other's.
    assert bool((found[targets == 0, 0] > found[targets == 0, 2]).float().mean() > 0.7)
    assert bool((found[targets == 1, 2] > found[targets == 1, 0]).float().mean() > 0.7)


@pytest.mark.parametrize("kind", ["gaussian_diagonal", "gaussian_full", "gmm"])
def test_baseline_files_round_trip(kind: str, tmp_path: Path) -> None:
    features, targets = rows_of_classes(40)
    density = build_gaussian(kind, 3, 2, Baseline(components=2))  # type: ignore[arg-type]
    density.fit_standardisation(MEAN, DEVIATION)
    fit_gaussian(density, [(features, targets)])
    save_density(tmp_path / "flow.pt", density)
    loaded, _ = load_density(tmp_path / "flow.pt")
    assert loaded.kind == kind
    assert torch.equal(loaded.log_prob(features), density.log_prob(features))


def test_em_sees_a_bounded_random_share() -> None:
    random = np.random.default_rng(1)
    features = torch.from_numpy(
        np.concatenate([random.normal(-3, 1, (5000, 2)), random.normal(3, 1, (5000, 2))])
    ).float()
    density = build_gaussian("gmm", 2, 1, Baseline(components=1))
    fit_gaussian(
        density,
        ((part, torch.zeros(len(part), dtype=torch.int64)) for part in features.split(1000)),
        most_rows=2000,
    )
    # Rows of the first and the last blocks alike: the mean lies between the two clusters.
    assert float(density.component_mean.abs().max()) < 0.4
