"""The share of the segmenter on true masks that each model reaches."""

import numpy as np
import pandas as pd

from brnf.evaluate.names import SHARE
from brnf.evaluate.tables import class_columns
from brnf.evaluate.upper_bound import with_share

ROWS = [
    ("base", "pseudo_labels", "train", 0, 70.0),
    ("base", "segmentation", "val", 0, 30.0),
    ("base", "segmentation", "val", 1, 40.0),
    ("supervised", "segmentation", "val", 0, 60.0),
    ("supervised", "segmentation", "val", 1, 50.0),
]


def results() -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["model", "product", "split", "seed", "miou"])
    return table.assign(protocol="bench", background=1.0)


def test_each_seed_is_held_against_true_masks_at_the_same_seed() -> None:
    found = with_share(results())
    assert list(found.columns)[4:6] == ["miou", SHARE]
    np.testing.assert_allclose(found[SHARE], [np.nan, 50, 80, 100, 100])


def test_means_are_held_against_the_mean() -> None:
    mean = results().groupby(["model", "product", "split", "protocol"], sort=False).mean()
    found = with_share(mean.drop(columns="seed").reset_index())
    np.testing.assert_allclose(found[SHARE], [np.nan, 100 * 35 / 55, 100])


def test_without_the_model_a_table_stays_as_it_is() -> None:
    table = results()
    assert with_share(table[table.model == "base"]).equals(table[table.model == "base"])
    assert class_columns([SHARE]) == ["background", f"class {SHARE}"]
