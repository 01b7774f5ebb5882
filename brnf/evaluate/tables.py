"""Tables of all evaluations of an experiment."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from brnf.errors import UserError
from brnf.evaluate.names import SHARE
from brnf.evaluate.records import read_evaluation
from brnf.store.files import atomic_file
from brnf.store.label_type import MOST_IN_A_BYTE

__all__ = [
    "KEY",
    "Evaluation",
    "class_columns",
    "compared",
    "for_reading",
    "markdown",
    "mean_over_seeds",
    "read_evaluations",
    "remarks",
    "results_table",
    "seeds_table",
    "write_table",
]

EXACT = ["threshold", "threshold70", "tau_low", "tau_high", "xi", "held_out", "hours", "disk_gb"]
"""Columns that need three digits."""
BACKGROUND, PREFIX = "background", "class "
"""Column of the background, and what keeps a class apart from a column of its name."""
EXTREMES = 10
"""Classes with the best scores, and as many with the worst, that a table of very many shows."""
MOST_NAMED = 4
"""Rows that one remark names."""

Evaluation = dict[str, Any]
"""What the stage ``evaluate`` writes about one product of one model and seed."""

KEY = ["model", "product", "split", "protocol"]
SPREAD = ["own", "best", "fire70", "miou70"]
OPTIONAL = ["labels", "seeds", "no_class", "coverage", "bias", "recall"]
OPTIONAL += ["fire70", "fire70_std", "miou70", "miou70_std", "threshold70"]
"""Columns of results and seeds that a table for reading leaves out where they are empty."""
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
        UserError: a file is missing, damaged, or of another set of classes than the first, or two
            say different things of one seed.
    """
    if not paths:
        raise UserError(
            "tabulate: no evaluation given; give at least one JSON file of the stage evaluate"
        )
    found: list[Evaluation] = []
    known: dict[tuple[Any, ...], tuple[Path, Evaluation]] = {}
    for path in paths:
        evaluation = read_evaluation(path)
        if found and evaluation["classes"] != found[0]["classes"]:
            raise UserError(
                f"{path}: its classes differ from those of {paths[0]}; evaluate both with the same "
                "image index"
            )
        measured = tuple(evaluation[key] for key in (*KEY, "seed"))
        other, same = known.setdefault(measured, (path, evaluation))
        if same is evaluation:
            found.append(evaluation)
        elif same != evaluation:
            raise UserError(
                f"{path}: is of the same model, product, split and seed as {other}, with other "
                "numbers; give one of them"
            )
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
        Columns ``model, product, split, protocol, labels, seed``, then ``miou``; ``no_class``, the
        share of pixels without a predicted class, which are errors in every IoU; ``coverage`` of
        pseudo-labels that leave pixels out; ``bias`` and the object ``recall`` it was measured at;
        then those of :func:`class_columns`. ``labels``, ``no_class``, ``coverage`` and ``recall``
        are left out where no evaluation has them.
    """
    columns = class_columns(evaluations[0]["classes"][1:]) if evaluations else []
    rows = []
    for one in evaluations:
        reading = one["at_recall"] or {"fire": None, "recall": None}
        values = {
            "miou": _percent(one["miou"]),
            "no_class": _percent(one.get("no_class", 0.0)),
            "coverage": _percent(one.get("coverage", 1.0)),
            "bias": _percent(reading["fire"]),
            "recall": _percent(reading["recall"] if reading["fire"] is not None else None),
        }
        classes = dict(zip(columns, map(_percent, one["iou"]), strict=True))
        named = {**{key: one[key] for key in KEY}, "labels": one.get("labels"), "seed": one["seed"]}
        rows.append({**named, **values, **classes})
    table = pd.DataFrame(rows)
    empty = [name for name in ("labels", "recall") if table[name].isna().all()]
    empty += [
        name for name, usual in (("no_class", 0), ("coverage", 100)) if (table[name] == usual).all()
    ]
    return table.drop(columns=empty)


def class_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of background and classes, apart from all others that a table may have.

    A class that is called like another column, such as ``seed``, gets ``class seed``.
    """
    taken = {*KEY, *OPTIONAL, *SEED_COLUMNS, *EXACT, "seed", "miou", "miou_std", SHARE, BACKGROUND}
    columns, names = [BACKGROUND], set(classes)
    for name in classes:
        column = name
        while column in taken or (column != name and column in names):
            column = PREFIX + column
        columns.append(column)
        taken.add(column)
    return columns


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
        spread: columns whose deviation over seeds (of the sample, divided by their number less one)
            is added as ``<column>_std``.

    Returns:
        The table in the same order, without ``seed``; nan where a seed has no value. ``seeds``, the
        number of a row's seeds, and deviations are there when a row has several.
    """
    several = bool(len(table)) and int(table.groupby(KEY).size().max()) > 1
    keys = [*KEY, *(["labels"] if "labels" in table else [])]
    groups = table.groupby(keys, sort=False, dropna=False)
    mean = groups.agg(_mean).drop(columns="seed")
    if several:
        mean.insert(0, "seeds", groups.size())
        for column in spread:
            mean[f"{column}_std"] = groups[column].agg(_deviation)
    return mean.reset_index()


def _mean(values: "pd.Series[Any]") -> float:
    """Return the mean, nan where a value is: the mean over the rest is of other seeds."""
    return float(values.mean(skipna=False))


def _deviation(values: "pd.Series[Any]") -> float:
    return float(values.std(skipna=False))


def remarks(table: pd.DataFrame) -> list[str]:
    """Say what a table of means over seeds does not show.

    Arguments:
        table: as :func:`results_table` returns it, before the mean.
    """
    parts = {" ".join(map(str, key[:3])): part for key, part in table.groupby(KEY, sort=False)}
    seeds = {name: tuple(sorted(part.seed)) for name, part in parts.items()}
    (usual, _), *others = Counter(seeds.values()).most_common() or [((), 0)]
    found = []
    if others:
        unusual = [name for name, own in seeds.items() if own != usual]
        found.append(
            f"rows rest on different seeds, which their means also differ by; not on "
            f"{', '.join(map(str, usual))}: {_some(unusual)}"
        )
    partly = [
        f"{column} of {name}"
        for name, part in parts.items()
        for column in part.columns[part.isna().any() & part.notna().any()]
    ]
    if partly:
        found.append(f"left empty, since not every seed has a value: {_some(partly)}")
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")


def for_reading(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a table of results without empty columns, without those of labels and seeds whose
    cells all say the same, which is returned in words, and of very many classes with the best and
    the worst only.
    """
    empty = [name for name in OPTIONAL if name in table and table[name].isna().all()]
    same = [
        name
        for name in ("labels", "seeds")
        if name in table and name not in empty and table[name].nunique(dropna=False) == 1
    ]
    said = [f"{name} of every row: {table[name].iloc[0]}" for name in same]
    table = table.drop(columns=[*empty, *same])
    if BACKGROUND in table:
        table, chosen = _best_and_worst(table)
        said += chosen
    return table, "; ".join(said)


