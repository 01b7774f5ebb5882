"""Inputs of the dense CRF, and what pydensecrf2 made of them (see README.md here).

``python -m tests.reference.dense_crf`` records anew, where pydensecrf2 is installed.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.reference_pydensecrf import by_pydensecrf
from brnf.config.sections.segmentation import Crf
from brnf.data.scenes import draw_scene

RECORDED = Path(__file__).with_name("dense_crf.npz")
BLOCK = 4
"""Pixels of a side that share their logits, which so take little room."""
KEPT_PIXELS = 400
"""Pixels of an image whose marginals are kept; labels are kept of all."""


@dataclass(frozen=True)
class Case:
    """A recipe.

    Attributes:
        size: height and width.
        labels: how many.
        picture: ``scene`` (rendered by the project), ``noise`` or ``flat`` (one grey value).
        options: of the CRF.
    """

    size: tuple[int, int]
    labels: int
    picture: str = "scene"
    options: Crf = field(default_factory=Crf)

    def image(self, seed: int) -> np.ndarray:
        """Return [H, W, 3] uint8."""
        height, width = self.size
        if self.picture == "flat":
            return np.full((height, width, 3), 117, np.uint8)
        if self.picture == "noise":
            return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        scene = draw_scene(seed, "train", seed, size=max(32, *self.size), rho=1.0, nu=1.0)
        return np.ascontiguousarray(scene.image[:height, :width])

    def logits(self, seed: int) -> np.ndarray:
        """Return [L, blocks, blocks] int8 of broad areas with noise, in units of 1/16."""
        random = np.random.default_rng(seed)
        blocks = [-(-side // BLOCK) for side in self.size]
        centres = random.random((self.labels, 2)) * blocks
        place = np.stack(np.meshgrid(*map(np.arange, blocks), indexing="ij"), -1)
        distance = np.linalg.norm(place - centres[:, None, None], axis=-1)
        areas = 4.0 * (distance == distance.min(0)) + random.normal(0, 1.2, distance.shape)
        return np.clip(16 * areas, -127, 127).astype(np.int8)


def crf(iterations: int, *values: float) -> Crf:
    """Return a CRF: width and weight of the smoothness term; widths and weight of the other."""
    names = ("gaussian_sigma", "gaussian_weight")
    names += ("bilateral_sigma_xy", "bilateral_sigma_rgb", "bilateral_weight")
    return Crf(iterations=iterations, **dict(zip(names, values, strict=True)))


CASES = {
    "scene": Case((72, 96), 3),
    "odd sizes": Case((97, 67), 5),
    "two labels": Case((48, 48), 2),
    "20 labels": Case((60, 75), 20),
    "one row": Case((1, 97), 3, "noise"),
    "one column": Case((83, 1), 2, "noise"),
    "one pixel": Case((1, 1), 4, "noise"),
    "noise": Case((33, 47), 7, "noise"),
    "one iteration": Case((31, 29), 12, "noise", Crf(iterations=1)),
    "two labels, one iteration": Case((40, 61), 2, "scene", Crf(iterations=1)),
    "four labels": Case((66, 88), 4),
    "flat": Case((24, 40), 3, "flat"),
    "wide smoothness": Case((50, 71), 6, "scene", crf(10, 3.0, 2.0, 30.0, 10.0, 6.0)),
    "wide appearance": Case((71, 50), 3, "scene", crf(10, 0.7, 3.0, 80.0, 13.0, 10.0)),
    "narrow appearance": Case((50, 66), 8, "scene", crf(5, 1.5, 1.0, 5.0, 1.0, 3.0)),
}


@dataclass(frozen=True)
class Recorded:
    """A case as it is kept.

    Attributes:
        image: [H, W, 3] uint8.
        probability: [L, H, W] float32.
        labels: [H, W] uint8 of pydensecrf2.
        marginals: [L, pixels] of pydensecrf2 at every ``step``-th pixel.
        step: see there.
    """

    image: np.ndarray
    probability: np.ndarray
    labels: np.ndarray
    marginals: np.ndarray
    step: int


def enlarged(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the probabilities [L, H, W] float32 of logits in blocks."""
    whole = logits.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, : size[0], : size[1]] / 16
    exponential = np.exp(whole - whole.max(0))
    return (exponential / exponential.sum(0)).astype(np.float32)


def recorded(name: str) -> Recorded:
    """Read a case."""
    with np.load(RECORDED) as file:
        image, logits = file[f"{name}/image"], file[f"{name}/logits"]
        labels, marginals = file[f"{name}/labels"], file[f"{name}/marginals"]
    probability = enlarged(logits, labels.shape)
    return Recorded(image, probability, labels, marginals, kept_step(labels.size))


def kept_step(pixels: int) -> int:
    """Return the distance of pixels whose marginals are kept; odd, so that all columns occur."""
    return max(1, pixels // KEPT_PIXELS) | 1


def record() -> None:
    """Write ``dense_crf.npz``."""
    arrays = {}
    for seed, (name, case) in enumerate(CASES.items()):
        image, logits = case.image(seed), case.logits(seed)
        marginals = by_pydensecrf(image, enlarged(logits, case.size), case.options)
        step = kept_step(marginals[0].size)
        kept = marginals.reshape(case.labels, -1)[:, ::step].astype(np.float16)
        arrays[f"{name}/image"], arrays[f"{name}/logits"] = image, logits
        arrays[f"{name}/labels"] = marginals.argmax(0).astype(np.uint8)
        arrays[f"{name}/marginals"] = kept
    np.savez_compressed(RECORDED, **arrays)


if __name__ == "__main__":
    record()
