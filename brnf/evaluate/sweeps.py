"""Tables of the sweeps over BSDNF's rules and thresholds, and over densities."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from brnf.errors import UserError
from brnf.evaluate.records import read_sweep

__all__ = ["PAPER_TAU", "PAPER_XI", "density_table", "read_sweeps", "sensitivity_table"]

PAPER_TAU = {
    (0.3, 0.9): 69.9,
    (0.3, 0.8): 70.8,
    (0.3, 0.7): 72.1,
    (0.3, 0.6): 72.1,
    (0.3, 0.5): 71.9,
    (0.3, 0.4): 71.8,
    (0.4, 0.7): 72.1,
    (0.5, 0.7): 72.0,
    (0.6, 0.7): 71.9,
    (0.7, 0.9): 71.4,
}
"""mIoU of the supplement's table 1; it does not say of which product."""
PAPER_XI = {0.95: 71.8, 0.9: 72.1, 0.85: 71.3, 0.8: 69.9}
"""mIoU of the supplement's table 2, likewise."""
RUN = ["model", "split", "protocol", "density", "tau_low", "tau_high"]


def read_sweeps(paths: Sequence[Path]) -> pd.DataFrame:
    """Read sweeps, one row a file, rule and threshold.

    Returns:
        Columns ``model, split, protocol, density, tau_low, tau_high, seed, rule, xi``, then
        ``miou`` and its gain ``over_raw`` over the seeds before BSDNF, ``density_accuracy`` and
        ``seed_accuracy`` in percent, ``held_out`` in nats per dimension; ``cross_validated`` and
        ``cross_validated_over_raw`` are those of a rule whose threshold is chosen for each half of
        the images on the other half.

    Raises:
        UserError: a file is missing or damaged.
    """
    rows = []
    for path in paths:
        sweep = read_sweep(path)
        shared = {key: sweep[key] for key in (*RUN, "seed", "held_out")}
        accuracies = {key: _percent(sweep[key]) for key in ("density_accuracy", "seed_accuracy")}
        for point in sweep["points"]:
            chosen = sweep["cross_validated"][point["rule"]]
            scores = {
                "miou": 100 * point["miou"],
                "over_raw": 100 * (point["miou"] - sweep["raw_miou"]),
                "cross_validated": 100 * chosen,
                "cross_validated_over_raw": 100 * (chosen - sweep["raw_miou"]),
            }
            rows.append(
                {**shared, "rule": point["rule"], "xi": point["xi"], **scores, **accuracies}
            )
    return pd.DataFrame(rows)


def sensitivity_table(sweeps: pd.DataFrame, rule: str, xi: float) -> pd.DataFrame:
    """Return the mIoU after BSDNF for each tau with one rule and threshold, then for each rule and
    threshold with one tau.

    Arguments:
        sweeps: as :func:`read_sweeps` returns it; a row of ``tau_low, tau_high`` for each fit, the
            first being the run's own.
        rule: of the rows over tau.
        xi: of the rows over tau.

    Returns:
        Columns ``varied`` (tau or xi), ``tau_low, tau_high, rule, xi, seeds, miou, miou_std,
        over_raw, over_raw_std, paper``.
    """
    own = sweeps.iloc[0]
    over_tau = sweeps[(sweeps.rule == rule) & (sweeps.xi == xi)]
    if over_tau.empty:
        raise UserError(
            f"sweeps: no point with rule {rule} at xi {xi}; choose the xi of bsdnf.final among "
            "those of the sweep"
        )
    over_xi = sweeps[
        (sweeps.tau_low == own.tau_low)
        & (sweeps.tau_high == own.tau_high)
        & sweeps.xi.isin(PAPER_XI)
    ]
    parts = []
    for varied, part in (("tau", over_tau), ("xi", over_xi)):
        table = _mean(
            part, ["split", "protocol", "tau_low", "tau_high", "rule", "xi"], ["miou", "over_raw"]
        )
        if varied == "tau":
            paper = [
                PAPER_TAU.get((float(low), float(high)))
                for low, high in zip(table.tau_low, table.tau_high, strict=True)
            ]
        else:
            paper = [PAPER_XI.get(float(value)) for value in table.xi]
        table.insert(0, "varied", varied)
        table["paper"] = pd.Series(paper, dtype=float)
        order = ["tau_low", "tau_high"] if varied == "tau" else ["rule", "xi"]
        parts.append(table.sort_values(order, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def density_table(sweeps: pd.DataFrame) -> pd.DataFrame:
    """Return for each model, density and rule the mIoU with a threshold that is chosen on one half
    of the images and read on the other, and what the density is worth as a classifier.

    Arguments:
        sweeps: as :func:`read_sweeps` returns it.

    Returns:
        Columns ``model, split, protocol, density, rule, xi, seeds, miou, miou_std, over_raw,
        over_raw_std, density_accuracy, seed_accuracy, held_out``; ``xi`` is best on all images,
        ``held_out`` is the loss on held-out rows, nats per dimension, lower is better.
    """
    keys = ["model", "split", "protocol", "density", "rule"]
    crossed = {"cross_validated": "miou", "cross_validated_over_raw": "over_raw"}
    table = _mean(
        sweeps.assign(on_all=sweeps["miou"])
        .drop(columns=list(crossed.values()))
        .rename(columns=crossed),
        [*keys, "xi"],
        ["miou", "over_raw"],
        ["density_accuracy", "seed_accuracy", "held_out", "on_all"],
    )
    best = table.groupby(keys, sort=False)["on_all"].idxmax()
    return table.loc[best].drop(columns="on_all").reset_index(drop=True)


def _mean(
    rows: pd.DataFrame, keys: list[str], spread: list[str], plain: Sequence[str] = ()
) -> pd.DataFrame:
    """Average over seeds, with the sample deviation of the columns ``spread``."""
    groups = rows.groupby(keys, sort=False)
    table = groups.agg(seeds=("seed", "nunique"))
    for column in spread:
        table[column], table[f"{column}_std"] = groups[column].mean(), groups[column].std()
    for column in plain:
        table[column] = groups[column].mean()
    return table.reset_index()


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
