"""SFC's training: consistency of maps at two scales, weighted by how rare a class is, over batches
that a bank makes longer.

`docs/method.md` section 3. Maps are propagated by pixel similarity (PCM); see
:func:`brnf.cam.objective.training_maps`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.cam.batch import Batch
from brnf.cam.network import CamOutput
from brnf.cam.objective import classification_loss, training_maps
from brnf.cam.prototypes import divide_by_maximum
from brnf.config.sections.cam import MapRules, Sfc
from brnf.engine import distributed

__all__ = [
    "ImageBank",
    "SfcObjective",
    "bank_draws",
    "distribution_weights",
    "halved",
]

LABELS_PER_DRAW = 3
"""Classes that a drawn image is reckoned to show, by SFC's code."""


def bank_draws(steps: int, drawn: int, classes: int) -> int:
    """Return m, how often a class comes from the bank in an epoch: 396 for VOC's 661 steps.

    Arguments:
        steps: of an epoch.
        drawn: images that join a batch.
        classes: number C.
    """
    return steps * drawn * LABELS_PER_DRAW // classes


def distribution_weights(counts: Tensor, draws: int) -> Tensor:
    """Return ``a_k = sum_j |n_k - n_j| / (n_k + m)``, divided by its mean: both ends of a
    long-tailed distribution weigh more.

    Arguments:
        counts: n, images of each class [C].
        draws: m, see :func:`bank_draws`.

    Returns:
        [C] float32 of mean 1; ones when all classes have the same number of images.
    """
    n = counts.double()
    weights = (n[:, None] - n).abs().sum(1) / (n + draws).clamp(min=1)
    return (weights / weights.mean()).float() if weights.any() else torch.ones(len(counts))


class ImageBank:
    """Remember the latest training image of each class, and let some join every batch.

    Arguments:
        classes: number C.
        drawn: images that join a batch.
        seed: of the draws.
    """

    def __init__(self, classes: int, drawn: int, seed: int) -> None:
        self._drawn, self._seed = drawn, seed
        self._latest: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * classes

    def join(self, batches: Iterable[Batch], first: int = 0) -> Iterator[Batch]:
        """Yield each batch, longer by images of classes drawn with replacement among those met so
        far, this batch's included.

        Arguments:
            batches: of images, not of a backbone's outputs.
            first: number of the first batch, which decides its draws.
        """
        for step, batch in enumerate(batches, first):
            assert isinstance(batch.pixels, Tensor)
            for pixels, labels, valid in zip(batch.pixels, batch.labels, batch.valid, strict=True):
                for index in labels.nonzero()[:, 0].tolist():
                    self._latest[index] = (
                        pixels.clone(),
                        labels,
                        valid,
                    )  # a view would keep its whole batch
            yield self._lengthened(batch, np.random.default_rng([self._seed, step]))

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers."""
        return {"latest": list(self._latest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._latest = list(state["latest"])

    def _lengthened(self, batch: Batch, generator: np.random.Generator) -> Batch:
        met = [entry for entry in self._latest if entry is not None]
        if not met or not self._drawn:
            return batch
        drawn = [met[int(place)] for place in generator.integers(len(met), size=self._drawn)]
        assert isinstance(batch.pixels, Tensor)
        columns = zip(*drawn, strict=True)
        pixels, labels, valid = (
            torch.cat([own, torch.stack(list(added))])
            for own, added in zip((batch.pixels, batch.labels, batch.valid), columns, strict=True)
        )
        return replace(batch, pixels=pixels, labels=labels, valid=valid)


def halved(images: Tensor) -> Tensor:
    """Return images [N, 3, H, W] at half their size, float32."""
    return F.interpolate(images.float(), scale_factor=0.5, mode="bilinear", align_corners=True)


class SfcObjective:
    """Compute SFC's loss.

    Arguments:
        options: weights of the terms.
        rules: how maps are made; seeds always follow the plain rule.
        weights: a, [C].
    """

    def __init__(self, options: Sfc, rules: MapRules, weights: Tensor) -> None:
        self._options, self._rules, self._weights = options, rules, weights.view(1, -1, 1, 1)

    def __call__(
        self, whole: CamOutput, half: CamOutput, labels: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Return the terms of the loss by name.

        ``(L_cls(1) + L_cls(1/2)) / 2 + 1.6 mean|a (A_1 - P_1)| + 0.8 mean|a (A_1 halved -
        A_1/2)|``; the background weighs 1 in the second term and is left out of the third. Padding
        counts in both: propagated and prototype maps reach into it.

        Arguments:
            whole: the network's output for the images at scale 1.
            half: likewise at scale 1/2.
            labels: [N, C] in {0, 1}.
            valid: [N, 1, h, w] bool on the grid of scale 1, false on padding.
        """
        large = training_maps(whole, labels, valid, self._rules)
        grid = half.logits.shape[2:]
        small = training_maps(
            half, labels, F.interpolate(valid.float(), grid, mode="nearest").bool(), self._rules
        )
        shrunk = F.interpolate(large.classifier[:, 1:], grid, mode="bilinear", align_corners=True)
        difference = (large.classifier - divide_by_maximum(large.cosine)).abs()
        consistency = torch.cat([difference[:, :1], self._weights * difference[:, 1:]], 1).mean()
        scales = (self._weights * (shrunk - small.classifier[:, 1:]).abs()).mean()
        scores = [classification_loss(output, labels) for output in (whole, half)]
        images = len(labels)
        return {
            "classification": (scores[0] + scores[1]) / 2,
            "consistency": self._options.lambda_prototype
            * distributed.batch_mean(consistency, images),
            "scales": self._options.lambda_scale * distributed.batch_mean(scales, images),
        }
