"""Figures of the studies: sensitivity beside the paper's curves, margins of true and false
activations, rare patterns and lost images.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brnf.evaluate.figures import COLOURS, STYLE
from brnf.evaluate.names import model_name

__all__ = ["failures_figure", "margins_figure", "scaling_figure", "sensitivity_figure"]


def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """Draw mIoU over tau and over xi, each rule a line with its deviation over seeds, the paper's
    in gray on the right.

    Both scales span as many points, so that slopes compare although the levels differ.

    Arguments:
        table: as ``brnf.evaluate.sweeps.sensitivity_table`` returns it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained", dpi=110)
        over_tau, over_xi = figure.subplots(1, 2)
        tau = table[table.varied == "tau"]
        names = [f"{low:g}, {high:g}" for low, high in zip(tau.tau_low, tau.tau_high, strict=True)]
        places = list(range(len(tau)))
        rule = str(tau.rule.iloc[0])
        _line(over_tau, places, tau, COLOURS[0], f"{rule}, ξ {tau.xi.iloc[0]:g}")
        over_tau.set_xticks(places, names, rotation=45)
        over_tau.set_xlabel("τ low, τ high")
        xi = table[table.varied == "xi"]
        for colour, (name, rows) in zip(COLOURS, xi.groupby("rule", sort=False), strict=False):
            _line(over_xi, rows.xi.tolist(), rows, colour, str(name))
        one = xi[xi.rule == xi.rule.iloc[0]]
        over_xi.set_xlabel("ξ")
        for axes, x, rows in ((over_tau, places, tau), (over_xi, one.xi.tolist(), one)):
            axes.set_ylabel("mIoU after BSDNF (%)")
            axes.legend()
            _paper(axes, x, rows)
    return figure


def _line(axes: Axes, places: Sequence[float], rows: pd.DataFrame, colour: str, label: str) -> None:
    axes.errorbar(
        places, rows.miou, rows.miou_std.fillna(0), marker="o", color=colour, capsize=3, label=label
    )


def _paper(axes: Axes, places: Sequence[float], rows: pd.DataFrame) -> None:
    """Draw the paper's curve on a scale of its own that is as long as ours."""
    other = axes.twinx()
    other.plot(places, rows.paper, marker="s", color="#999999", linestyle="--")
    low, high = axes.get_ylim()
    middle = (rows.paper.min() + rows.paper.max()) / 2
    other.set_ylim(middle - (high - low) / 2, middle + (high - low) / 2)
    other.set_ylabel("the paper, product not named (%)", color="#777777")
    other.spines["right"].set_visible(True)
    other.grid(visible=False)


def margins_figure(sweeps: Sequence[dict[str, Any]]) -> Figure:
    """Draw the decision margins of predicted foreground pixels, true objects and false activations
    apart; 0 is xi's threshold.

    Arguments:
        sweeps: what the stage sweep_denoising writes, one a model.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5 * len(sweeps), 3.6), layout="constrained", dpi=110)
        for axes, sweep in zip(np.atleast_1d(figure.subplots(1, len(sweeps))), sweeps, strict=True):
            edges = np.array(sweep["margins"]["edges"])
            for key, label, colour in (
                ("true", "true object", COLOURS[2]),
                ("false", "false activation", COLOURS[4]),
            ):
                counts = np.array(sweep["margins"][key], float)
                axes.stairs(
                    counts / max(counts.sum(), 1),
                    edges,
                    fill=True,
                    alpha=0.5,
                    color=colour,
                    label=f"{label} ({counts.sum():.0f} pixels)",
                )
            axes.axvline(0, color="black", linewidth=1)
            shown = sweep["shown"]
            axes.set_title(
                f"{model_name(sweep['model'])}, seed {sweep['seed']}: "
                f"{shown['rule']}, ξ {shown['xi']:g}"
            )
            axes.set_xlabel("decision margin (left of 0 is suppressed)")
            axes.set_ylabel("share of the pixels")
            axes.legend()
    return figure


def failures_figure(sweep: dict[str, Any]) -> Figure:
    """Draw how the density of a class follows its number of pixels, and the images that denoising
    harms most.

    Arguments:
        sweep: what the stage sweep_denoising writes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained", dpi=110)
        classes, images = figure.subplots(1, 2)
        for name, pixels, density in zip(
            sweep["classes"], sweep["class_pixels"], sweep["class_log_density"], strict=True
        ):
            if density is not None:
                classes.plot([pixels], [density], marker="o", color=COLOURS[0], linestyle="none")
                classes.annotate(
                    name,
                    (pixels, density),
                    xytext=(5, 4),
                    textcoords="offset points",
                    parse_math=False,
                )
        classes.set_xscale("log")
        classes.set_xlabel("true pixels of the class on the grid")
        classes.set_ylabel("mean log-density of its own class (nats)")
        worst = sweep["worst"][::-1]
        lost = [100 * (image["after"] - image["before"]) for image in worst]
        images.barh([image["id"] for image in worst], lost, color=COLOURS[4])
        images.set_xlabel("mIoU of the image after - before BSDNF (points)")
        images.set_title("images that lose most")
    return figure


def scaling_figure(table: pd.DataFrame) -> Figure:
    """Draw time and memory of online flow training and of batch EM over the number of rows.

    Arguments:
        table: columns ``density, rows, seconds, peak_mb``, as the stage measure_scaling writes it.
    """
    names = {"flow": "flow, one pass online", "gmm": "Gaussian mixtures, EM to its end"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained", dpi=110)
        panels = figure.subplots(1, 2)
        for axes, column, label in zip(
            panels, ("seconds", "peak_mb"), ("seconds", "growth of memory (MiB)"), strict=True
        ):
            for colour, (kind, rows) in zip(
                COLOURS, table.groupby("density", sort=False), strict=False
            ):
                axes.plot(rows.rows, rows[column], marker="o", color=colour, label=names[str(kind)])
            axes.set_xscale("log")
            axes.set_yscale("log" if column == "seconds" else "linear")
            axes.set_xlabel("rows of the store")
            axes.set_ylabel(label)
            axes.legend()
    return figure
