"""The dense CRF against what pydensecrf2 gave, and gives where it happens to be installed."""

import numpy as np
import pytest
import torch

from benchmarks.reference_pydensecrf import by_pydensecrf
from brnf.segment.batched_crf import dense_crf_batch
from brnf.segment.crf import dense_crf
from tests.reference.dense_crf import CASES, Case, recorded

MARGINAL = 0.002
"""Half of float16's last place is 0.00024; the rest is room for other processors' logarithms."""


def by_torch(image: np.ndarray, probability: np.ndarray, case: Case) -> np.ndarray:
    images, probabilities = torch.from_numpy(image)[None], torch.from_numpy(probability)[None]
    return dense_crf_batch(images, probabilities, case.options)[0].numpy()


@pytest.mark.parametrize("name", CASES)
def test_recorded_marginals(name: str) -> None:
    case, kept = CASES[name], recorded(name)
    assert kept.probability.shape == (case.labels, *case.size)
    for found in (
        dense_crf(kept.image, kept.probability, case.options),
        by_torch(kept.image, kept.probability, case),
    ):
        sample = found.reshape(case.labels, -1)[:, :: kept.step]
        np.testing.assert_allclose(sample, kept.marginals, atol=MARGINAL, rtol=0)


def test_recorded_labels() -> None:
    other = pixels = moved = 0
    for name, case in CASES.items():
        kept = recorded(name)
        found = dense_crf(kept.image, kept.probability, case.options).argmax(0)
        other += np.count_nonzero(found != kept.labels)
        moved += np.count_nonzero(kept.probability.argmax(0) != kept.labels)
        pixels += kept.labels.size
    assert moved > pixels / 50  # the CRF has something to do
    assert other <= max(1, pixels / 50_000)


@pytest.mark.parametrize("name", CASES)
def test_live_marginals(name: str) -> None:
    pytest.importorskip("pydensecrf", reason="compared where pydensecrf2 happens to be installed")
    case, seed = CASES[name], 1000
    kept = recorded(name)
    image, probability = case.image(seed), kept.probability[::-1].copy()
    found = dense_crf(image, probability, case.options)
    theirs = by_pydensecrf(image, probability, case.options)
    np.testing.assert_allclose(found, theirs, atol=MARGINAL, rtol=0)
