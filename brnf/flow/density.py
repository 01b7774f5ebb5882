"""Densities over pixel features: the interface, and the normalizing flow behind it (docs/method.md
section 5).
"""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from brnf.config.sections.flow import FlowArchitecture, NoiseUnit, Rows
from brnf.flow import coupling, fused
from brnf.flow.coupling import invert, steps_of
from brnf.flow.mixture import LatentMixture
from brnf.flow.realnvp import build_real_nvp

__all__ = [
    "STD_FLOOR",
    "Density",
    "FlowDensity",
    "RunningMoments",
    "StandardisedDensity",
    "rows_at_once",
]

TILE = 1552
"""Rows that a CPU evaluates at once, in training too: fewer lose time in calls, more leave the
cache of a core (docs/benchmarks.md).
"""
LARGE_TILE = 32768
"""Rows that another device does: a step of the paper's size is one tile, whose gradient needs 60 kB
a row at D = 768.
"""
STD_FLOOR = Rows().std_floor


def rows_at_once(device: torch.device) -> int:
    """Return how many rows a density evaluates at once on a device."""
    return TILE if device.type == "cpu" else LARGE_TILE


@runtime_checkable
class Density(Protocol):
    """What BSDNF and its calibration need to know of a density."""

    dimension: int
    classes: int

    def log_prob(self, features: Tensor) -> Tensor:
        """Return log p(v|k), [N, K] float32 nats, of features [N, D], without gradient."""
        ...