def _best_and_worst(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep, of more classes than a page has room for, those of the best and the worst scores,
    sorted by their mean over the rows; say so.
    """
    first = list(table.columns).index(BACKGROUND) + 1
    classes = table.columns[first:]
    if len(classes) <= MOST_IN_A_BYTE:
        return table, []
    means = table[classes].mean().dropna().sort_values(ascending=False, kind="stable")
    shown = [*means.index[:EXTREMES], *means.index[EXTREMES:][-EXTREMES:]]
    note = (
        f"of {len(classes)} classes the {EXTREMES} best and the {EXTREMES} worst by their mean "
        "over the rows; the CSV has all"
    )
    return table[[*table.columns[:first], *shown]], [note]


def compared(table: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """Compare the mIoU of every model with that of others at the same seed.

    Arguments:
        table: as :func:`results_table` returns it.
        references: models to compare with.

    Returns:
        One row a model, product and split, sorted by split and product: ``seeds`` (how many),
        ``miou`` and ``miou_std``; then for each reference ``over_<reference>`` and
        ``over_<reference>_std``, mean and deviation (of the sample) of the paired differences, nan
        where the reference lacks the product or one of the seeds.

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
        result[column] = groups[column].agg(_mean)
        result[f"{column}_std"] = groups[column].agg(_deviation)
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
    table: pd.DataFrame,
    csv: Path,
    reading: Path | None = None,
    digits: int = 4,
    notes: Sequence[str] | None = None,
) -> None:
    """Write a table as CSV and, for reading, as Markdown; each file appears whole or not at all.

    Arguments:
        table: to write.
        csv: where it is written.
        reading: where the Markdown is written.
        digits: of numbers in the CSV.
        notes: lines below the Markdown of results, which is that of :func:`for_reading`.
    """
    with atomic_file(csv) as temporary:
        table.round(digits).to_csv(temporary, index=False, lineterminator="\n")
    if reading is not None:
        with atomic_file(reading) as temporary:
            shown, said = (table, "") if notes is None else for_reading(table)
            below = "".join(f"\n{note}\n" for note in (said, *(notes or ())) if note)
            temporary.write_text(markdown(shown) + below)


def format_cell(column: str, value: Any) -> str:
    """Return a cell as it is printed."""
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if pd.isna(value):
        return ""
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}".rstrip("0").rstrip(".") if column in EXACT else f"{value:.1f}"


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
