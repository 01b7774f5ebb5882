"""The six objects and six context textures of the rendered scenes, as functions of coordinates.

An object is a pair of functions of local coordinates ``u`` (right) and ``v`` (down), in units of
its radius: a silhouette and a tone. The tone blends a dark and a light colour of one hue, so an
    object's class shows in shape and texture while its hue is free.
A context is a tone over pixel coordinates that blends two fixed colours. ``docs/method.md`` section
12.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTEXTS", "OBJECTS", "Context", "Object", "rgb"]

Grid = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Object:
    """One class of objects.

    Attributes:
        name: of the class.
        silhouette: (u, v) -> bool, where the object is; it lies within about 1.2 radii.
        tone: (u, v) -> 0 (dark) .. 1 (light) of its surface.
    """

    name: str
    silhouette: Callable[[Grid, Grid], Mask]
    tone: Callable[[Grid, Grid], Grid]


@dataclass(frozen=True)
class Context:
    """The texture beside the objects of one class.

    Attributes:
        name: of the texture.
        dark: hue in degrees, saturation and value in 0..1 of tone 0.
        light: the same of tone 1.
        tone: (x, y) in pixels of a 224 px image -> 0..1.
    """

    name: str
    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    tone: Callable[[Grid, Grid], Grid]


def rgb(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    """Convert a colour (hue in degrees, the others in 0..1) to [3] float32 RGB in 0..255."""
    pixel = np.array([[[hue % 360.0, saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255.0, np.float32)


def _tone(condition: Mask | Grid) -> Grid:
    return np.asarray(condition, np.float32)


def _cell(x: Grid, period: float) -> Grid:
    """Fold a coordinate into -1/2..1/2 of its period."""
    return np.asarray(x / period - np.round(x / period), np.float32)


def _ellipse(u: Grid, v: Grid, centre: tuple[float, float], axes: tuple[float, float]) -> Mask:
    return ((u - centre[0]) / axes[0]) ** 2 + ((v - centre[1]) / axes[1]) ** 2 < 1


def _box(u: Grid, v: Grid, left: float, right: float, top: float, bottom: float) -> Mask:
    return (u > left) & (u < right) & (v > top) & (v < bottom)


# --- objects
# -------------------------------------------------------------------------------------------------


def _train(u: Grid, v: Grid) -> Mask:
    body = (np.abs(u / 1.2) ** 6 + np.abs((v + 0.1) / 0.68) ** 6) < 1
    wheels = sum(_ellipse(u, v, (x, 0.6), (0.22, 0.22)) for x in (-0.8, -0.27, 0.27, 0.8)) > 0
    return np.asarray(body | wheels, bool)


def _train_tone(u: Grid, v: Grid) -> Grid:
    windows = (np.abs(_cell(u, 0.42)) < 0.34) & (v > -0.55) & (v < -0.12)
    band = np.asarray((v > 0.08) & (v < 0.2))
    wheels = np.asarray(v > 0.48)
    return _tone(np.where(windows, 1.0, np.where(band, 0.85, np.where(wheels, 0.0, 0.38))))


def _boat(u: Grid, v: Grid) -> Mask:
    hull = (v > 0.36) & (v < 0.9) & (np.abs(u) < 1.1 - 0.75 * (v - 0.36))
    sail = (v > -1.05) & (v < 0.37) & (u > -0.02 - 0.6 * (v + 1.05)) & (u < 0.1 + 0.62 * (v + 1.05))
    mast = _box(u, v, -0.06, 0.1, -1.1, 0.4)
    return np.asarray(hull | sail | mast, bool)


def _boat_tone(u: Grid, v: Grid) -> Grid:
    slanted = _cell(u + 0.35 * v, 0.3) > 0
    planks = np.abs(_cell(v, 0.18)) < 0.12
    mast = np.asarray((np.abs(u - 0.02) < 0.06) & (v < 0.4))
    return _tone(
        np.where(
            mast, 0.0, np.where(v > 0.3, np.where(planks, 0.35, 0.05), np.where(slanted, 1.0, 0.45))
        )
    )


def _sheep(u: Grid, v: Grid) -> Mask:
    angle, radius = np.arctan2(v + 0.08, u), np.hypot(u, (v + 0.08) * 1.15)
    wool = radius < 0.84 + 0.09 * np.abs(np.cos(5.5 * angle))
    legs = _box(np.abs(u), v, 0.28, 0.46, 0.5, 1.0)
    head = _ellipse(u, v, (0.92, -0.25), (0.27, 0.36))
    return np.asarray(wool | legs | head, bool)


def _sheep_tone(u: Grid, v: Grid) -> Grid:
    row = np.round(v / 0.27)
    curl = np.hypot(_cell(u + 0.155 * (row % 2), 0.31) * 0.31, _cell(v, 0.27) * 0.27)
    wool = np.where(np.abs(curl - 0.095) < 0.032, 0.25, 0.95)
    return _tone(np.where(_ellipse(u, v, (0.92, -0.25), (0.27, 0.36)) | (v > 0.68), 0.02, wool))


def _fish(u: Grid, v: Grid) -> Mask:
    body = _ellipse(u, v, (0.2, 0.0), (0.95, 0.66))
    tail = (
        (u < -0.5)
        & (u > -1.15)
        & (np.abs(v) < 0.16 - 0.95 * (u + 0.5))
        & (np.abs(v) > -1.1 * (u + 0.86))
    )
    fin = (v < 0) & (v > -0.92) & (u > -0.35) & (u < 0.25 - 0.5 * (v + 0.6))
    return np.asarray(body | tail | (fin & (u > -0.35 - 0.5 * (v + 0.6))), bool)


def _fish_tone(u: Grid, v: Grid) -> Grid:
    row = np.round(v / 0.2)
    across, along = _cell(v, 0.2) * 0.2, (_cell(u + 0.13 * (row % 2), 0.26) + 0.5) * 0.26
    scale = along - 1.6 * across**2 / 0.2
    tone = 0.25 + 0.75 * np.clip(scale / 0.2, 0, 1)
    rays = 0.2 + 0.6 * (_cell(np.arctan2(v, -(u + 0.2)), 0.16) > 0)
    eye = np.hypot(u - 0.78, v + 0.16)
    tone = np.where(u < -0.55, rays, np.where(u > 0.55, 0.6, tone))
    return _tone(np.where(eye < 0.07, 0.0, np.where(eye < 0.15, 1.0, tone)))


def _bee(u: Grid, v: Grid) -> Mask:
    body = _ellipse(u, v, (-0.1, 0.22), (0.88, 0.52))
    head = _ellipse(u, v, (0.86, 0.12), (0.28, 0.28))
    return np.asarray(body | head | _wings(u, v), bool)


def _wings(u: Grid, v: Grid) -> Mask:
    left, right = 0.75 * u + 0.66 * v, -0.75 * u + 0.66 * v
    return _ellipse(left, right, (-0.72, -0.14), (0.6, 0.28)) | _ellipse(
        right, left, (-0.62, -0.08), (0.55, 0.26)
    )


def _bee_tone(u: Grid, v: Grid) -> Grid:
    body = _ellipse(u, v, (-0.1, 0.22), (0.88, 0.52))
    stripes = np.where(_cell(u + 0.15 * v**2, 0.44) > 0, 0.85, 0.0)
    veins = np.where(np.abs(_cell(u - 0.4 * v, 0.2)) < 0.12, 0.7, 1.0)
    return _tone(np.where(body, stripes, np.where(u > 0.6, 0.05, veins)))


def _house(u: Grid, v: Grid) -> Mask:
    walls = _box(u, v, -0.8, 0.8, -0.15, 0.9)
    roof = (v > -1.0) & (v <= -0.12) & (np.abs(u) < 1.15 * (v + 1.0) / 0.88)
    return np.asarray(walls | roof | _box(u, v, 0.42, 0.66, -1.0, -0.2), bool)


def _house_tone(u: Grid, v: Grid) -> Grid:
    row = np.round(v / 0.17)
    mortar = (np.abs(_cell(v, 0.17)) > 0.38) | (np.abs(_cell(u + 0.16 * (row % 2), 0.32)) > 0.43)
    roof = np.asarray(v <= -0.12) & ~_box(u, v, 0.42, 0.66, -1.1, -0.5)
    door = _box(u, v, -0.17, 0.17, 0.3, 0.95)
    window = _box(np.abs(u), v, 0.36, 0.64, 0.1, 0.42)
    return _tone(np.where(door | roof, 0.05, np.where(window, 0.15, np.where(mortar, 1.0, 0.5))))


# --- contexts
# -------------------------------------------------------------------------------------------------


def _rails(x: Grid, y: Grid) -> Grid:
    rail = np.abs(_cell(y, 15.0)) < 0.11
    sleeper = np.abs(_cell(x, 13.0)) < 0.27
    return _tone(np.where(rail, 1.0, np.where(sleeper, 0.0, 0.5)))


def _water(x: Grid, y: Grid) -> Grid:
    wave = _cell(y + 3.2 * np.sin(x * (2 * np.pi / 24.0)), 12.0)
    return _tone(np.clip(1.0 - np.abs(wave) * 3.2, 0, 1))


def _meadow(x: Grid, y: Grid) -> Grid:
    row = np.floor(y / 11.0)
    height = y / 11.0 - row
    blade = np.abs(_cell(x + 4.3 * row + 2.0 * (1 - height), 7.0)) * 2
    return _tone(np.where(blade < height, 0.55 + 0.45 * (1 - height), 0.0))


def _net(x: Grid, y: Grid) -> Grid:
    first, second = _cell(x + y, 20.0), _cell(x - y, 20.0)
    knots = np.hypot(first, second) < 0.27
    return _tone((np.abs(first) < 0.11) | (np.abs(second) < 0.11) | knots)


def _honeycomb(x: Grid, y: Grid) -> Grid:
    side = 9.0
    width, height = math.sqrt(3) * side, 3 * side
    distance = np.full(np.broadcast(x, y).shape, -np.inf, np.float32)
    for shift in (0.0, 0.5):
        across = np.abs(_cell(x + shift * width, width)) * width
        along = np.abs(_cell(y + shift * height, height)) * height
        inside = width / 2 - np.maximum(across, across / 2 + along * (math.sqrt(3) / 2))
        distance = np.maximum(distance, np.asarray(inside, np.float32))
    return _tone(np.clip(distance / 2.2 - 0.45, 0, 1))


def _flowers(x: Grid, y: Grid) -> Grid:
    row = np.round(y / 18.0)
    across, along = _cell(x + 10.0 * (row % 2), 20.0) * 20.0, _cell(y, 18.0) * 18.0
    radius, angle = np.hypot(across, along), np.arctan2(along, across)
    petals = radius < 6.2 + 2.4 * np.cos(5 * angle)
    return _tone(np.where(radius < 2.6, 1.0, np.where(petals, 0.0, 1.0)))


OBJECTS = (
    Object("train", _train, _train_tone),
    Object("boat", _boat, _boat_tone),
    Object("sheep", _sheep, _sheep_tone),
    Object("fish", _fish, _fish_tone),
    Object("bee", _bee, _bee_tone),
    Object("house", _house, _house_tone),
)
CONTEXTS = (
    Context("rails", (22, 0.75, 0.30), (30, 0.15, 0.90), _rails),
    Context("water", (215, 0.90, 0.50), (200, 0.20, 1.00), _water),
    Context("meadow", (130, 0.90, 0.25), (95, 0.85, 0.90), _meadow),
    Context("net", (280, 0.55, 0.95), (275, 0.90, 0.30), _net),
    Context("honeycomb", (28, 1.00, 0.45), (48, 0.90, 1.00), _honeycomb),
    Context("flowers", (350, 0.90, 0.85), (340, 0.18, 1.00), _flowers),
)
