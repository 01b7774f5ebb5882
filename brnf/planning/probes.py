"""Short measurements of every kind of stage: seconds and memory of a step or of an image.

On a CPU sizes grow from a quarter of the side until a probe has had its time; the rest is
extrapolated by the number of pixels.
"""

from dataclasses import dataclass

import torch

from brnf.config.experiment import Experiment
from brnf.engine.memory import peak_memory
from brnf.engine.runtime import Runtime
from brnf.planning.sizes import SplitSize
from brnf.planning.trials import TRIALS, clock

__all__ = ["Measured", "probe"]

FRACTIONS = (0.25, 0.5, 1.0)
"""Of the side of an image at which a probe measures, one after the other."""


@dataclass(frozen=True)
class Measured:
    """What one probe found.

    Attributes:
        seconds: of a step, or of an image.
        look: seconds in which a training's network sees one image, which some do with all images
            before they learn; else 0.
        memory: bytes that a job takes at its full size.
        share: of the pixels of a full step or image that was measured; the rest is extrapolated.
        device: where.
    """

    seconds: float
    look: float
    memory: float
    share: float
    device: str


def probe(
    rule: str, experiment: Experiment, size: SplitSize, runtime: Runtime, seconds: float
) -> Measured:
    """Measure what a rule's jobs do again and again.

    Arguments:
        rule: one of ``TRIALS``.
        experiment: whose networks and options are taken.
        size: of the images.
        runtime: device and threads.
        seconds: about as long as it may take.
    """
    device = runtime.torch_device()
    torch.manual_seed(0)
    now = clock(device)
    begin = now()
    trial, images = TRIALS[rule](experiment, size, device)
    before = _memory(device)
    trial(FRACTIONS[0])  # warms up
    found, share = trial(FRACTIONS[0]), FRACTIONS[0]
    for fraction in FRACTIONS[1:]:
        spent = now() - begin
        if device.type == "cpu" and spent + 5 * sum(found) > seconds:
            break
        found, share = trial(fraction), fraction
    area = share**2
    growth = max(0.0, _memory(device) - before) * images / area
    return Measured(
        found[0] * images / area, found[1] / area, before + growth, area / images, str(device)
    )


def _memory(device: torch.device) -> float:
    """Return the peak memory of this process, bytes: the GPU's, or the main memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(peak_memory())
