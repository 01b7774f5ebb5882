"""The paper's main table beside our runs: what each cell shows, and what never appears."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.comparison import (
    NOT_REPORTED,
    NOT_RUN,
    PAPER,
    comparison_table,
    read_runs,
    runs_table,
)
from brnf.evaluate.finished import measured_experiments
from brnf.stages import tabulate_comparison
from brnf.store.stamps import Stamp, content_of, digest_of, write_stamp

QUIET = Runtime(device="cpu", threads=1, workers=0, progress="none")


def experiment(
    results: Path,
    name: str,
    scores: dict[tuple[str, int], float],
    *,
    kind: str = "voc",
    images: int = 1449,
    classes: int = 21,
    protocol: str = "paper",
    method: str = "sipe",
    models: tuple[str, ...] = ("base", "brnf"),
) -> Path:
    """Write the record of an experiment and the evaluations of some models and seeds."""
    folder = results / name
    record: dict[str, Any] = {
        "models": list(models),
        "random_seeds": sorted({seed for _, seed in scores} or {0}),
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(
            record | {"dataset": {"kind": kind, "val": "val"}, "base": {"method": method}}
        )
    )
    for (model, seed), miou in scores.items():
        file = folder / model / f"seed{seed}" / "evaluation" / "segmentation-val.json"
        file.parent.mkdir(parents=True)
        names = [f"class {number}" for number in range(classes)]
        found = {
            "miou": miou,
            "protocol": protocol,
            "split": "val",
            "images": images,
            "classes": names,
            "seed": seed,
        }
        file.write_text(json.dumps(found))
    return folder


def cells(table: pd.DataFrame, method: str) -> list[str]:
    (row,) = table[table.method == method].to_dict("records")
    return [row[f"here: {data}"] for data in ("VOC val", "VOC test", "COCO val")]


def test_without_any_run_every_cell_of_ours_says_so() -> None:
    table = comparison_table([])
    ours = table[[column for column in table if column.startswith("here")]]
    assert (ours == NOT_RUN).all(axis=None)
    assert set(PAPER) | {"SIPE + BRNF"} == set(table.method)
    assert table.notna().all(axis=None) and (table != "").all(axis=None)


@pytest.mark.parametrize(
    ("method", "printed"),
    [
        ("SFC + BRNF", ["74.8", "75.7", "47.7"]),
        ("CLIP-ES + BRNF", ["75.9", "76.2", "47.9"]),
        ("CLIMS", ["70.4", "70.0", NOT_REPORTED]),
        ("SIPE + BRNF", [NOT_REPORTED] * 3),
        ("CPAL", ["74.5", "74.7", "46.8"]),
    ],
)
def test_the_papers_columns_hold_what_it_prints(method: str, printed: list[str]) -> None:
    (row,) = comparison_table([]).query("method == @method").to_dict("records")
    assert [row[f"paper: {data}"] for data in ("VOC val", "VOC test", "COCO val")] == printed


def test_runs_on_the_papers_sets_stand_in_their_row_with_protocol_and_experiment(
    tmp_path: Path,
) -> None:
    folders = [
        experiment(
            tmp_path,
            "voc12",
            {("base", 0): 0.6, ("base", 1): 0.62, ("brnf", 0): 0.7, ("brnf", 1): 0.71},
        ),
        experiment(tmp_path, "small", {("brnf", 0): 0.5}, protocol="bench"),
        experiment(
            tmp_path,
            "coco14",
            {("brnf", 0): 0.4},
            kind="coco",
            images=40137,
            classes=81,
            method="clip_es",
        ),
    ]
    table = comparison_table(read_runs(folders))
    assert cells(table, "SIPE") == ["61.0 ± 1.4 (paper: voc12, 2 seeds)", NOT_RUN, NOT_RUN]
    assert cells(table, "SIPE + BRNF") == [
        "70.5 ± 0.7 (paper: voc12, 2 seeds); 50.0 (bench: small)",
        NOT_RUN,
        NOT_RUN,
    ]
    assert cells(table, "CLIP-ES + BRNF") == [NOT_RUN, NOT_RUN, "40.0 (paper: coco14)"]
    assert cells(table, "CLIP-ES") == [NOT_RUN] * 3
    order = list(table.method)
    assert order.index("SIPE + BRNF") == order.index("SIPE") + 1


@pytest.mark.parametrize(
    "other",
    [{"classes": 7}, {"images": 180}, {"kind": "table"}, {"kind": "scenes", "protocol": "scenes"}],
)
def test_other_data_than_the_papers_never_stands_in_its_columns(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    runs = read_runs([experiment(tmp_path, "mine", {("base", 0): 0.6, ("brnf", 0): 0.7}, **other)])
    assert len(runs) == 2
    assert (comparison_table(runs).filter(like="here") == NOT_RUN).all(axis=None)
    assert list(runs_table(runs).miou) == [60.0, 70.0]
    assert str(other.get("images", 1449)) in runs_table(runs).data[0]


def test_runs_of_a_protocol_and_on_the_same_data_stand_together_whatever_their_score(
    tmp_path: Path,
) -> None:
    folders = [
        experiment(
            tmp_path,
            "a",
            {("brnf", 0): 0.9},
            protocol="scenes",
            kind="scenes",
            images=80,
            classes=7,
        ),
        experiment(
            tmp_path,
            "b",
            {("base", 0): 0.5, ("brnf", 0): 0.6},
            protocol="bench",
            images=180,
            classes=7,
        ),
        experiment(tmp_path, "c", {("brnf", 0): 0.7}),
        experiment(tmp_path, "d", {("brnf", 0): 0.8}, protocol="bench", images=180, classes=7),
    ]
    table = runs_table(read_runs(folders))
    assert list(table.protocol) == ["paper", "bench", "bench", "bench", "scenes"]
    assert list(table.experiment) == ["c", "b", "b", "d", "a"]


def test_models_that_the_record_no_longer_names_and_other_models_of_it(tmp_path: Path) -> None:
    scores = {("base", 0): 0.5, ("old", 0): 0.9, ("control", 0): 0.55}
    runs = read_runs(
        [experiment(tmp_path, "mine", scores, models=("base", "control"), method="import")]
    )
    assert [run.method for run in runs] == ["imported maps", "imported maps, model control"]
    order = list(comparison_table(runs).method)
    assert order[-2:] == ["imported maps", "imported maps, model control"]


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    folder = experiment(tmp_path, "mine", {("base", 0): 0.5})
    file = folder / "base" / "seed0" / "evaluation" / "segmentation-val.json"
    for text in ("", "{}", '{"miou": null}'):
        file.write_text(text)
        with pytest.raises(UserError, match=r"segmentation-val\.json: damaged") as caught:
            read_runs([folder])
        assert "\n" not in str(caught.value)
    (folder / "config.yaml").write_text("random_seeds: [0]\n")
    with pytest.raises(UserError, match=r"config\.yaml: missing or damaged"):
        read_runs([folder])


def reported(folder: Path) -> None:
    """Write the table and the report of an experiment, with what their stamps would hold."""
    table, report = folder / "tables" / "results.csv", folder / "report.html"
    evaluations = list(folder.glob("*/seed*/evaluation/*.json"))
    for product, read in ((table, evaluations), (report, [folder / "config.yaml", table])):
        product.parent.mkdir(exist_ok=True)
        product.write_text("whatever")
        inputs = {str(path): digest_of(path) for path in read}
        write_stamp(product, Stamp("stage", {}, "code", inputs, content=content_of(product)))


def test_results_of_other_settings_are_left_out_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cut run has written its config.yaml and still the evaluations of the run before it."""
    folder = experiment(tmp_path, "sfc", {("base", 0): 0.5})
    assert measured_experiments(tmp_path) == {}, "nobody knows which settings these are of"
    reported(folder)
    assert list(measured_experiments(tmp_path)) == [str(folder)]
    record = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(record.replace("sipe", "sfc"))
    assert measured_experiments(tmp_path) == {}
    (folder / "config.yaml").write_text(record)
    (evaluation,) = folder.rglob("segmentation-val.json")
    evaluation.write_text(evaluation.read_text().replace("0.5", "0.6"))
    assert measured_experiments(tmp_path) == {}
    said = capsys.readouterr().err.splitlines()
    assert said == [said[0]] and f"comparison: {folder} is left out: " in said[0]


