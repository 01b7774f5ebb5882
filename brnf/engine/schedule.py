"""The learning rates of all trainings, as shares of the first one: pure functions of the step."""

import math

from brnf.config.sections.flow import Decay

__all__ = ["decay", "fewest_steps", "polynomial", "total_steps"]


def polynomial(
    step: int, steps: int, power: float = 0.9, *, every: int = 1, beyond: int = 0
) -> float:
    """Return the share of a polynomial decay: 1 at first, 0 at ``steps + beyond`` and after it.

    Arguments:
        step: number of steps taken before, 0, 1, ...
        steps: length of the training.
        power: of the decay.
        every: steps between two changes.
        beyond: steps after the last one at which the rate would be 0.

    References:
        SIPE's and IRN's ``PolyOptimizer``; ``PolynomialLR`` of deeplab-pytorch (``every`` 10) and
        HSC's (``beyond`` 1).
    """
    changed = step - step % every
    found: float = max(0.0, 1 - changed / max(steps + beyond, 1)) ** power
    return found


def decay(kind: Decay, step: int, steps: int, final: float) -> float:
    """Return the share of a decay from 1 at the first step to ``final`` at the last.

    DDFP multiplies its flow's rate by ``0.01 ** (1 / epochs)`` after each epoch; here every step
    does its part of that.

    Arguments:
        kind: ``exponential``: by the same factor each step; ``cosine``: along a half cosine.
        step: number of steps taken before, 0, 1, ...
        steps: length of the training; later steps keep the last share.
        final: above 0.
    """
    progress = min(1.0, step / max(steps - 1, 1))
    if kind == "exponential":
        return float(final**progress)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def total_steps(images: int, batch_size: int, epochs: int, steps: int | None) -> tuple[int, int]:
    """Return the steps of an epoch and of the whole training; ``steps`` overrules ``epochs``."""
    per_epoch = max(1, images // batch_size)
    return per_epoch, steps if steps is not None else epochs * per_epoch


def fewest_steps(images: int, batch_size: int, steps: int, epochs: int | None) -> int:
    """Return ``steps``, or those of so many epochs over the images where these are fewer.

    Arguments:
        images: of the split.
        batch_size: images of a step.
        steps: at most.
        epochs: at most; None leaves the steps as they are.
    """
    if epochs is None:
        return steps
    return min(steps, math.ceil(epochs * images / batch_size))
