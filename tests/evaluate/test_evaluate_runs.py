"""The list of runs: what each is, what it measured, and in which settings they differ."""

from pathlib import Path

import pytest
import yaml
from test_evaluate_comparison import experiment, reported

from brnf.config.experiment import read_experiments
from brnf.errors import UserError
from brnf.evaluate.runs import describe, differing, listed, read_recorded, variants
from brnf.use.cli import main


def run(results: Path, name: str, **changed: object) -> Path:
    """Write the record of a run of rendered scenes."""
    for one in read_experiments(
        {"name": name, "dataset": {"kind": "scenes", "train": "train"}, **changed}
    ).values():
        (results / one.name).mkdir(parents=True)
        (results / one.name / "config.yaml").write_text(one.yaml())
    return results / name


def test_only_the_keys_that_differ_are_shown(tmp_path: Path) -> None:
    run(tmp_path, "first")
    run(tmp_path, "second", bsdnf={"final": {"xi": 0.8}}, random_seeds=[0, 1])
    table = differing(read_recorded([tmp_path]))
    assert table.set_index("key").to_dict("index") == {
        "random_seeds": {"first": "[0]", "second": "[0, 1]"},
        "bsdnf.final.xi": {"first": "0.9", "second": "0.8"},
    }


def test_a_run_is_listed_with_its_companion_and_variants(tmp_path: Path) -> None:
    run(
        tmp_path,
        "mine",
        models=["base", "weak"],
        variants={"weak": {"flow": {"blocks": 2}, "fscl": False}, "unused": {}},
        companions={"beside": {"models": ["base"]}},
    )
    runs = read_recorded([tmp_path])
    assert list(listed(runs).run) == ["beside (companion of mine)", "mine"]
    assert list(listed(runs).finished) == ["no", "no"]
    assert variants(runs).to_dict("records") == [
        {"run": "mine", "model": "weak", "differs from brnf in": "flow.blocks: 2, fscl: false"}
    ]


def test_the_segmentations_of_finished_runs_stand_in_the_list(tmp_path: Path) -> None:
    folder = experiment(tmp_path, "own", {("base", 0): 0.5, ("base", 1): 0.6, ("brnf", 0): 0.7})
    record = yaml.safe_load((folder / "config.yaml").read_text()) | {"protocol": "paper"}
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    column = "mIoU of the segmentation"
    assert list(listed(read_recorded([folder]))[column]) == [""], "of unknown settings"
    reported(folder)
    assert list(listed(read_recorded([folder]))[column]) == ["base 55.0, brnf 70.0"]


def test_the_command_prints_runs_that_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = run(tmp_path, "first"), run(tmp_path, "other", threads=2)
    run(tmp_path, "third", shards=2)
    with pytest.raises(SystemExit) as ended:
        main(["runs", str(first), str(other)])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said == describe(read_recorded([first, other]))
    assert "No setting differs." in said and "third" not in said


def test_a_record_of_an_earlier_version_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = experiment(tmp_path, "own", {("base", 3): 0.5})
    record = yaml.safe_load((folder / "config.yaml").read_text()) | {"protocol": "paper"}
    record["seeds"] = record.pop("random_seeds")
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    reported(folder)
    (row,) = listed(read_recorded([folder])).to_dict("records")
    assert (row["seeds"], row["mIoU of the segmentation"]) == ("3", "base 50.0")
    assert capsys.readouterr().err == ""


def test_a_folder_without_runs_and_a_damaged_record_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        read_recorded([tmp_path])
    run(tmp_path, "own")
    for text in ("", "random_seeds: 1", "{", "- 1"):
        (tmp_path / "own" / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=r"config\.yaml: missing or damaged") as caught:
            read_recorded([tmp_path])
        assert "\n" not in str(caught.value)
