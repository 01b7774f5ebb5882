"""Tables of all evaluations of an experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from brnf.errors import UserError
from brnf.evaluate.records import read_evaluation
from brnf.store.files import atomic_file

__all__ = [
    "KEY",
    "Evaluation",
    "compared",
    "markdown",
    "mean_over_seeds",
    "read_evaluations",
    "results_table",
    "seeds_table",
    "write_table",
]

Evaluation = dict[str, Any]
"""What the stage ``evaluate`` writes about one product of one model and seed."""

KEY = ["model", "product", "split", "protocol"]
SPREAD = ["own", "best", "fire70", "miou70"]
SEED_COLUMNS = {
    "own": 100,
    "best": 100,
    "threshold": 1,
    "fire70": 100,
    "miou70": 100,
    "threshold70": 1,
    "recall": 100,
}
"""Columns of the seeds table and the factor that brings the stored value to what is printed
(percent, or the threshold itself).
"""


def read_evaluations(
    paths: Sequence[Path], models: Sequence[str] = (), products: Sequence[str] = ()
) -> list[Evaluation]:
    """Read evaluations and bring them into the order of the tables.

    Arguments:
        paths: JSON files of the stage ``evaluate``.
        models: models in their order; others follow as they come.
        products: products in their order, likewise. Splits keep the order in which they come.

    Raises:
        UserError: a file is missing, damaged, or of another set of classes than the first.
    """
    if not paths:
        raise UserError(
            "tabulate: no evaluation given; give at least one JSON file of the stage evaluate"
        )
    found: list[Evaluation] = []
    for path in paths:
        evaluation = read_evaluation(path)
        if found and evaluation["classes"] != found[0]["classes"]:
            raise UserError(
                f"{path}: its classes differ from those of {paths[0]}; evaluate both with the same "
                "image index"
            )
        found.append(evaluation)
    ranks = [
        _ranks(models, found, "model"),
        _ranks(products, found, "product"),
        _ranks((), found, "split"),
    ]
    keys = ("model", "product", "split")
    return sorted(
        found,
        key=lambda one: (
            *(rank[one[key]] for rank, key in zip(ranks, keys, strict=True)),
            one["seed"],
        ),
    )


def _ranks(first: Sequence[str], evaluations: list[Evaluation], key: str) -> dict[str, int]:
    names = dict.fromkeys([*first, *(one[key] for one in evaluations)])
    return {name: rank for rank, name in enumerate(names)}


def results_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Return one row an evaluation: mIoU, bias and IoU per class in percent, nan where not defined.

    Returns:
        Columns ``model, product, split, protocol, seed, miou, bias``, then one a class, background
        first.
    """
    rows = []
    for one in evaluations:
        fire = one["at_recall"]["fire"] if one["at_recall"] else None
        classes = {
            name: _percent(value) for name, value in zip(one["classes"], one["iou"], strict=True)
        }
        values = {"miou": _percent(one["miou"]), "bias": _percent(fire), **classes}
        rows.append({**{key: one[key] for key in KEY}, "seed": one["seed"], **values})
    return pd.DataFrame(rows)


