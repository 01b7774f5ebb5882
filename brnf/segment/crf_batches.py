"""The dense CRF on a GPU for images of a shard: those of one size are refined together."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from brnf.config.sections.segmentation import Crf
from brnf.segment.batched_crf import dense_crf_batch
from brnf.store.label_type import Labels

__all__ = ["refine_in_batches"]

IMAGES_AHEAD = 32
"""Images among which those of one size are looked for."""
BYTES_AHEAD = 256 * 2**20
"""Of their probabilities, where these are large."""
LATTICE = 30
"""Numbers that a pixel takes beside its labels: keys, places and shares of the points around it."""
NUMBERS_AT_ONCE = 100_000_000
"""In a batch: 15 photographs of PASCAL VOC with 4 labels. A launch costs some 5 us, a batch has
1,300 of them, whatever its size.
"""

Unrefined = tuple[NDArray[np.uint8], Labels, NDArray[np.float32]]
"""An image [H, W, 3], classes [k] of its channels but the first, and probabilities [1 + k, H, W].
"""


def refine_in_batches(
    images: Iterable[Unrefined], options: Crf, device: torch.device
) -> Iterator[tuple[Labels, NDArray[np.float32]]]:
    """Refine labels as :func:`brnf.segment.predict.refine_labels` does, in the order of the images.

    Arguments:
        images: at most 32 are read before they are refined, less where they are large; as many
            that are refined wait to be taken.
        options: the pairwise terms.
        device: where to compute.

    Raises:
        UserError: the widths of the pairwise terms are too small for the images.
    """
    waiting: list[Unrefined] = []
    # One comes out for each that is read, so that who takes them is not flooded: the device would
    # wait until all of a batch are written.
    ready: deque[tuple[Labels, NDArray[np.float32]]] = deque()
    size = 0
    for image in images:
        waiting.append(image)
        size += image[2].nbytes
        if ready:
            yield ready.popleft()
        if len(waiting) == IMAGES_AHEAD or size >= BYTES_AHEAD:
            yield from ready
            ready = deque(_refined(waiting, options, device))
            waiting, size = [], 0
    yield from ready
    yield from _refined(waiting, options, device)


def _refined(
    images: Sequence[Unrefined], options: Crf, device: torch.device
) -> Iterator[tuple[Labels, NDArray[np.float32]]]:
    """Refine images in batches of one size each."""
    found: dict[int, NDArray[np.float32]] = {}
    for batch in _batches([probability.shape for _, _, probability in images]):
        pixels = np.stack([images[place][0] for place in batch])
        counts = [len(images[place][2]) for place in batch]
        probability = np.zeros((len(batch), max(counts), *pixels.shape[1:3]), np.float32)
        for row, place in enumerate(batch):
            probability[row, : counts[row]] = images[place][2]
        refined = dense_crf_batch(
            torch.from_numpy(pixels).to(device),
            torch.from_numpy(probability).to(device),
            options,
            torch.tensor(counts).to(device),
        )
        whole = refined.cpu().numpy()
        found |= {place: whole[row, : counts[row]] for row, place in enumerate(batch)}
    for place, (_, classes, _) in enumerate(images):
        yield classes, found.pop(place)


def _batches(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Yield places of images of one height and width that fit a batch, alike in their labels.

    Arguments:
        shapes: (L, H, W) of each image.
    """
    batch: list[int] = []
    # Descending, so that the first of a batch has the most labels, which the others are padded to.
    for place in sorted(range(len(shapes)), key=lambda i: (shapes[i][1:], shapes[i][0]))[::-1]:
        if batch:
            labels, *size = shapes[batch[0]]
            numbers = (len(batch) + 1) * size[0] * size[1] * (labels + LATTICE)
            if tuple(size) != shapes[place][1:] or numbers > NUMBERS_AT_ONCE:
                yield batch
                batch = []
        batch.append(place)
    if batch:
        yield batch
