"""Base seed denoising with the flow: which foreground pixels are noise (docs/method.md section 6).

Each of the four rules is a *decision margin* per pixel: negative means noise. What the rules need
of the whole data set is fitted once on the training store, for every population; choosing another
rule, threshold or population later refits nothing.
"""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from brnf.config.sections.flow import Population, Rule, Upsample
from brnf.flow.labels import three_way_labels
from brnf.flow.posterior import tempered_posterior

__all__ = [
    "RULES_IN_NATS",
    "Calibration",
    "CalibrationFit",
    "Population",
    "Rule",
    "Upsample",
    "decision_margin",
    "enlarge_margin",
    "suppress",
]

RULES_IN_NATS: tuple[Rule, ...] = ("quantile", "ratio")
"""Rules whose margin is a log-density; those of the others lie within -1..1."""
LEVELS = 1000
"""Steps of the quantile tables, so that 0.1 % is resolved."""


@dataclass(frozen=True)
class Calibration:
    """What the rules know of the training store.

    Attributes:
        temperature: of the posterior.
        likelihood: population -> [K, 1001] quantiles of log p(v|c) at levels 0, 0.001 ... 1; -inf
            where a class has no pixel.
        ratio: population -> [K, 1001] quantiles of log p(v|c) - log p(v|0), likewise.
    """

    temperature: float
    likelihood: dict[str, Tensor]
    ratio: dict[str, Tensor]

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors that ``torch.load(weights_only=True)`` accepts."""
        return {
            "temperature": self.temperature,
            "likelihood": dict(self.likelihood),
            "ratio": dict(self.ratio),
        }


class CalibrationFit:
    """Gather the values of every class and population in one pass over the training store.

    At most ``limit`` random values of each are kept, so that memory does not grow with the number
    of images; with fewer the quantiles are exact.

    Arguments:
        classes: K.
        low: threshold of ``above_low``.
        high: threshold of ``above_high``.
        seed: of the values kept.
        limit: values kept per class and population. At 65,536 a 10 % quantile is known to 0.12 %.
    """

    def __init__(
        self, classes: int, low: float, high: float, seed: int = 0, limit: int = 65536
    ) -> None:
        self._classes, self._low, self._high, self._limit = classes, low, high, limit
        self._random = np.random.default_rng(seed)
        # Columns: random key, log p(v|c), log p(v|c) - log p(v|0).
        self._kept = {
            (name, c): [np.zeros((0, 3))]
            for name in get_args(Population)
            for c in range(1, classes)
        }

    def update(self, log_prob: Tensor, label: Tensor, score: Tensor, background: Tensor) -> None:
        """Add rows of the store.

        Arguments:
            log_prob: [N, K] nats.
            label: [N] class 1..C of the largest foreground score.
            score: [N] that score.
            background: [N] the map's own background value.
        """
        label = label.to(torch.int64)
        targets = three_way_labels(score, label, self._low, self._high)
        members = {
            "predicted": score > background,
            "above_low": targets != 0,
            "above_high": targets > 0,
        }
        own = log_prob.gather(1, label.unsqueeze(1)).squeeze(1)
        values = np.stack(
            [
                self._random.random(len(label)),
                own.double().numpy(),
                (own - log_prob[:, 0]).double().numpy(),
            ],
            1,
        )
        for name, member in members.items():
            for c in label[member].unique().tolist():
                kept = self._kept[name, c]
                kept.append(values[(member & (label == c)).numpy()])
                if sum(map(len, kept)) > 2 * self._limit:
                    kept[:] = [self._trim(kept)]

    def _trim(self, kept: list[np.ndarray]) -> np.ndarray:
        values = np.concatenate(kept)
        return values[np.argsort(values[:, 0], kind="stable")[: self._limit]]

    def finish(self, temperature: float) -> Calibration:
        """Return the calibration with a temperature that was fitted or given."""
        tables: dict[int, dict[str, Tensor]] = {1: {}, 2: {}}
        for name in get_args(Population):
            for column, table in tables.items():
                rows = torch.full((self._classes, LEVELS + 1), -torch.inf)
                for c in range(1, self._classes):
                    values = self._trim(self._kept[name, c])[:, column]
                    if len(values):
                        rows[c] = torch.from_numpy(
                            np.quantile(values, np.linspace(0, 1, LEVELS + 1))
                        )
                table[name] = rows
        return Calibration(temperature, tables[1], tables[2])


def decision_margin(
    rule: Rule,
    xi: float,
    log_prob: Tensor,
    label: Tensor,
    allowed: Tensor,
    calibration: Calibration,
    population: Population = "predicted",
) -> Tensor:
    """Return how far each pixel is from being suppressed; a negative margin suppresses it.

    A higher ``xi`` never suppresses more. Pixels of a class that is not in the population have an
    infinite margin under the rules that look at the population.

    Arguments:
        rule: ``quantile``: log p(v|c) below its 1 - xi quantile; ``likelihood``: log p(v|c),
            clipped to its 1st..99th percentile and mapped to 0..1, below 1 - xi; ``posterior``:
            p(0|v) above xi; ``ratio``: as ``quantile`` for log p(v|c) - log p(v|0).
        xi: 0..1 (the paper: 0.9).
        log_prob: [N, K] nats.
        label: [N] the foreground class c of largest score.
        allowed: [N, K] bool, background and the image's labels.
        calibration: of the training store.
        population: whose quantiles: ``predicted`` foreground, ``above_low`` or ``above_high`` of
            the thresholds.

    Returns:
        [N] float32.
    """
    if rule == "posterior":
        return (xi - tempered_posterior(log_prob, allowed, calibration.temperature)[:, 0]).float()
    label = label.to(torch.int64)
    own = log_prob.gather(1, label.unsqueeze(1)).squeeze(1)
    if rule == "ratio":
        return (
            own - log_prob[:, 0] - _quantile(calibration.ratio[population], 1 - xi)[label]
        ).float()
    table = calibration.likelihood[population]
    if rule == "quantile":
        return (own - _quantile(table, 1 - xi)[label]).float()
    low, high = _quantile(table, 0.01)[label], _quantile(table, 0.99)[label]
    normalised = ((own - low) / (high - low).clamp_min(torch.finfo(torch.float32).eps)).clamp(0, 1)
    return torch.where(low.isinf(), torch.inf, normalised - (1 - xi)).float()


def _quantile(table: Tensor, level: float) -> Tensor:
    """Read the quantiles [K] at ``level`` from a table [K, 1001], linearly between its steps."""
    position = min(max(round(level * LEVELS, 6), 0.0), float(LEVELS))
    below = int(position)
    if position == below:
        return table[:, below]
    return torch.lerp(table[:, below], table[:, below + 1], position - below).where(
        table[:, below].isfinite(), -torch.inf
    )


def enlarge_margin(margin: Tensor, size: tuple[int, int], mode: Upsample) -> Tensor:
    """Enlarge margins of the feature grid to the size of a map.

    Infinite margins first become as large as the largest finite one, so that they bend their
    neighbours no further.

    Arguments:
        margin: [h, w].
        size: (H, W).
        mode: ``bilinear`` moves the border between pixels with the margin, ``nearest`` copies the
            grid's decision.

    Returns:
        [H, W].
    """
    finite = margin[margin.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 1.0
    settled = margin.clamp(-largest, largest)[None, None]
    if mode == "nearest":
        return interpolate(settled, size, mode="nearest")[0, 0]
    return interpolate(settled, size, mode="bilinear", align_corners=False)[0, 0]


def suppress(values: Tensor, margin: Tensor, factor: float) -> Tensor:
    """Multiply the foreground of pixels with a negative margin and make them background.

    Their background becomes 1; that of all other pixels stays as it is (as 1 - max it would cost 4
    mIoU, docs/method.md section 6).

    Arguments:
        values: [1 + k, H, W] map, channel 0 the background.
        margin: [H, W].
        factor: 0 removes, 1 keeps the foreground.

    Returns:
        [1 + k, H, W].
    """
    noise = margin < 0
    foreground = torch.where(noise, values[1:] * factor, values[1:])
    background = torch.where(noise, torch.ones_like(values[:1]), values[:1])
    return torch.cat([background, foreground])
