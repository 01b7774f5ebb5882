"""The permutohedral lattice: Gaussian filters over pixels, in place and colour, in linear time.

Features are laid into a space tiled with simplices. A pixel shares its value among the corners of
its simplex (splat), values spread along the d + 1 directions of the lattice (blur), and the pixel
collects what its corners then have (slice). Points that are no corner of any pixel do not exist:
nothing spreads through them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from brnf.errors import UserError
from brnf.segment.compiled import kernels

__all__ = ["Geometry", "Lattice", "appearance_lattice", "geometry", "smoothness_lattice"]

Floats: TypeAlias = NDArray[np.float32]

KEPT_LATTICES = 2
"""Sizes whose smoothness lattice is kept, 8 MB each at 375 x 500: most photographs of a data set
have one of two."""
LARGEST_KEY = 2**62
LARGEST_COORDINATE = 2**20
"""Far beyond it float32's rounding exceeds a cell, and the search for a simplex leaves its arrays.
"""
TINY = np.float32(1e-20)
"""Keeps the normalisation finite."""


@dataclass(frozen=True)
class Geometry:
    """How features become points, and points become keys; d axes."""

    scales: Floats
    """[d] factors of the features."""
    strides: NDArray[np.int64]
    """[d + 1] what a step along a coordinate adds to the key of a point; 0 for the last, which
    follows from the others."""
    origin: int
    """Key of the point 0."""

    @property
    def steps(self) -> NDArray[np.int64]:
        """Return [d + 1] what a step to the next point in each direction adds to a key."""
        steps: NDArray[np.int64] = self.strides.sum() - len(self.strides) * self.strides
        return steps

    @property
    def end(self) -> int:
        """Return a number above all keys, those of neighbours included; the least is above 0."""
        return 2 * self.origin


def geometry(largest: Sequence[float]) -> Geometry:
    """Lay out a lattice whose blur has the standard deviation 1 along every axis.

    Arguments:
        largest: [d] feature on each axis; the least is 0.

    Raises:
        UserError: the keys of so many points do not fit into 64 bits.

    References:
        Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice,
        Eurographics 2010, section 3.
    """
    axes = len(largest)
    # In the precision of the authors' code: whether a point exists can hang on the last bit.
    spread = np.float32(np.sqrt(2 / 3) * (axes + 1))
    each = [1 / np.sqrt((axis + 1) * (axis + 2)) * float(spread) for axis in range(axes)]
    reach = np.abs(np.asarray(largest, np.float64) * each)
    # Coordinate j is at most the sum of the features from j on, and at least -j features j - 1.
    bounds = [max(reach[axis:].sum(), axis * reach[axis - 1]) for axis in range(axes)]
    exact = all(bound <= LARGEST_COORDINATE for bound in bounds)  # infinity and nan are not
    sizes = [2 * (int(bound) + 4 * (axes + 1)) for bound in bounds] if exact else []
    strides = [1]
    for size in sizes:
        strides.append(strides[-1] * size)
    if not exact or strides[-1] > LARGEST_KEY:
        raise UserError(
            f"the dense CRF cannot tell so many points apart: features up to "
            f"{', '.join(f'{value:.0f}' for value in largest)}; raise the widths gaussian_sigma, "
            "bilateral_sigma_xy or bilateral_sigma_rgb"
        )
    # Coordinates range over both signs: the origin is half of each size.
    origin = sum(stride * (size // 2) for stride, size in zip(strides, sizes, strict=False))
    return Geometry(np.array(each, np.float32), np.array([*strides[:-1], 0]), origin)


@dataclass(frozen=True)
class Lattice:
    """A Gaussian filter over the N pixels of an image, normalised symmetrically.

    With the pixels' shares S and the blur B it is K = D^-1/2 S B S' D^-1/2, where D has the row
    sums of S B S' (the default of pydensecrf, whose constant factor of B cancels out here).
    """

    points: int
    """Points of the lattice, M."""
    offsets: NDArray[np.int32]
    """[N, d + 1] points around every pixel."""
    weights: Floats
    """[N, d + 1] shares, D^-1/2 S."""
    chains: NDArray[np.int32]
    """Neighbours in a row, direction by direction; the last of each row as its complement."""
    constant: Floats
    """[N] K applied to ones."""


@lru_cache(maxsize=KEPT_LATTICES)
def smoothness_lattice(height: int, width: int, sigma: float) -> Lattice:
    """Return the filter of the smoothness term, which depends on the image's size alone.

    Arguments:
        height: of the image.
        width: of the image.
        sigma: of the Gaussian, pixels.

    Raises:
        UserError: ``sigma`` is too small for the size.
    """
    return _lattice(height, width, sigma)


def appearance_lattice(image: NDArray[np.uint8], sigma_xy: float, sigma_rgb: float) -> Lattice:
    """Return the filter of the appearance term.

    Arguments:
        image: [H, W, 3] uint8 RGB.
        sigma_xy: of the Gaussian in the plane, pixels.
        sigma_rgb: of the Gaussian in colour, grey values.

    Raises:
        UserError: the widths are too small for the size.
    """
    return _lattice(
        image.shape[0],
        image.shape[1],
        sigma_xy,
        np.ascontiguousarray(image),
        sigma_rgb,
    )


def _lattice(
    height: int,
    width: int,
    sigma: float,
    image: NDArray[np.uint8] | None = None,
    sigma_rgb: float = 1.0,
) -> Lattice:
    """Build the lattice over column, row and, with an image, its three colours."""
    column = np.arange(width, dtype=np.float32) / np.float32(sigma)
    row = np.arange(height, dtype=np.float32) / np.float32(sigma)
    grey = np.arange(256, dtype=np.float32) / np.float32(sigma_rgb)
    plane = geometry([column[-1], row[-1], *([] if image is None else [grey[-1]] * 3)])
    places = np.concatenate([column * plane.scales[0], row * plane.scales[1]])
    colours = grey * plane.scales[2:, None]
    pixels = np.zeros(0, np.uint8) if image is None else image
    found = _Points(plane, height * width)
    offsets, weights = found.add_pixels(width, pixels, places, colours)
    chains = found.chains()
    norm = _filtered_ones(found.count, offsets, weights, chains)
    weights *= (1 / np.sqrt(norm + TINY))[:, None]
    constant = _filtered_ones(found.count, offsets, weights, chains)
    return Lattice(found.count, offsets, weights, chains, constant)


class _Points:
    """Points of a lattice under construction: their keys, and a hash table over these."""

    def __init__(self, plane: Geometry, pixels: int) -> None:
        self.plane = plane
        self.pixels = pixels
        self.count = 0
        # About as many points as pixels are usual, twice as many places keep searches short.
        self._bits = max(8, int(pixels).bit_length() + 1)
        self._keys = np.empty(1 << (self._bits - 1), np.int64)
        self._table = np.zeros(1 << self._bits, np.int32)

    def add_pixels(
        self,
        width: int,
        image: NDArray[np.uint8],
        places: Floats,
        colours: Floats,
    ) -> tuple[NDArray[np.int32], Floats]:
        """Find the points around every pixel, and its shares in them: [N, d + 1] each."""
        axes, plane = len(self.plane.scales), self.plane
        corners = axes + 1
        offsets = np.empty((self.pixels, corners), np.int32)
        weights = np.empty((self.pixels, corners), np.float32)
        above = np.empty((width, corners), np.int64)
        known = np.zeros(1, np.int64)
        scratch = [np.empty(size, np.float32) for size in (axes, corners, corners)]
        scratch += [np.empty(size, np.int32) for size in (2 * corners, corners)]
        done = 0
        while done < self.pixels:
            if done or known[0]:
                self._grow()
            done = kernels()[f"simplices_{axes}"](
                done,
                self.pixels,
                width,
                image,
                places,
                colours,
                plane.strides,
                plane.origin,
                len(self._keys),
                self._bits,
                self._keys,
                self._table,
                known,
                above,
                offsets,
                weights,
                *scratch,
            )
            self.count = int(known[0])
        return offsets, weights

    def _grow(self) -> None:
        """Double the room."""
        self._bits += 1
        self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
        self._table = np.zeros(1 << self._bits, np.int32)
        kernels()["enter"](self.count, self._bits, self._keys, self._table)

    def chains(self) -> NDArray[np.int32]:
        """Return the points with neighbours, row by row in every direction."""
        corners = len(self.plane.strides)
        found = np.empty(corners * self.count, np.int32)
        written = kernels()["chains"](
            corners,
            self.count,
            self.plane.steps,
            self._bits,
            self._keys,
            self._table,
            np.empty(self.count, np.int32),
            np.empty(self.count, np.uint8),
            found,
        )
        found.resize(written, refcheck=False)  # in place: a copy would be the peak of memory
        return found


def _filtered_ones(
    points: int,
    offsets: NDArray[np.int32],
    weights: Floats,
    chains: NDArray[np.int32],
) -> Floats:
    """Splat, blur and slice an image [N] of ones."""
    pixels, corners = weights.shape
    values = np.zeros(points, np.float32)
    kernels()["splat_one"](pixels, corners, offsets, weights, values)
    kernels()["blur_one"](len(chains), chains, values)
    found = np.empty(pixels, np.float32)
    kernels()["slice_one"](pixels, corners, offsets, weights, values, found)
    return found
