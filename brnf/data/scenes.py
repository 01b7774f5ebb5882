"""Rendered scenes with context bias on purpose (``docs/method.md`` section 12).

A scene is drawn in three steps that can be called apart: which classes and contexts it holds
(``sample_content``), where they are (``place``), and the pixels (:func:`render`). Every scene has
its own random generator, made from the seed, the split and its number, so that neither order nor
count of the scenes changes one of them.
"""

import math
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from brnf.data.scene_layout import (
    REFERENCE_SIZE,
    Layout,
    PlacedContext,
    PlacedObject,
    patch_area,
    place,
    sample_content,
)
from brnf.data.scene_textures import CONTEXTS, OBJECTS, rgb

__all__ = ["Scene", "draw_scene", "render"]

SUPERSAMPLE = 2


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: [size, size, 3] uint8 RGB.
        objects: [size, size] uint8, index 1..6 of the visible object, 0 elsewhere.
        contexts: [size, size] uint8, index 1..6 of the visible context texture, 0 elsewhere and
            wherever an object is.
        labels: class indices of the objects, ascending.
    """

    image: NDArray[np.uint8]
    objects: NDArray[np.uint8]
    contexts: NDArray[np.uint8]
    labels: tuple[int, ...]


def draw_scene(seed: int, split: str, number: int, *, size: int, rho: float, nu: float) -> Scene:
    """Draw one scene; equal arguments give equal pixels.

    Arguments:
        seed: of the whole data set.
        split: its name, such as ``train``.
        number: of the scene in its split.
        size: width and height in pixels.
        rho: probability that an object has its context beside it.
        nu: probability that contexts of absent classes are added.
    """
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
    return render(place(sample_content(rng, rho, nu), size, rng), rng)


def render(layout: Layout, rng: Generator) -> Scene:
    """Draw the pixels of a layout, at twice the size, then averaged down."""
    side = layout.size * SUPERSAMPLE
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / SUPERSAMPLE).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    canvas = _background(layout.size, rng).repeat(SUPERSAMPLE, 0).repeat(SUPERSAMPLE, 1)
    contexts, objects = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    for patch in layout.contexts:
        _draw_context(patch, x, y, layout.size / REFERENCE_SIZE, canvas, contexts, rng)
    for thing in layout.objects:
        _draw_object(thing, x, y, canvas, objects, rng)
    image = cv2.resize(canvas, (layout.size, layout.size), interpolation=cv2.INTER_AREA)
    image = image * _light(layout.size, rng) + rng.normal(0, 4, image.shape)
    objects, contexts = (
        objects[::SUPERSAMPLE, ::SUPERSAMPLE],
        contexts[::SUPERSAMPLE, ::SUPERSAMPLE],
    )
    visible = np.where(objects > 0, 0, contexts).astype(np.uint8)
    labels = tuple(sorted(thing.label for thing in layout.objects))
    return Scene(
        np.clip(image, 0, 255).round().astype(np.uint8),
        np.ascontiguousarray(objects),
        visible,
        labels,
    )


def _box(x: float, y: float, reach: float, side: int) -> tuple[slice, slice]:
    """Return the rows and columns of the enlarged canvas within ``reach`` pixels of a centre."""
    bounds = [
        (
            max(int((value - reach) * SUPERSAMPLE), 0),
            min(int((value + reach) * SUPERSAMPLE) + 1, side),
        )
        for value in (y, x)
    ]
    return slice(*bounds[0]), slice(*bounds[1])


def _draw_context(
    patch: PlacedContext,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    unit: float,
    canvas: NDArray[np.float32],
    mask: NDArray[np.uint8],
    rng: Generator,
) -> None:
    """Draw a context patch; its texture stands upright whatever the patch's direction."""
    box = _box(patch.x, patch.y, 1.5 * patch.half_width, len(x))
    dx, dy = x[box] - patch.x, y[box] - patch.y
    inside = patch_area(
        dx, dy, np.array([patch.direction], np.float32), (patch.half_width, patch.half_depth)
    )
    texture = CONTEXTS[patch.label - 1]
    period, tilt = unit * rng.uniform(0.9, 1.1), rng.uniform(-0.1, 0.1)
    shift = rng.uniform(0, 40, 2)
    along = (dx * math.cos(tilt) + dy * math.sin(tilt)) / period + shift[0]
    across = (dy * math.cos(tilt) - dx * math.sin(tilt)) / period + shift[1]
    tone = texture.tone(along.astype(np.float32), across.astype(np.float32))[inside][:, None]
    turn, value = rng.uniform(-6, 6), rng.uniform(0.9, 1.0)
    dark, light = (
        rgb(hue + turn, saturation, brightness * value)
        for hue, saturation, brightness in (texture.dark, texture.light)
    )
    canvas[box][inside] = dark + tone * (light - dark)
    mask[box][inside] = patch.label


