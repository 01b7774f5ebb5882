"""Photographs with their masks laid over them, and figures of several."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from brnf.evaluate.figures import PLAIN
from brnf.evaluate.palettes import PaletteName, class_palette
from brnf.store.label_type import Labels, as_labels, ignored

__all__ = ["Example", "examples_figure", "overlay"]

CELL, WIDEST_CELL, WIDTH = 1.6, 2.4, 10.0
"""Inches of a photograph's width: the least, the most, and of all that stand in a row."""
HEAD_CHARACTERS = 12.5
"""Of a column's title, as many as an inch holds."""
LEGEND_ENTRY, LEGEND_ROW = 1.15, 0.22
"""Inches of a class in the legend."""
LEAST_NAMED = 0.03
"""Share of a picture that a class must cover to be named in it."""
DOTS = 150
"""Per inch; the report enlarges pictures."""


TRUTH = "ground truth"


@dataclass(frozen=True)
class Example:
    """One image of the figure of examples.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        truth: [H, W] class indices; None where there are none.
        panels: title -> [H, W] predicted classes; a title may be missing.
        confidences: title -> how sure a prediction is, in 0..1, where that is known.
    """

    image: NDArray[np.uint8]
    truth: Labels | None
    panels: dict[str, Labels]
    confidences: Mapping[str, float] = field(default_factory=dict)

    def labels(self) -> dict[str, Labels]:
        """Return the classes of each column's pixels by its title."""
        return ({} if self.truth is None else {TRUTH: self.truth}) | self.panels


def overlay(
    image: NDArray[np.uint8],
    labels: Labels,
    truth: Labels | None = None,
    palette: PaletteName = "voc",
) -> NDArray[np.uint8]:
    """Lay class colours over a photograph; ignored pixels white, the true outlines as white lines.

    Arguments:
        image: [H, W, 3] uint8 RGB.
        labels: [H, W] class indices.
        truth: [H, W], or None to draw no outline.
        palette: the colours.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    gray = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    colours = _class_colours(0.35 * gray, labels, palette)
    tinted = np.where((labels > 0)[..., None], colours, 0.7 * gray + 60)
    result = tinted.astype(np.uint8)
    if truth is None:
        return result
    for index in _shown(truth):
        outlines, _ = cv2.findContours(
            (truth == index).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(
            result, outlines, -1, (255, 255, 255), max(1, round(max(truth.shape) / 220))
        )
    return result


def _class_colours(
    light: NDArray[np.floating], labels: Labels, palette: PaletteName
) -> NDArray[np.floating]:
    """Return the colours of class indices, lifted by ``light`` [..., 3] (0..255), for many of
    VOC's are dark.
    """
    colours = 0.9 * class_palette(palette, labels.dtype)[labels]
    lifted: NDArray[np.floating] = np.minimum(colours + light, 255)
    return lifted


def _shown(labels: Labels) -> list[int]:
    """Return the foreground classes of an image, ascending."""
    return [int(index) for index in np.unique(labels[~ignored(labels)]) if index]


def examples_figure(
    examples: Sequence[Example],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: PaletteName = "voc",
) -> Figure:
    """Draw one row an image: the photograph, its ground truth where any has one, then every panel;
    white outlines are the true objects, and what covers enough of a picture is named in it.

    Arguments:
        examples: the rows.
        titles: of the panels, in the order of their columns; a panel an image lacks stays empty.
        classes: names of the foreground classes.
        palette: their colours.
    """
    known = any(example.truth is not None for example in examples)
    heads = ["image", *([TRUTH] if known else []), *titles]
    cell, gap = min(max(CELL, WIDTH / len(heads)), WIDEST_CELL), 0.05
    lines = {
        title: textwrap.wrap(title.replace("_", " "), int(HEAD_CHARACTERS * cell))
        for title in heads
    }
    heights = [example.image.shape[0] / example.image.shape[1] for example in examples]
    width, height = cell * len(heads), cell * sum(heights)
    patches = _legend(examples, classes, palette)
    columns = min(max(1, int(width / LEGEND_ENTRY)), max(1, len(patches)))
    head = 0.26 + 0.16 * max(map(len, lines.values()))
    foot = 0.2 + LEGEND_ROW * max(1, math.ceil(len(patches) / columns))
    whole = height + head + foot
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(width, whole), dpi=DOTS)
        grid = figure.add_gridspec(
            len(examples), len(heads), height_ratios=heights, wspace=gap, hspace=gap
        )
        grid.update(left=0.004, right=0.996, top=1 - head / whole, bottom=foot / whole)
        for row, example in enumerate(examples):
            labels = example.labels()
            for column, title in enumerate(heads):
                axes = figure.add_subplot(grid[row, column])
                axes.set_axis_off()
                if row == 0:
                    axes.set_title("\n".join(lines[title]), fontsize=9, pad=4)
                if title in labels:
                    outlines = None if title == TRUTH else example.truth
                    shown = overlay(example.image, labels[title], outlines, palette)
                elif title == heads[0]:
                    shown = example.image
                else:
                    continue
                axes.imshow(shown, aspect="auto", interpolation="antialiased")
                if title in labels:
                    _name_classes(axes, labels[title], classes)
                if title in example.confidences:
                    _write_below(axes, f"confidence {example.confidences[title]:.2f}")
        figure.legend(
            handles=patches,
            loc="lower center",
            ncols=columns,
            fontsize=10,
            handlelength=1,
            borderaxespad=0.2,
        )
    return figure


def _write_below(axes: Axes, text: str) -> None:
    """Write into the lower left corner of a photograph."""
    box = {"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "pad": 2}
    axes.text(
        0.02, 0.02, text, transform=axes.transAxes, fontsize=8, color="white", bbox=box, va="bottom"
    )


def _name_classes(axes: Axes, labels: Labels, classes: Sequence[str]) -> None:
    """Write the name of each large class where its edge is farthest away."""
    box = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1}
    for index in _shown(labels):
        inside = labels == index
        if inside.mean() < LEAST_NAMED:
            continue
        framed = np.pad(inside, 1).astype(np.uint8)
        depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        side = x / labels.shape[1]
        align = "left" if side < 0.25 else "right" if side > 0.75 else "center"
        text = axes.text(
            float(x), float(y), classes[index - 1], fontsize=6.5, color="white", bbox=box
        )
        text.set(ha=align, va="center", clip_on=True)


def _legend(
    examples: Sequence[Example], classes: Sequence[str], palette: PaletteName
) -> list[Patch]:
    """Return the colours of all classes that are drawn, with their names."""
    drawn = [labels for example in examples for labels in example.labels().values()]
    shown = sorted({index for labels in drawn for index in _shown(labels)})
    colours = _class_colours(np.full(3, 45.0), as_labels(tuple(shown), len(classes)), palette) / 255
    return [
        Patch(color=tuple(colour), label=classes[index - 1])
        for colour, index in zip(colours.tolist(), shown, strict=True)
    ]
