"""Which classes a rendered scene holds, and where everything is (``docs/method.md`` section 12)."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from brnf.data.scene_textures import OBJECTS

__all__ = [
    "REFERENCE_SIZE",
    "SCENE_CLASSES",
    "Content",
    "Layout",
    "PlacedContext",
    "PlacedObject",
    "patch_area",
    "place",
    "sample_content",
]

SCENE_CLASSES = tuple(thing.name for thing in OBJECTS)
COUNT_PROBABILITY = (0.5, 0.35, 0.15)
REFERENCE_SIZE = 224
RADIUS = (30.0, 42.0)
STRETCH = 0.1  # width times 1 ± this, height divided by it: proportions vary by .2
CONTEXT_HALF_WIDTH = 1.3
CONTEXT_HALF_DEPTH = 0.95
CONTEXT_DISTANCE = 1.4
HIDDEN = 0.25  # largest share of an object that others may hide before a placement is penalised
CANDIDATES = 96
COARSE = 8  # pixels of a cell of the grid on which placements are compared


@dataclass(frozen=True)
class Content:
    """What a scene holds.

    Attributes:
        classes: class indices 1..6 of its objects, all different.
        accompanied: for each object, whether its class's context lies beside it.
        strangers: class indices of contexts whose class is absent.
    """

    classes: tuple[int, ...]
    accompanied: tuple[bool, ...]
    strangers: tuple[int, ...]


@dataclass(frozen=True)
class PlacedObject:
    """An object in the plane: class index, centre and radius in pixels, tilt in radians, stretch,
    mirrored or not, hue in degrees.
    """

    label: int
    x: float
    y: float
    radius: float
    tilt: float
    stretch: float
    mirrored: bool
    hue: float


@dataclass(frozen=True)
class PlacedContext:
    """A context patch: class index, centre, half width and half depth in pixels, direction of its
    depth in radians.
    """

    label: int
    x: float
    y: float
    half_width: float
    half_depth: float
    direction: float


@dataclass(frozen=True)
class Layout:
    """Where everything is; contexts are drawn first, each list in its order."""

    size: int
    contexts: tuple[PlacedContext, ...]
    objects: tuple[PlacedObject, ...]


def sample_content(rng: Generator, rho: float, nu: float) -> Content:
    """Draw the classes of a scene, which of them have their context, and the 1–3 contexts of absent
    classes (with probability nu).
    """
    order = rng.permutation(len(SCENE_CLASSES)) + 1
    count = int(rng.choice(len(COUNT_PROBABILITY), p=COUNT_PROBABILITY)) + 1
    accompanied = rng.random(count) < rho
    strangers = int(rng.integers(1, 4)) if rng.random() < nu else 0
    return Content(
        tuple(int(label) for label in order[:count]),
        tuple(bool(flag) for flag in accompanied),
        tuple(int(label) for label in order[count : count + strangers]),
    )


def place(content: Content, size: int, rng: Generator) -> Layout:
    """Place objects and contexts one after the other, each where it disturbs the earlier ones least
    among random candidates.

    Objects may overlap (a random allowance up to ``HIDDEN``); contexts keep apart as far as there
    is room.
    """
    unit = size / REFERENCE_SIZE
    cells = (np.arange(0, REFERENCE_SIZE, COARSE, dtype=np.float32) + COARSE / 2) * unit
    x, y = cells[None, None, :], cells[None, :, None]
    taken_objects = taken_contexts = np.zeros((len(cells), len(cells)), bool)
    objects: list[PlacedObject] = []
    contexts: list[PlacedContext] = []
    wanted = [
        (label, True, beside)
        for label, beside in zip(content.classes, content.accompanied, strict=True)
    ]
    for label, is_object, has_context in wanted + [
        (label, False, True) for label in content.strangers
    ]:
        radius = rng.uniform(*RADIUS) * unit
        centre = rng.uniform(radius, size - radius, (CANDIDATES, 2)).astype(np.float32)
        direction = rng.uniform(0, 2 * np.pi, CANDIDATES).astype(np.float32)
        half = (CONTEXT_HALF_WIDTH * radius, CONTEXT_HALF_DEPTH * radius)
        distance = CONTEXT_DISTANCE * radius if is_object else 0.0
        beside = centre + distance * np.stack([np.cos(direction), np.sin(direction)], 1)
        disc = is_object & (
            np.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None]) < 0.85 * radius
        )
        patch = has_context & patch_area(
            x - beside[:, 0, None, None],
            y - beside[:, 1, None, None],
            direction[:, None, None],
            half,
        )
        scale = (unit * COARSE / radius) ** 2
        best = int(
            np.argmin(
                _cost(
                    disc * scale,
                    patch * scale,
                    taken_objects,
                    taken_contexts,
                    rng.uniform(0, HIDDEN),
                )
            )
        )
        taken_objects, taken_contexts = taken_objects | disc[best], taken_contexts | patch[best]
        if has_context:
            contexts.append(
                PlacedContext(label, *_point(beside[best]), *half, float(direction[best]))
            )
        if is_object:
            tilt, stretch, hue = (
                rng.uniform(-0.3, 0.3),
                rng.uniform(1 - STRETCH, 1 + STRETCH),
                rng.uniform(0, 360),
            )
            objects.append(
                PlacedObject(
                    label,
                    *_point(centre[best]),
                    radius,
                    tilt,
                    stretch,
                    bool(rng.random() < 0.5),
                    hue,
                )
            )
    return Layout(size, tuple(contexts), tuple(objects))


def _point(values: NDArray[np.floating]) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _cost(
    disc: NDArray[np.floating],
    patch: NDArray[np.floating],
    objects: NDArray[np.bool_],
    contexts: NDArray[np.bool_],
    allowance: float,
) -> NDArray[np.float64]:
    """Rate candidates, low is good.

    Arguments:
        disc: [n, g, g] area that the object takes in each cell, in squared radii.
        patch: the same of its context.
        objects: [g, g] cells taken by earlier objects.
        contexts: [g, g] cells taken by earlier contexts.
        allowance: share of the object that may overlap earlier ones at no cost.
    """
    area = (1, 2)
    overlap = np.maximum((disc * objects).sum(area) / np.pi - allowance, 0)
    outside = np.maximum(
        4 * CONTEXT_HALF_WIDTH * CONTEXT_HALF_DEPTH - patch.sum(area), 0
    ) * patch.any(area)
    confused = (
        1.5 * (patch * contexts).sum(area)
        + (disc * contexts).sum(area)
        + (patch * objects).sum(area)
    )
    return np.asarray(12 * overlap + outside + confused, np.float64)


def patch_area(
    dx: NDArray[np.floating],
    dy: NDArray[np.floating],
    direction: NDArray[np.float32],
    half: tuple[float, float],
) -> NDArray[np.bool_]:
    """Tell where a patch is: a rounded rectangle with a wavy edge around offset (0, 0)."""
    cosine, sine = np.cos(direction), np.sin(direction)
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    wave = 1 + 0.06 * np.cos(7 * np.arctan2(along, across))
    fourth = np.square(np.square(across / half[0])) + np.square(np.square(along / half[1]))
    return np.asarray(fourth < np.square(np.square(wave)), bool)
