"""Walk, affinity loss and boundary labels against IRN and SIPE (`tests/reference/README.md`)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from brnf.config.sections.segmentation import BoundaryLabels, Walk
from brnf.segment.boundary_labels import boundary_labels
from brnf.segment.random_walk import (
    affinity_loss,
    affinity_terms,
    pair_affinities,
    pair_kinds,
    pair_paths,
    walk_maps,
)
from tests.reference.recipe import load, uniform

STORED = load("irn")
RADIUS = 10
SOURCES = (slice(0, 23), slice(9, 23))
"""Rows and columns in which IRN's pairs start, on the grid of 32 x 32."""
WALK, LOSS, CRF_SHARE = 3e-4, 1e-6, 0.005


def edges() -> Tensor:
    return uniform("irn.edges", (2, 1, 32, 32))[:, 0].double()


def labels() -> Tensor:
    return torch.from_numpy(STORED["labels"])


def of_sources(values: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return the entries [N, 322] of an offset whose pairs start where IRN's do."""
    left = max(0, -offset[1])
    rows, columns = SOURCES[0], slice(SOURCES[1].start - left, SOURCES[1].stop - left)
    return values[:, rows, columns].flatten(1)


def offsets() -> list[tuple[int, int]]:
    return [(int(dy), int(dx)) for dy, dx in STORED["offsets"]]


def test_walk() -> None:
    cam = uniform("irn.cam", (3, 24, 32)).numpy()
    walk = Walk(radius=5, beta=10.0, exponent=8)
    found = walk_maps(cam, uniform("irn.edge", (1, 24, 32))[0].numpy(), walk)
    expected = STORED["walk"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=WALK * np.abs(expected).max())


def test_offsets() -> None:
    assert set(offsets()) == set(pair_paths(RADIUS))
    assert len(offsets()) == len(pair_paths(RADIUS))


def test_pair_codes() -> None:
    for number, offset in enumerate(offsets()):
        kinds = [of_sources(kind, offset) for kind in pair_kinds(labels(), offset)]
        found = sum(code * kind.long() for code, kind in enumerate(kinds, 1))
        np.testing.assert_array_equal(found, STORED["pair_codes"][:, number])


def test_affinity() -> None:
    """Stored as float16, for every tenth offset."""
    affinities = pair_affinities(edges(), RADIUS)
    for number, offset in enumerate(offsets()[::10]):
        found = of_sources(affinities[offset], offset)
        np.testing.assert_allclose(found, STORED["affinity"][:, number], rtol=1e-3, atol=1e-3)


def test_pairs_of_the_whole_grid_and_their_loss() -> None:
    """IRN's own loss in a frame of ignored labels: all pairs of the grid, as here."""
    parts, counts = affinity_terms(edges(), labels(), RADIUS)
    assert counts.tolist() == STORED["framed_pair_counts"].tolist()
    np.testing.assert_allclose(parts, STORED["framed_loss_parts_f64"], rtol=0, atol=LOSS)
    loss = float(affinity_loss(edges(), labels(), RADIUS))
    assert loss == pytest.approx(float(STORED["framed_affinity_loss_f64"]), abs=LOSS)


def test_loss_without_the_pairs_near_the_border() -> None:
    """IRN's own loss, whose pairs start away from the border, from the same parts."""
    affinities = pair_affinities(edges(), RADIUS)
    sums, counts = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    for offset in offsets():
        kinds = torch.stack([of_sources(kind, offset) for kind in pair_kinds(labels(), offset)])
        affinity = of_sources(affinities[offset], offset)
        near, apart = -(affinity + 1e-5).log(), -(1 + 1e-5 - affinity).log()
        sums += (torch.stack([near, near, apart]) * kinds).sum((1, 2))
        counts += kinds.sum((1, 2))
    assert counts.tolist() == STORED["pair_counts"].tolist()
    parts = sums / counts
    np.testing.assert_allclose(parts, STORED["loss_parts_f64"], rtol=0, atol=LOSS)
    loss = float((parts[0] + parts[1]) / 4 + parts[2] / 2)
    assert loss == pytest.approx(float(STORED["affinity_loss_f64"]), abs=LOSS)


def _labels(**changes: object) -> np.ndarray:
    maps, classes = STORED["maps"].astype(np.float32), STORED["keys"][1:]
    options = BoundaryLabels(**changes)  # type: ignore[arg-type]
    return boundary_labels(STORED["picture"], maps, classes, options)


def test_labels_of_sure_pixels() -> None:
    found, expected = _labels(), STORED["boundary_labels"]
    assert 0.2 < (expected == 255).mean() < 0.5  # the case has many unsure pixels
    assert (found != expected).mean() <= CRF_SHARE


def test_labels_at_one_background() -> None:
    found = _labels(ignore_unsure=False)
    assert (found != STORED["confident_foreground"]).mean() <= CRF_SHARE
    assert not (found == 255).any()


def test_labels_at_the_lower_background() -> None:
    """Ignored are pixels that one background calls background and the lower one does not."""
    lower, own = STORED["confident_background"], STORED["confident_foreground"]
    found = _labels(background_factor=0.5) == 255
    assert (found != ((own == 0) & (lower != 0))).mean() <= CRF_SHARE
    assert not (_labels(background_factor=1.0) == 255).any()
