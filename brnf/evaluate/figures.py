"""Figures of an experiment; each function takes data and returns a matplotlib figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brnf.evaluate.names import curve_name, model_name, product_name, training_name

__all__ = ["PLAIN", "STYLE", "History", "bias_figure", "curves_figure", "scores_figure"]

# Okabe and Ito's palette, told apart with every common kind of colour blindness; its yellow is too
# pale for lines.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "legend.frameon": False,
}
PLAIN = {**STYLE, "text.parse_math": False}
"""Takes no name of a class for a formula, such as one between two dollar signs; the ticks of
logarithmic axes need formulas.
"""
NOT_A_LOSS = {"step", "learning_rate"}
"""Columns of a history that are no curve."""


@dataclass(frozen=True)
class History:
    """The training curve of one network or flow.

    Attributes:
        name: the model; runs of one name share a colour.
        stage: what was trained; only histories of one stage share a panel.
        table: of :func:`brnf.engine.history.read_history`.
    """

    name: str
    stage: str
    table: pd.DataFrame


def scores_figure(table: pd.DataFrame) -> Figure:
    """Draw the mIoU of every product, one panel a split; small dots are seeds, large ones their
    mean.

    Arguments:
        table: columns ``model, product, split, seed, miou`` (percent), rows in their order.
    """
    splits, models = list(table.split.unique()), list(table.model.unique())
    most = max(part["product"].nunique() for _, part in table.groupby("split"))
    with matplotlib.rc_context(PLAIN):
        figure = Figure(
            figsize=(4.6 * len(splits) + 1.0, 0.55 * most + 1.4), dpi=130, layout="constrained"
        )
        for axes, split in zip(
            np.atleast_1d(figure.subplots(1, len(splits), sharex=True)), splits, strict=True
        ):
            part = table[table.split == split]
            products = list(part["product"].unique())
            for place, model in enumerate(models):
                shift = (place - (len(models) - 1) / 2) * 0.22
                rows = part[part.model == model]
                at = rows["product"].map(products.index) + shift
                axes.scatter(rows.miou, at, s=10, color=COLOURS[place % len(COLOURS)], alpha=0.5)
                mean = rows.groupby("product", sort=False).miou.mean()
                heights = [products.index(product) + shift for product in mean.index]
                axes.scatter(
                    mean,
                    heights,
                    s=60,
                    color=COLOURS[place % len(COLOURS)],
                    marker=MARKERS[place % len(MARKERS)],
                    zorder=3,
                )
            axes.set_yticks(range(len(products)), list(map(product_name, products)))
            axes.set_ylim(len(products) - 0.5, -0.5)
            axes.set_xlabel("mIoU (%)")
            axes.set_title(split.replace("_", " "))
            axes.grid(visible=False, axis="y")
        figure.legend(
            handles=_model_handles(models, MARKERS), loc="outside lower center", ncols=len(models)
        )
    return figure


def bias_figure(table: pd.DataFrame, target: float) -> Figure:
    """Draw mIoU against context bias at equal object recall, one panel a split; up and left is
    better.

    Arguments:
        table: columns ``model, product, split, seed, fire70, miou70, recall`` (percent), rows in
            their order.
        target: the object recall in percent; a mean that misses it by more than one point is drawn
            hollow.
    """
    table = table.dropna(subset=["fire70"])
    splits, models, products = (list(table[key].unique()) for key in ("split", "model", "product"))
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(4.3 * len(splits) + 0.6, 4.6), dpi=130, layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(splits), sharex=True, sharey=True))
        for axes, split in zip(panels, splits, strict=True):
            for (model, product), rows in table[table.split == split].groupby(
                ["model", "product"], sort=False
            ):
                colour = COLOURS[models.index(model) % len(COLOURS)]
                marker = MARKERS[products.index(product) % len(MARKERS)]
                if len(rows) > 1:
                    axes.scatter(rows.fire70, rows.miou70, s=10, color=colour, alpha=0.45)
                face = colour if rows.recall.mean() >= target - 1 else "none"
                axes.scatter(
                    rows.fire70.mean(),
                    rows.miou70.mean(),
                    s=75,
                    marker=marker,
                    facecolor=face,
                    edgecolor=colour,
                    zorder=3,
                )
            axes.set_title(split.replace("_", " "))
            axes.set_xlabel(f"context inside the seed (fire@{target:.0f}, %)")
            arrow = {"arrowstyle": "->", "color": "#777777"}
            axes.annotate(
                "better",
                (0.02, 0.98),
                (0.13, 0.87),
                xycoords="axes fraction",
                color="#777777",
                arrowprops=arrow,
            )
        panels[0].set_ylabel("mIoU at that threshold (%)")
        kinds = [
            _gray_handle(product_name(product), MARKERS[place % len(MARKERS)])
            for place, product in enumerate(products)
        ]
        if (table.groupby(["model", "product", "split"]).recall.mean() < target - 1).any():
            kinds.append(_gray_handle(f"recall {target:.0f} % not reached", "o", face="none"))
        figure.legend(
            handles=_model_handles(models, ("o",)),
            loc="outside lower left",
            ncols=min(2, len(models)),
        )
        figure.legend(handles=kinds, loc="outside lower right", ncols=3)
    return figure


def _model_handles(models: Sequence[str], markers: Sequence[str]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=COLOURS[place % len(COLOURS)],
            marker=markers[place % len(markers)],
            linestyle="",
            markersize=8,
            label=model_name(model),
        )
        for place, model in enumerate(models)
    ]


def _gray_handle(label: str, marker: str, face: str | None = None) -> Line2D:
    return Line2D(
        [],
        [],
        color="#555555",
        marker=marker,
        markerfacecolor=face or "#555555",
        linestyle="",
        label=label,
    )


def curves_figure(histories: Sequence[History]) -> Figure:
    """Draw every quantity of every training against its steps: one panel a quantity, one colour a
    model.

    Arguments:
        histories: several of one name and stage are runs of different seeds.
    """
    names = list(dict.fromkeys(history.name for history in histories))
    quantities = [
        (history.stage, column)
        for history in histories
        for column in history.table.columns
        if column not in NOT_A_LOSS and history.table[column].notna().any()
    ]
    stages = list(dict.fromkeys(history.stage for history in histories))
    panels = sorted(dict.fromkeys(quantities), key=lambda panel: stages.index(panel[0]))
    columns = min(4, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    with matplotlib.rc_context({**PLAIN, "font.size": 9}):
        figure = Figure(figsize=(3.2 * columns, 2.4 * rows + 0.5), dpi=130, layout="constrained")
        grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axes, (stage, column) in zip(grid, panels, strict=False):
            drawn = [
                history
                for history in histories
                if history.stage == stage and column in history.table
            ]
            for history in drawn:
                _curve(
                    axes, history.table, column, COLOURS[names.index(history.name) % len(COLOURS)]
                )
            # The first steps may lie far off; they must not flatten all others.
            low, high = np.nanpercentile(
                pd.concat([history.table[column] for history in drawn]), [0.5, 99]
            )
            if high > low:
                axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
            quantity, unit = curve_name(stage, column)
            axes.set_title(f"{training_name(stage)}:\n{quantity}", fontsize=9)
            axes.set_ylabel(unit, fontsize=8)
            axes.set_xlabel("step", fontsize=8)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        handles = [
            Line2D([], [], color=COLOURS[place % len(COLOURS)], label=model_name(name))
            for place, name in enumerate(names)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(names)))
    return figure


def _curve(axes: Axes, table: pd.DataFrame, column: str, colour: str) -> None:
    """Draw one curve, and over it its moving mean where it has many points."""
    rows = table.dropna(subset=[column])
    many = len(rows) > 40
    axes.plot(
        rows["step"],
        rows[column],
        color=colour,
        linewidth=0.6 if many else 1.5,
        alpha=0.3 if many else 1.0,
    )
    if many:
        smooth = rows[column].rolling(max(5, len(rows) // 20), min_periods=1, center=True).mean()
        axes.plot(rows["step"], smooth, color=colour, linewidth=1.5)
    axes.margins(x=0.02)