def seeds_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Return one row an evaluation that has scores: the two ways to read a seed, and its bias.

    Returns:
        Columns ``model, product, split, protocol, seed``, then ``own`` (mIoU of the arg max with
        the map's own background), ``best`` and ``threshold`` (of the sweep), ``fire70``,
        ``miou70``, ``threshold70`` and ``recall`` (where object recall is 70 %, or whatever the
        evaluation asked for). IoU, fire and recall in percent.
    """
    rows = []
    for one in evaluations:
        if not one["sweep"]:
            continue
        reading = one["at_recall"] or dict.fromkeys(("fire", "miou", "threshold", "recall"))
        values = {
            "own": one["miou"],
            "best": one["sweep"]["best_miou"],
            "threshold": one["sweep"]["best_threshold"],
            "fire70": reading["fire"],
            "miou70": reading["miou"],
            "threshold70": reading["threshold"],
            "recall": reading["recall"],
        }
        scaled = {
            name: None if value is None else SEED_COLUMNS[name] * value
            for name, value in values.items()
        }
        rows.append({**{key: one[key] for key in KEY}, "seed": one["seed"], **scaled})
    table = pd.DataFrame(rows, columns=[*KEY, "seed", *SEED_COLUMNS])
    return table.astype(
        {**dict.fromkeys(SEED_COLUMNS, float), "seed": int}
    )  # an empty table has no types of its own


def mean_over_seeds(table: pd.DataFrame, spread: Sequence[str] = ()) -> pd.DataFrame:
    """Average the rows that differ in their seed only.

    Arguments:
        table: with a column ``seed`` and the columns :data:`KEY`.
        spread: columns whose deviation over seeds (of the sample) is added as ``<column>_std`` when
            a row has several seeds.

    Returns:
        The table in the same order, without ``seed``.
    """
    groups = table.groupby(KEY, sort=False)
    mean = groups.mean(numeric_only=True).drop(columns="seed")
    if len(table) and int(groups.size().max()) > 1:
        for column in spread:
            mean[f"{column}_std"] = groups[column].std()
    return mean.reset_index()


def compared(table: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """Compare the mIoU of every model with that of others at the same seed.

    Arguments:
        table: as :func:`results_table` returns it.
        references: models to compare with.

    Returns:
        One row a model, product and split, sorted by split and product: ``seeds`` (how many),
        ``miou`` and ``miou_std``; then for each reference ``over_<reference>`` and
        ``over_<reference>_std``, mean and deviation (of the sample) of the paired differences, nan
        where the reference lacks the product.

    Raises:
        UserError: a reference has no evaluation at all.
    """
    pairs = ["product", "split", "protocol", "seed"]
    scores = table[[*KEY, "seed", "miou"]].copy()
    columns = ["miou"]
    for reference in references:
        other = table.loc[table.model == reference, [*pairs, "miou"]]
        if other.empty:
            raise UserError(
                f"compare: no evaluation of the model '{reference}'; run it, or name another "
                "reference"
            )
        column = f"over_{reference}"
        scores[column] = (
            scores.miou
            - scores[pairs]
            .merge(other, how="left", on=pairs, validate="many_to_one")
            .miou.to_numpy()
        )
        columns.append(column)
    groups = scores.groupby(KEY, sort=False)
    result = groups.agg(seeds=("seed", "size"))
    for column in columns:
        result[column], result[f"{column}_std"] = groups[column].mean(), groups[column].std()
    return result.reset_index().sort_values(["split", "product"], kind="stable", ignore_index=True)


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown: numbers with one decimal, what needs three digits with three,
    nothing where a value is not defined.
    """
    head = [*table.columns]
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in head]
    rule = ["---:" if right else "---" for right in numeric]
    body = [
        [format_cell(name, value) for name, value in zip(head, row, strict=True)]
        for row in table.itertuples(index=False)
    ]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in [head, rule, *body])


def write_table(
    table: pd.DataFrame, csv: Path, reading: Path | None = None, digits: int = 4
) -> None:
    """Write a table as CSV and, for reading, as Markdown; each file appears whole or not at all."""
    with atomic_file(csv) as temporary:
        table.round(digits).to_csv(temporary, index=False, lineterminator="\n")
    if reading is not None:
        with atomic_file(reading) as temporary:
            temporary.write_text(markdown(table))


def format_cell(column: str, value: Any) -> str:
    """Return a cell as it is printed."""
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if pd.isna(value):
        return ""
    if isinstance(value, int):
        return str(value)
    exact = column.startswith(("threshold", "tau", "xi", "held_out", "hours", "disk"))
    return f"{value:.3f}".rstrip("0").rstrip(".") if exact else f"{value:.1f}"


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
