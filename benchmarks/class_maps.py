"""Seeds, prototypes and their maps on the feature grid of one image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Repeats, Row, compare
from benchmarks.reference_maps import intermediate_prototype_maps, intermediate_seeds
from brnf.cam.prototypes import classifier_maps, present_classes, structure_seeds
from brnf.cam.prototypes import prototype_maps as cosine_maps
from brnf.cam.prototypes import prototypes as averages

__all__ = ["FULL", "TINY", "Size", "measure"]


@dataclass(frozen=True)
class Size:
    """What is measured: the feature grid of scale 1 of a VOC image at stride 16."""

    height: int = 24
    width: int = 32
    dimension: int = 768
    labels: tuple[tuple[int, int], ...] = ((21, 2), (81, 3))
    """Labels of the data set with the background, and foreground labels of the image."""


FULL = Size()
TINY = Size(8, 10, 16, ((5, 2),))


@torch.no_grad()
def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare products over the classes present with intermediates of all classes and pixels."""
    return [_compare(size, classes, present, repeats) for classes, present in size.labels]


def _compare(size: Size, classes: int, present: int, repeats: Repeats) -> Row:
    generator = torch.Generator().manual_seed(0)
    features = _smooth(size.dimension, size, generator)
    labels = torch.zeros(1, classes - 1)
    labels[0, :present] = 1
    # Absent classes stay below 0 almost everywhere, as in a trained network; divided by its maximum
    # a map keeps no other difference.
    logits = _smooth(classes - 1, size, generator) + 4 * labels[:, :, None, None] - 3.5
    maps, chosen = classifier_maps(logits, labels), present_classes(labels)
    _assert_equal(maps, features, chosen)
    return compare(
        "prototypes, seeds, cosine maps",
        f"{size.height} × {size.width} × {size.dimension}, {present} + 1 of {classes} labels",
        lambda: _with_products(maps, features, chosen),
        lambda: _with_intermediates(maps, features, chosen),
        repeats,
        limit="GEMM",
        bound=_products(size, classes, present),
        ratio=1.8,
    )


def _smooth(channels: int, size: Size, generator: torch.Generator) -> Tensor:
    """Return maps [1, channels, h, w] with similar neighbouring pixels, as networks give."""
    coarse = torch.randn(
        1, channels, -(-size.height // 4), -(-size.width // 4), generator=generator
    )
    return F.interpolate(coarse, (size.height, size.width), mode="bilinear")


def _with_products(maps: Tensor, features: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    seeds = structure_seeds(maps, features, chosen)
    return seeds, cosine_maps(features, averages(features, seeds[:, chosen[0]]))


def _with_intermediates(maps: Tensor, features: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    seeds = intermediate_seeds(maps, features, chosen)
    return seeds, intermediate_prototype_maps(features, seeds)


def _products(size: Size, classes: int, present: int) -> Callable[[], None]:
    pixels = size.height * size.width
    features, maps = torch.randn(size.dimension, pixels), torch.randn(classes, pixels)
    relation, centres = torch.randn(pixels, pixels), torch.randn(present + 1, size.dimension)

    def run() -> None:
        torch.mm(features.T, features)
        torch.mm(maps, relation)
        torch.mm(maps[: present + 1], features.T)
        torch.mm(centres, features)

    return run


def _assert_equal(maps: Tensor, features: Tensor, chosen: Tensor) -> None:
    """Assert the same seeds, and maps equal to 1e-4 in float32."""
    seeds, found = _with_products(maps, features, chosen)
    expected_seeds, expected = _with_intermediates(maps, features, chosen)
    assert torch.equal(seeds, expected_seeds) and seeds.any()
    torch.testing.assert_close(found, expected[:, chosen[0]], rtol=1e-4, atol=1e-4)
