"""The random walk against brute force: paths, affinities, the loss over all pairs, the dense matrix
power.
"""

import numpy as np
import pytest
import torch

from brnf.config.sections.segmentation import Walk
from brnf.segment import random_walk
from brnf.segment.random_walk import affinity_loss, pair_affinities, pair_paths, walk_maps


def test_paths_by_hand() -> None:
    paths = pair_paths(5)
    assert len(paths) == 34 and all(dy > 0 or dx > 0 for dy, dx in paths)
    assert paths[0, 2] == ((0, 0), (0, 1), (0, 2))
    assert set(paths[2, -2]) == {(0, 0), (0, -1), (1, 0), (1, -1), (1, -2), (2, -1), (2, -2)}
    assert all((0, 0) in cells and offset in cells for offset, cells in paths.items())


def plain_affinity(boundary: np.ndarray, radius: int) -> np.ndarray:
    """Return the dense matrix, 1 on its diagonal and 0 for pairs too far apart, from distances of
    cells to lines.
    """
    height, width = boundary.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    dense = np.eye(len(cells))
    for i, (y0, x0) in enumerate(cells):
        for j, (y1, x1) in enumerate(cells):
            length = np.hypot(y1 - y0, x1 - x0)
            if i == j or length >= radius:
                continue
            between = [
                boundary[y, x]
                for y in range(min(y0, y1), max(y0, y1) + 1)
                for x in range(min(x0, x1), max(x0, x1) + 1)
                if abs((y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)) / length < 1 - 1e-9
            ]
            dense[i, j] = 1 - max(between)
    return dense


@pytest.mark.parametrize("size", [(5, 7), (3, 2)])
def test_the_walk_is_the_power_of_the_dense_matrix(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    boundary = (generator.random(size) ** 3).astype(np.float32)
    maps = generator.random((3, *size)).astype(np.float32)
    steps = plain_affinity(boundary, 4) ** 10
    steps = steps / steps.sum(0, keepdims=True)
    expected = (maps * (1 - boundary)).reshape(3, -1) @ np.linalg.matrix_power(steps, 2**5)
    np.testing.assert_allclose(
        walk_maps(maps, boundary, Walk(radius=4, beta=10.0, exponent=5)),
        expected.reshape(maps.shape),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_map_fills_its_side_of_a_boundary() -> None:
    boundary = np.zeros((6, 9), np.float32)
    boundary[:, 4] = 1
    maps = np.zeros((1, 6, 9), np.float32)
    maps[0, 2, 1] = 1
    walked = walk_maps(maps, boundary, Walk())[0]
    assert walked[:, 5:].max() == 0 and walked[:, :4].min() > 0.5 * walked[:, :4].max() > 0


def test_the_loss_is_the_mean_over_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    boundaries = torch.rand(2, 4, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (2, 4, 5), generator=generator)]
    kinds: dict[str, list[float]] = {"background": [], "foreground": [], "different": []}
    for n in range(2):
        dense, flat = plain_affinity(boundaries[n].numpy(), 3), labels[n].flatten().tolist()
        for i in range(20):
            for j in range(i):
                y, x = abs(i // 5 - j // 5), abs(i % 5 - j % 5)
                if y * y + x * x >= 9 or 255 in (flat[i], flat[j]):
                    continue
                a = dense[i, j]
                if flat[i] == flat[j]:
                    kinds["foreground" if flat[i] else "background"].append(-np.log(a + 1e-5))
                else:
                    kinds["different"].append(-np.log(1 - a + 1e-5))
    means = {name: np.mean(values) for name, values in kinds.items()}
    expected = (means["background"] + means["foreground"]) / 4 + means["different"] / 2
    assert affinity_loss(boundaries, labels, 3).item() == pytest.approx(expected, rel=1e-4)


def test_a_gpus_way_of_the_loss_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    boundaries = torch.rand(2, 7, 9, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (2, 7, 9), generator=generator)]
    found, expected = boundaries.clone().requires_grad_(), boundaries.clone().requires_grad_()
    loss = affinity_loss(expected, labels, 4)
    loss.backward()
    monkeypatch.setattr(random_walk, "_by_offset", lambda values: False)
    other = affinity_loss(found, labels, 4)
    other.backward()
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(found.grad, expected.grad)
    assert found.grad is not None and found.grad.any()
    small = torch.rand(1, 1, 1, requires_grad=True)
    assert affinity_loss(small, torch.zeros(1, 1, 1), 4).item() == 0


def test_boundaries_are_learnt_between_the_classes() -> None:
    labels = torch.zeros(1, 6, 8, dtype=torch.int64)
    labels[:, :, 4:] = 2
    logits = torch.zeros(1, 6, 8, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        affinity_loss(logits.sigmoid(), labels, 3).backward()
        optimiser.step()
    learnt = logits.detach().sigmoid()[0]
    assert (
        learnt[:, 3:5].amax(1).min() > 0.7
        and learnt[:, :2].max() < 0.1
        and learnt[:, 6:].max() < 0.1
    )


def test_unlabelled_pixels_teach_nothing() -> None:
    boundaries = torch.rand(1, 4, 4, requires_grad=True)
    affinity_loss(boundaries, torch.full((1, 4, 4), 255), 3).backward()
    assert boundaries.grad is not None and not boundaries.grad.any()
    assert all(
        values.shape == (1, 4 - dy, 4 - abs(dx))
        for (dy, dx), values in pair_affinities(boundaries, 5).items()
    )
