"""Compare two models of an experiment seed by seed: ``python -m brnf.evaluate.paired
results/voc-animals brnf base``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
from scipy import stats

from brnf.errors import UserError
from brnf.evaluate.tables import markdown, read_evaluations, results_table

__all__ = ["interval", "main", "paired"]

MEASURES = ("miou", "bias")
CONFIDENCE = 0.95
PAIRS = ["product", "split", "protocol", "seed"]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the t interval of 95 % of the mean of paired differences, nan of fewer than two.

    Arguments:
        differences: one a seed, taken as independent and normal.
    """
    if len(differences) < 2:
        return float("nan"), float("nan")
    mean, error = fmean(differences), float(stats.sem(differences))
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(CONFIDENCE, len(differences) - 1, loc=mean, scale=error)
    return float(low), float(high)


def paired(
    evaluations: Sequence[Path], model: str, reference: str, measure: str = "miou"
) -> pd.DataFrame:
    """Compare two models at each seed that both have.

    Arguments:
        evaluations: JSON files of the stage evaluate.
        model: compared.
        reference: with which.
        measure: ``miou`` or ``bias``.

    Returns:
        One row a product and split: ``seeds`` (how many), the mean of either model in percent,
        ``differences`` (of each seed, in the order of the seeds), ``mean``, ``low`` and ``high``
        (:func:`interval`).

    Raises:
        UserError: an evaluation is missing or damaged, or the models have none in common.
    """
    table = results_table(read_evaluations(evaluations))
    if measure not in table:
        raise UserError(f"{measure}: was not measured in this experiment; choose miou")
    one, other = (
        table.loc[table.model == name, [*PAIRS, measure]].dropna() for name in (model, reference)
    )
    both = one.merge(other, on=PAIRS, suffixes=("", "_reference"), validate="one_to_one")
    if both.empty:
        known = ", ".join(dict.fromkeys(table.model))
        raise UserError(
            f"{model} and {reference}: nothing was measured of both at one seed; there are: {known}"
        )
    rows = []
    for (product, split, protocol), group in both.groupby(PAIRS[:-1], sort=False):
        ordered = group.sort_values("seed")
        own, reference_own = ordered[measure], ordered[f"{measure}_reference"]
        differences = (own - reference_own).tolist()
        low, high = interval(differences)
        rows.append(
            {
                "product": product,
                "split": split,
                "protocol": protocol,
                "seeds": len(ordered),
                reference: reference_own.mean(),
                model: own.mean(),
                "differences": ", ".join(f"{value:+.1f}" for value in differences),
                "mean": fmean(differences),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def main(words: Sequence[str]) -> int:
    """Print the comparison as Markdown; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m brnf.evaluate.paired", description=__doc__)
    parser.add_argument("results", type=Path, help="results/<name>")
    parser.add_argument("model", help="compared")
    parser.add_argument("reference", help="with which; the difference is model - reference")
    parser.add_argument("--measure", choices=MEASURES, default=MEASURES[0])
    chosen = parser.parse_args(words)
    found = sorted(
        path
        for name in dict.fromkeys((chosen.model, chosen.reference))
        for path in (chosen.results / name).glob("seed*/evaluation/*.json")
    )
    try:
        if not found:
            raise UserError(
                f"{chosen.results}: no evaluation of {chosen.model} or {chosen.reference} here; "
                "give the folder results/<name>"
            )
        table = paired(found, chosen.model, chosen.reference, chosen.measure)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(table), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