def _draw_object(
    thing: PlacedObject,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    canvas: NDArray[np.float32],
    mask: NDArray[np.uint8],
    rng: Generator,
) -> None:
    """Draw an object in a dark and a light colour of its hue, shaded from above."""
    box = _box(thing.x, thing.y, 1.6 * thing.radius, len(x))
    dx, dy = (x[box] - thing.x) / thing.radius, (y[box] - thing.y) / thing.radius
    u = (
        (dx * math.cos(thing.tilt) + dy * math.sin(thing.tilt))
        / thing.stretch
        * (-1 if thing.mirrored else 1)
    )
    v = (dy * math.cos(thing.tilt) - dx * math.sin(thing.tilt)) * thing.stretch
    kind = OBJECTS[thing.label - 1]
    inside = kind.silhouette(u, v)
    tone = kind.tone(u, v)[inside][:, None]
    dark = rgb(thing.hue, rng.uniform(0.7, 0.95), rng.uniform(0.25, 0.4))
    light = rgb(thing.hue, rng.uniform(0.25, 0.6), rng.uniform(0.9, 1.0))
    canvas[box][inside] = (dark + tone * (light - dark)) * (1.0 - 0.12 * v[inside][:, None])
    mask[box][inside] = thing.label


def _smooth(size: int, cells: int, rng: Generator) -> NDArray[np.float32]:
    """Return smooth noise [size, size] of about unit deviation with ``cells`` bumps a side."""
    coarse = rng.normal(0, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _light(size: int, rng: Generator) -> NDArray[np.float32]:
    """Return uneven light [size, size, 1] around 1."""
    light: NDArray[np.float32] = np.clip(1 + 0.05 * _smooth(size, 2, rng), 0.8, 1.2)
    return light[:, :, None]


def _background(size: int, rng: Generator) -> NDArray[np.float32]:
    """Draw a ground of no class: a gradient of two pale or dim colours, smooth noise and weak
    clutter; [size, size, 3] float32.
    """
    first, second = (
        rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.3), rng.uniform(0.35, 0.8)) for _ in range(2)
    )
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    blend = np.clip(
        0.5
        + axis[None, :] * math.cos(angle)
        + axis[:, None] * math.sin(angle)
        + 0.2 * _smooth(size, 3, rng),
        0,
        1,
    )[:, :, None]
    ground = first + blend * (second - first)
    for _ in range(int(rng.integers(4, 10))):
        colour = (ground.mean((0, 1)) + rng.normal(0, 18, 3)).tolist()
        start, end = (tuple(int(value) for value in rng.integers(0, size, 2)) for _ in range(2))
        overlay = ground.copy()
        if rng.random() < 0.5:
            cv2.line(overlay, start, end, colour, int(rng.integers(1, 4)))
        else:
            axes = tuple(int(value) for value in rng.uniform(0.03, 0.14, 2) * size)
            cv2.ellipse(overlay, start, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        ground = 0.5 * ground + 0.5 * overlay
    texture = 7 * _smooth(size, 14, rng) + 5 * _smooth(size, 48, rng)
    return np.ascontiguousarray(ground + texture[:, :, None], np.float32)
