"""The studies of docs/results.md are configurations that the workflow takes."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from snakemake.utils import update_config

from benchmarks import studies
from benchmarks.own_photographs import CLASSES, write_own
from benchmarks.studies import ROOT, STUDIES, Folders, main
from brnf.config.experiment import read_experiments
from brnf.data.table import list_table
from tests.benchmarks.test_recomposed import write_voc


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Return data sets, and let those that are made lie beside them."""
    monkeypatch.setattr(studies, "MADE", tmp_path / "made")
    root = write_voc(tmp_path)
    voc = root / "VOCdevkit" / "VOC2012"
    (voc / "SegmentationClassAug").rename(voc / "SegmentationClass")
    (voc / "SegmentationClassAug").symlink_to(voc / "SegmentationClass")
    for name in ("annotations", "train2014", "val2014"):
        (tmp_path / name).mkdir()
    return Folders(root, tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_each_study_is_a_configuration(name: str, folders: Folders) -> None:
    study = STUDIES[name]
    command = study.command(folders)
    config: dict[str, object] = {}
    for file in study.files:
        update_config(config, yaml.safe_load((ROOT / file).read_text()))
    behind = command[command.index("--config") + 1 :]
    words = behind[: behind.index("--")] if "--" in behind else behind
    for word in words:
        key, _, value = word.partition("=")
        update_config(config, {key: yaml.safe_load(value)})
    experiments = read_experiments(config)
    assert next(iter(experiments)) == study.results


def test_own_photographs_are_a_table_that_is_read(folders: Folders, tmp_path: Path) -> None:
    assert folders.photographs is not None
    table = write_own(folders.photographs, tmp_path / "own")
    listing = list_table(table, classes=CLASSES)
    assert len(listing.entries) == 6 and set(listing.splits) == {"train", "val"}
    for entry in listing.entries:
        assert entry.mask is not None and entry.labels
        values = np.unique(np.asarray(Image.open(entry.mask))).tolist()
        assert {CLASSES[value - 1] for value in values if value} == entry.labels


def test_a_study_without_its_data_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="--photographs: is missing"):
        main(["--only", "animals"])
    assert main(["--list", "--only", "demo"]) == 0
    assert "about 0.1 hours" in capsys.readouterr().out


def test_tables_of_what_was_made_are_kept_and_a_failure_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / ".venv" / "bin" / "snakemake"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        "mkdir -p results/demo/tables && echo table > results/demo/tables/results.csv\n"
        "[ ! -e fails ] || exit 3\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(studies, "ROOT", tmp_path)
    monkeypatch.setattr(studies, "KEPT", tmp_path / "kept")
    (tmp_path / "fails").touch()
    assert main(["--only", "demo"]) == 3
    assert "error: demo: ended with status 3; call again to go on" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()
    (tmp_path / "fails").unlink()
    assert main(["--only", "demo"]) == 0
    assert (tmp_path / "kept" / "demo" / "results.csv").read_text() == "table\n"