def test_the_stage_writes_both_tables_and_a_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    reported(experiment(results, "voc12", {("brnf", 0): 0.7}))
    experiment(results, "unmeasured", {})
    found = measured_experiments(results)
    assert list(found) == [str(results / "voc12")]
    outputs = tabulate_comparison.Outputs(
        tmp_path / "a.csv", tmp_path / "runs.csv", tmp_path / "a.md"
    )
    tabulate_comparison.run(
        tabulate_comparison.Inputs(tuple(map(Path, found))),
        outputs,
        tabulate_comparison.Options(),
        QUIET,
    )
    table = pd.read_csv(outputs.csv, keep_default_na=False)
    assert cells(table, "SIPE + BRNF")[0] == "70.0 (paper: voc12)" and (table != "").all(axis=None)
    assert list(pd.read_csv(outputs.runs_csv).miou) == [70.0]
    page = outputs.markdown.read_text()
    assert (
        "| SIPE + BRNF | not reported |" in page
        and "70.0 (paper: voc12)" in page
        and "| paper | VOC val |" in page
    )
    file = results / "voc12" / "brnf" / "seed0" / "evaluation" / "segmentation-val.json"
    file.write_text(file.read_text().replace("0.7", "0.8"))
    reported(results / "voc12")
    assert measured_experiments(results) != found


def test_the_page_of_nothing_says_so(tmp_path: Path) -> None:
    outputs = tabulate_comparison.Outputs(
        tmp_path / "a.csv", tmp_path / "runs.csv", tmp_path / "a.md"
    )
    tabulate_comparison.run(
        tabulate_comparison.Inputs(), outputs, tabulate_comparison.Options(), QUIET
    )
    assert "Nothing has been run here yet." in outputs.markdown.read_text()
    assert len(pd.read_csv(outputs.runs_csv)) == 0
