"""Batches refine the images of a shard as the CRF does one by one, and keep their order."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from brnf.config.sections.segmentation import Crf
from brnf.segment import crf_batches
from brnf.segment.batched_crf import dense_crf_batch
from brnf.segment.crf import dense_crf
from brnf.segment.crf_batches import refine_in_batches

CPU = torch.device("cpu")
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn(number: int) -> Drawn:
    """Return a noisy image of two colours, its classes, and probabilities of up to four labels."""
    random = np.random.default_rng(number)
    height, width = ((12, 16), (16, 12), (9, 11))[number % 3]
    image = np.full((height, width, 3), 90)
    image[:, width // 2 :] += 25
    image += random.integers(-6, 7, image.shape)
    labels = 1 + number % 4
    probability = random.dirichlet(np.ones(labels), (height, width)).transpose(2, 0, 1)
    classes = np.arange(1, labels, dtype=np.uint8)
    return image.astype(np.uint8), classes, np.ascontiguousarray(probability, np.float32)


@pytest.mark.parametrize(
    ("ahead", "numbers", "largest"),
    [(32, 10**8, 9), (5, 10**8, 2), (32, 2 * 192 * 34, 3), (1, 1, 1)],
)
def test_batches_change_neither_order_nor_values(
    ahead: int, numbers: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf_batches, "IMAGES_AHEAD", ahead)
    monkeypatch.setattr(crf_batches, "NUMBERS_AT_ONCE", numbers)
    sizes = []

    def counted(images: torch.Tensor, *words: object) -> torch.Tensor:
        sizes.append(len(images))
        return dense_crf_batch(images, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(crf_batches, "dense_crf_batch", counted)
    images = [drawn(number) for number in range(26)]
    found = list(refine_in_batches(images, Crf(), CPU))
    for (image, classes, probability), (kept, refined) in zip(images, found, strict=True):
        assert kept is classes and refined.shape == probability.shape
        np.testing.assert_allclose(refined, dense_crf(image, probability, Crf()), atol=1e-3)
    assert sum(sizes) == 26 and max(sizes) == largest


def test_few_images_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def images() -> Iterator[Drawn]:
        for number in range(20):
            read.append(number)
            yield drawn(number)

    monkeypatch.setattr(crf_batches, "IMAGES_AHEAD", 6)
    next(refine_in_batches(images(), Crf(), CPU))
    assert len(read) == 7
    read.clear()
    monkeypatch.setattr(crf_batches, "BYTES_AHEAD", 3 * 12 * 16 * 4)
    next(refine_in_batches(images(), Crf(), CPU))
    assert len(read) == 3  # the first two have 1 and 2 labels


def test_labels_that_an_image_lacks_change_nothing() -> None:
    image, _, probability = drawn(2)
    images = torch.from_numpy(np.stack([image, image]))
    padded = np.zeros((2, 5, *probability.shape[1:]), np.float32)
    padded[:, :3] = probability
    counts = torch.tensor([3, 5])
    found = dense_crf_batch(images, torch.from_numpy(padded), Crf(), counts).numpy()
    alone = dense_crf_batch(images[:1], torch.from_numpy(probability)[None], Crf()).numpy()
    np.testing.assert_allclose(found[0, :3], alone[0], atol=1e-6)
    assert not found[0, 3:].any()
    assert found[1, 3:].any()  # there 0 is a small probability
