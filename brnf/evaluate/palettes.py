"""Colours of classes in figures: VOC's, or some that colour-blind readers tell apart."""

from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from brnf.data.masks import colour_map
from brnf.store.label_type import MOST_IN_A_BYTE, ignored_in

__all__ = ["PaletteName", "class_palette", "seen_by"]

PaletteName = Literal["voc", "safe"]
BYTE = np.dtype(np.uint8)
OKABE_ITO = (0xE69F00, 0x0072B2, 0xF0E442, 0xCC79A7, 0x009E73, 0x56B4E9, 0xD55E00)
"""The first classes' colours; further ones lie as far from all before as can be."""
SHADES = (0, 51, 102, 153, 204, 255)
LEAST_CHROMA = 25.0
"""In Lab units: the background of an overlay is gray."""
DICHROMATS = {
    "protanope": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranope": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanope": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""What linear RGB becomes to whom one kind of cone is missing (Machado, Oliveira and Fernandes
2009, severity 1).
"""


def class_palette(
    name: PaletteName, kind: np.dtype[np.unsignedinteger] = BYTE
) -> NDArray[np.uint8]:
    """Return the colours of class indices; background black, ignored white.

    Arguments:
        name: of the palette; ``safe`` has 254 colours, which further classes share.
        kind: type of the indices.

    Returns:
        [256, 3] uint8 RGB, or [65536, 3] for indices of two bytes.
    """
    ignored = ignored_in(kind)
    if name == "voc":
        colours = colour_map(ignored + 1)
    else:
        colours = np.zeros((ignored + 1, 3), np.uint8)
        colours[1:] = _safe()[1 + np.arange(ignored) % MOST_IN_A_BYTE]
    colours[ignored] = 255
    return colours


def seen_by(colours: NDArray[np.uint8], eyes: str) -> NDArray[np.float32]:
    """Return colours as somebody sees them, [N, 3] in Lab, whose distances are those of CIE 1976.

    Arguments:
        colours: [N, 3] uint8 RGB.
        eyes: ``normal``, ``protanope``, ``deuteranope`` or ``tritanope``.
    """
    share = colours.astype(np.float32) / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    if eyes != "normal":
        linear = np.clip(linear @ np.array(DICHROMATS[eyes]).T, 0, 1)
    lab = cv2.cvtColor(linear[None].astype(np.float32), cv2.COLOR_LRGB2Lab)
    return np.asarray(lab[0], np.float32)


@cache
def _safe() -> NDArray[np.uint8]:
    """Return colours of which each next one is farthest from all before, to whichever eyes tell
    them apart worst.
    """
    grid = np.stack(np.meshgrid(SHADES, SHADES, SHADES), -1).reshape(-1, 3).astype(np.uint8)
    first = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in OKABE_ITO], np.uint8)
    candidates = np.concatenate([first, grid])
    coloured = np.linalg.norm(seen_by(candidates, "normal")[:, 1:], axis=1) >= LEAST_CHROMA
    candidates = candidates[coloured]
    views = np.stack([seen_by(candidates, eyes) for eyes in ("normal", *DICHROMATS)])
    nearest = np.full(len(candidates), np.inf)
    chosen = np.zeros((1 + MOST_IN_A_BYTE, 3), np.uint8)
    for place in range(1, len(chosen)):
        taken = place - 1 if place <= len(first) else int(nearest.argmax())
        chosen[place] = candidates[taken]
        away = np.linalg.norm(views - views[:, taken, None], axis=2).min(0)
        nearest = np.minimum(nearest, away)
    return chosen
