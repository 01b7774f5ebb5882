"""The dense CRF by pydensecrf2, which this project used before, where it happens to be installed.

``python -m benchmarks.reference_pydensecrf IMPLEMENTATION FILE`` refines the image of a file once
and prints the peak of the process's memory in bytes; nothing but what that needs is imported.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from brnf.config.sections.segmentation import Crf
from brnf.engine.memory import peak_memory
from brnf.segment.crf import SMALLEST_PROBABILITY, dense_crf

__all__ = ["MISSING", "by_pydensecrf", "installed", "peak_of"]

MISSING = "not measured: pydensecrf2 is not installed (pip install pydensecrf2; needs a compiler)"
ROOT = Path(__file__).parents[1]
IMPLEMENTATIONS = ("brnf", "pydensecrf")


def installed() -> bool:
    """Return whether pydensecrf2 is there."""
    return find_spec("pydensecrf") is not None


def by_pydensecrf(
    image: NDArray[np.uint8],
    probability: NDArray[np.float32],
    options: Crf,
) -> NDArray[np.float32]:
    """Do what :func:`brnf.segment.crf.dense_crf` does by pydensecrf2.

    Arguments:
        image: [H, W, 3] uint8 RGB.
        probability: [L, H, W] float32.
        options: the pairwise terms.

    Returns:
        [L, H, W] float32 marginals.
    """
    from pydensecrf.densecrf import DenseCRF2D

    labels, height, width = probability.shape
    energy = -np.log(np.clip(probability, SMALLEST_PROBABILITY, 1.0))
    energy = np.ascontiguousarray(energy, dtype=np.float32)
    field = DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(energy.reshape(labels, height * width))
    field.addPairwiseGaussian(sxy=options.gaussian_sigma, compat=options.gaussian_weight)
    field.addPairwiseBilateral(
        sxy=options.bilateral_sigma_xy,
        srgb=options.bilateral_sigma_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=options.bilateral_weight,
    )
    found = np.array(field.inference(options.iterations), dtype=np.float32)
    return found.reshape(labels, height, width)


def peak_of(implementation: str, image: NDArray[np.uint8], probability: NDArray[np.float32]) -> int:
    """Return the peak memory, bytes, of a process of its own that refines an image.

    Arguments:
        implementation: ``brnf`` or ``pydensecrf``.
        image: [H, W, 3] uint8 RGB.
        probability: [L, H, W] float32.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder, "image.npz")
        np.savez(file, image=image, probability=probability)
        command = [
            sys.executable,
            "-m",
            "benchmarks.reference_pydensecrf",
            implementation,
            str(file),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        return int(done.stdout)


def _main(implementation: str, file: str) -> None:
    with np.load(file) as arrays:
        image, probability = arrays["image"], arrays["probability"]
    refine = dict(zip(IMPLEMENTATIONS, (dense_crf, by_pydensecrf), strict=True))[implementation]
    refine(image, probability, Crf())
    print(peak_memory())


if __name__ == "__main__":
    _main(*sys.argv[1:])
