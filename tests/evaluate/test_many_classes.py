"""Tables of very many classes: all in the CSV, the best and the worst for reading."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brnf.evaluate.palettes import class_palette
from brnf.evaluate.tables import class_columns, for_reading, write_table


def of_classes(count: int) -> pd.DataFrame:
    columns = class_columns([f"c{number}" for number in range(count)])
    scores = np.random.default_rng(0).permutation(count).astype(float)
    rows = [[50.0, *scores], [40.0, *(scores + 1)]]
    rows[0][3] = np.nan  # a class that only the second row has
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "model", ["base", "brnf"])
    return table


def test_the_best_and_the_worst_are_shown_sorted(tmp_path: Path) -> None:
    table = of_classes(300)
    shown, said = for_reading(table)
    scores = table.drop(columns=["model", "background"]).mean()
    expected = scores.sort_values(ascending=False)
    assert list(shown.columns[2:]) == [*expected.index[:10], *expected.index[-10:]]
    assert "300 classes the 10 best and the 10 worst" in said
    write_table(table, tmp_path / "table.csv", tmp_path / "table.md", notes=())
    assert len(pd.read_csv(tmp_path / "table.csv").columns) == 302
    assert len((tmp_path / "table.md").read_text().splitlines()[0]) < 400


def test_fewer_classes_are_all_shown_in_their_order() -> None:
    table = of_classes(254)
    shown, said = for_reading(table)
    assert said == ""
    pd.testing.assert_frame_equal(shown, table)


@pytest.mark.parametrize("name", ["voc", "safe"])
def test_colours_of_two_bytes_begin_with_those_of_one(name: str) -> None:
    few, many = class_palette(name), class_palette(name, np.dtype(np.uint16))
    np.testing.assert_array_equal(many[:255], few[:255])
    assert many[65535].tolist() == few[255].tolist() == [255, 255, 255]
    assert many[1:65535].any(axis=1).all()  # no class has the colour of the background