class RunningMoments(nn.Module):
    """Mean and standard deviation of rows that come in batches, merged pairwise in float64 (Chan,
    Golub and LeVeque).

    Arguments:
        dimension: D.
        window: rows after which older ones begin to be forgotten; infinite by default.
        floor: least standard deviation, as a share of its root mean square over the dimensions.
    """

    mean: Tensor
    squares: Tensor

    def __init__(self, dimension: int, window: float = math.inf, floor: float = STD_FLOOR) -> None:
        super().__init__()
        self.window, self.floor = window, floor
        self.count = 0.0  # on the host, which knows it: what follows from it is no work of a GPU
        self.register_buffer("mean", torch.zeros(dimension, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(dimension, dtype=torch.float64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Merge the rows [N, D] of a batch."""
        if not len(rows):
            return
        batch = rows.to(torch.float64)
        batch_mean = batch.mean(0)
        kept = min(self.count, self.window)
        total = kept + len(batch)
        shift = batch_mean - self.mean
        self.mean += shift * (len(batch) * (1 / total))
        self.squares *= kept / max(self.count, 1)
        self.squares += (batch - batch_mean).square().sum(0) + shift.square() * (
            kept * len(batch) / total
        )
        self.count = total

    def get_extra_state(self) -> float:
        """Return the number of rows, less those forgotten."""
        return self.count

    def set_extra_state(self, state: float) -> None:
        """Take over what :meth:`get_extra_state` returned."""
        self.count = state

    def std(self) -> Tensor:
        """Return the standard deviation [D], floored: a dead channel must not be blown up."""
        variance = self.squares / max(self.count, 1)
        floor = self.floor * variance.mean().sqrt()
        return torch.where(floor > 0, variance.sqrt().clamp_min(floor), torch.ones_like(variance))


class StandardisedDensity(nn.Module):
    """A density of standardised features; its values are per unit of the raw features.

    Subclasses give :meth:`standardised_log_prob`.

    Arguments:
        dimension: D.
        classes: K.
    """

    kind = ""
    mean: Tensor
    std: Tensor

    def __init__(self, dimension: int, classes: int) -> None:
        super().__init__()
        self.dimension, self.classes = dimension, classes
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("std", torch.ones(dimension))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the std of a file that an earlier version wrote, which called it deviation."""
        if (earlier := f"{prefix}deviation") in state_dict:
            state_dict[f"{prefix}std"] = state_dict.pop(earlier)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def fit_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and the standard deviation [D] of the features."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def standardise(self, features: Tensor) -> Tensor:
        """Return (v - mean) / std."""
        return (features.to(self.mean) - self.mean).div_(self.std)

    def in_std(self, noise: Tensor, unit: NoiseUnit) -> Tensor:
        """Return noise [N, D] or [D] of a unit as what is added to standardised features."""
        return noise / self.std if unit == "feature" else noise

    def standardised_log_prob(self, standardised: Tensor) -> Tensor:
        """Return the log-density [N, K] of standardised features, per unit of those."""
        raise NotImplementedError

    def class_log_prob(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return log p(v|k) with gradient.

        Arguments:
            features: [N, D] raw.
            noise: [N, D] added after standardisation (see :meth:`in_std`), or None.

        Returns:
            [N, K] nats, with the log-Jacobian of the standardisation.
        """
        with self._full_precision():
            standardised = self.standardise(features)
            if noise is not None:
                standardised = standardised + noise
            return self.standardised_log_prob(standardised) - self.std.log().sum()

    def _full_precision(self) -> torch.autocast:
        """Switch off the caller's autocast: log-determinants in bfloat16 lose digits."""
        return torch.autocast(self.mean.device.type, enabled=False)

    @torch.no_grad()
    def log_prob(self, features: Tensor) -> Tensor:
        """Return log p(v|k) without gradient, tile by tile.

        Arguments:
            features: [N, D], any float, any device.

        Returns:
            [N, K] float32 nats on the device of ``features``.
        """
        tiles = [
            self.class_log_prob(tile).to(features.device, torch.float32)
            for tile in features.split(rows_at_once(self.mean.device))
            if len(tile)
        ]
        if len(tiles) == 1:
            return tiles[0]
        return torch.cat(tiles) if tiles else torch.zeros(0, self.classes, device=features.device)


class FlowDensity(StandardisedDensity):
    """Standardisation, RealNVP and a latent Gaussian mixture.

    Arguments:
        dimension: D, even.
        classes: K, background included.
        options: the architecture, and the noise that it is trained under.
        seed: of permutations, initial parameters and means.

    Example:
        >>> flow = FlowDensity(4, 3, FlowArchitecture(blocks=2))
        >>> flow.log_prob(torch.zeros(5, 4)).shape
        torch.Size([5, 3])
    """

    kind = "flow"

    def __init__(
        self, dimension: int, classes: int, options: FlowArchitecture, seed: int = 0
    ) -> None:
        super().__init__(dimension, classes)
        self.options = options
        self.network = build_real_nvp(dimension, options, seed)
        self.steps = steps_of(self.network)
        self.mixture = LatentMixture(classes, dimension, options.learn_means, seed)

    def latent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [N, D] to (z [N, D], log |det dz/dv| [N]), standardisation included."""
        with self._full_precision():
            z, log_determinant = self._transform(self.standardise(features))
            return z, log_determinant - self.std.log().sum()

    def inverse(self, z: Tensor) -> Tensor:
        """Map latent points [N, D] back to raw features, exactly."""
        with self._full_precision():
            standardised, _ = self.network(z.to(self.mean), rev=True)
            found: Tensor = standardised * self.std + self.mean
            return found

    def standardised_log_prob(self, standardised: Tensor) -> Tensor:
        """Return the log-density [N, K] of standardised features."""
        z, log_determinant = self._transform(standardised)
        return self.mixture.log_prob(z) + log_determinant.unsqueeze(1)

    def _transform(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        on_cpu = standardised.device.type == "cpu"
        transform = coupling.transform if on_cpu else fused.transform
        return transform(self.steps, standardised)

    @torch.no_grad()
    def sample(
        self, classes: Tensor, std: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw features of classes: the inverse of ``N(mu_c, std^2 I)``.

        Arguments:
            classes: [N] int64, 0..K-1, on the device of the flow; one row each.
            std: standard deviation in the latent space; 1 draws from the density itself.
            generator: of the device of the flow.

        Returns:
            [N, D] raw features.
        """
        z = self.mixture.sample(classes, std, generator)
        if z.device.type == "cpu":
            return self.inverse(z)
        return torch.addcmul(self.mean, invert(self.steps, z), self.std)
