"""The whole workflow, really run on ``config/tiny.yaml``: what appears, and what runs again after a
change.
"""

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invalidation import direct, expected

from brnf.data.index import Index
from brnf.use.cli import main

Config = Callable[[str], str]
TINY = str(Path(__file__).parents[2] / "config" / "tiny.yaml")


@pytest.fixture(scope="module")
def finished(lasting_workflow: Any) -> Any:
    lasting_workflow.printed = lasting_workflow("--configfile", TINY)
    return lasting_workflow


def test_tables_figures_and_report_appear(finished: Any) -> None:
    results = finished.folder / "results" / "tiny"
    with (results / "tables" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    named = ["model", "product", "split", "protocol", "labels", "miou", "bias"]
    assert list(rows[0])[:7] == named
    products = [
        "cam_classifier",
        "cam_prototype",
        "seeds",
        "seeds_bsdnf",
        "pseudo_labels",
        "segmentation",
    ]
    assert [(row["model"], row["product"]) for row in rows] == [
        (model, product) for model in ("base", "brnf") for product in products
    ]
    assert {row["protocol"] for row in rows} == {"scenes"} and all(
        0 <= float(row["miou"]) <= 100 for row in rows
    )
    report = (results / "report.html").read_text()
    assert "tiny-inseparable" in report and report.count("data:image/png") == 5 + 3
    left = [path for path in finished.folder.rglob("*") if path.name.endswith((".part", ".lock"))]
    assert [path for path in left if ".snakemake" not in path.parts] == []
    assert not list(finished.folder.glob("results/*/.feature_cache")), (
        "what trainings share goes with the run"
    )


def test_the_command_predicts_what_the_workflow_did(finished: Any, tmp_path: Path) -> None:
    run = finished.folder / "results" / "tiny" / "base" / "seed0"
    index = Index.of_split(finished.folder / "results" / "tiny" / "index", "val")
    images = [str(finished.folder / record.path) for record in index.images]
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run / "segmentation" / "model.pt"), *images, "--out", str(tmp_path)])
    assert not ended.value.code
    made = {path.name: path.read_bytes() for path in run.glob("predictions/val/*/*.png")}
    found = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    assert len(made) == 8 and found == made


def test_a_second_call_finds_nothing_to_be_done(finished: Any) -> None:
    assert finished.jobs("--configfile", TINY) == {}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "device",
            [
                "device=cpu",
                "devices=2",
                "workers=1",
                "threads=2",
                "progress=none",
                "checkpoint_seconds=1",
            ],
        ),
        ("flow.tau.low", ["flow={tau: {low: 0.2}}"]),
        ("bsdnf.base.xi", ["bsdnf={base: {xi: 0.8}}"]),
        ("bsdnf.final.xi", ["bsdnf={final: {xi: 0.8}}"]),
        ("brnf.lambda_cal", ["brnf={lambda_cal: 1}"]),
        (
            "pseudo_labels.crf.bilateral_sigma_xy",
            ["pseudo_labels={crf: {bilateral_sigma_xy: 50}}"],
        ),
        ("segmentation.learning_rate", ["segmentation={learning_rate: 0.01}"]),
        ("flow.components", ["flow={components: 3}"]),
    ],
)
def test_a_key_reruns_what_reads_it_and_what_follows(
    finished: Any, key: str, words: list[str]
) -> None:
    """Snakemake's own plan for one key of each kind; ``make test-invalidation`` asks all."""
    by_rule: Counter[str] = Counter()
    for job, count in expected(direct(key)).items():
        by_rule[job.split()[0]] += count
    assert finished.jobs("--configfile", TINY, "--config", *words) == dict(by_rule)


@pytest.fixture
def moved(finished: Any, tmp_path: Path) -> Any:
    """Return the results in another folder, without Snakemake's records of them."""
    folder = finished.elsewhere(tmp_path / "moved")
    shutil.copytree(finished.folder / "results", folder.folder / "results", symlinks=True)
    return folder


def test_moved_results_say_what_made_them(moved: Any) -> None:
    """Results without Snakemake's records are neither taken for others nor made in vain."""
    assert moved.jobs("--configfile", TINY) == {}
    key = "bsdnf.final.xi"
    by_rule: Counter[str] = Counter()
    for job, count in expected(direct(key)).items():
        by_rule[job.split()[0]] += count
    words = ("--configfile", TINY, "--config", "bsdnf={final: {xi: 0.8}}")
    assert moved.jobs(*words) == dict(by_rule)
    said = moved("--dry-run", *words)
    shard = r"results/tiny/brnf/seed0/denoised/train/\d\.h5"
    assert re.search(rf"^made anew: {shard}: bsdnf\.xi was 0\.\d+, is 0\.8$", said, re.MULTILINE)
    replaced = (
        r"results/tiny: bsdnf\.final\.xi was 0\.\d+, is 0\.8: what depends on that is replaced"
    )
    assert len(re.findall(rf"^{replaced}; another name= keeps both$", said, re.MULTILINE)) == 1


def test_the_target_runs_lists_what_is_there(moved: Any) -> None:
    said = moved("--configfile", TINY, "--", "runs")
    row = next(line for line in said.splitlines() if line.startswith("| tiny |"))
    assert re.search(r"\| scenes \| base, .*brnf.* \| 0.* \| 2\d{3}-.* \| base \d+\.\d, ", row)


@pytest.mark.parametrize("words", ["models=[base]", "companions=null", "figures={count: 1}"])
def test_moved_results_of_other_files_are_made_anew(finished: Any, moved: Any, words: str) -> None:
    """What a table or figure was made from counts, whether or not Snakemake has a record of it."""
    asked = ("--configfile", TINY, "--config", words)
    planned = finished.jobs(*asked)
    assert planned["report"] == 1 and moved.jobs(*asked) == planned


def test_a_run_that_was_cut_under_a_clock_set_back_goes_on(moved: Any) -> None:
    """The network of the old threshold is older than nothing that the new one has made."""
    words = ("--configfile", TINY, "--config", "bsdnf={base: {xi: 0.8}}")
    denoised = moved.folder / "results" / "tiny" / "base" / "seed0" / "denoised"
    targets = [str(path.relative_to(moved.folder)) for path in denoised.rglob("[!.]*.h5")]
    moved(*words, "--", *targets)
    for path in denoised.rglob("*"):
        os.utime(path, (0, 0))
    shutil.rmtree(moved.folder / ".snakemake")
    jobs = moved.jobs(*words)
    assert jobs["train_brnf"] == 1 and "denoise_seeds" in jobs


def test_a_cut_list_of_the_index_is_made_again(moved: Any) -> None:
    path = moved.folder / "results" / "tiny" / "index" / "splits" / "train.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert moved.jobs("--configfile", TINY)["index_images"] == 1


def test_the_command_tells_where_a_result_comes_from(
    finished: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.folder)
    result = "results/tiny/brnf/seed0/segmentation/model.pt"
    with pytest.raises(SystemExit) as ended:
        main(["provenance", result, "--json"])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert next(iter(found)) == result
    assert {stamp["stage"] for stamp in found.values()} >= {
        *("index_images", "train_base", "compute_cams", "store_pixels", "train_flow"),
        *("denoise_seeds", "train_brnf", "make_pseudo_labels", "train_segmentation"),
    } - {"index_images"}
    with pytest.raises(SystemExit) as ended:
        main(["provenance", result])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == result and "  --seed 0" in lines and not any("CHANGED" in x for x in lines)
    with pytest.raises(SystemExit):
        main(["provenance", "results/tiny/nothing"])
    assert "results/tiny/nothing: does not exist" in capsys.readouterr().err


def test_an_index_made_again_with_equal_content_reruns_nothing(
    finished: Any, tmp_path: Path
) -> None:
    folder = finished.elsewhere(tmp_path / "copy")
    shutil.copytree(finished.folder, folder.folder, symlinks=True)
    os.utime(folder.folder / "results" / "tiny" / "data")
    printed = folder("--configfile", TINY, "--forcerun", "index_images", "--until", "index_images")
    assert "index_images" in printed
    assert folder.jobs("--configfile", TINY) == {}


def test_an_error_of_the_user_reaches_the_terminal_in_one_line(finished: Any) -> None:
    output = finished(
        "--configfile",
        TINY,
        "--config",
        "name=tiny2",
        "companions=null",
        "evaluate={recall: 0.7}",
        "dataset={classes: [train, plane]}",
        fails=True,
    )
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if line.startswith("error: ")], output


def spoil(path: Path) -> None:
    """Damage a product near its end, where HDF5 and torch describe what they hold, as a disk does:
    its time stays.
    """
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-3000:-1000] = bytes(255 - value for value in content[-3000:-1000])
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_damaged_products_are_named_set_aside_and_made_anew(finished: Any, tmp_path: Path) -> None:
    folder = finished.elsewhere(tmp_path / "copy")
    shutil.copytree(finished.folder, folder.folder, symlinks=True)
    run = folder.folder / "results" / "tiny" / "base" / "seed0"
    pixels, network = (
        next((run / "pixels" / "train").glob("*.h5")),
        run / "segmentation" / "network.pt",
    )
    wanted = [run / "flow" / "flow.pt", next((run / "predictions" / "val").glob("*.h5"))]
    kept = {path: path.read_bytes() for path in wanted}
    for path in (pixels, network):
        spoil(path)
    for path in wanted:
        path.unlink()
    words = [
        "--configfile",
        TINY,
        "--keep-going",
        "--",
        *(str(path.relative_to(folder.folder)) for path in wanted),
    ]
    output = folder(*words, fails=True)
    told = {line for line in output.splitlines() if line.startswith("error: ")}
    assert {line.split(":")[1].strip() for line in told} == {
        str(path.relative_to(folder.folder)) for path in (pixels, network)
    }, output
    assert (
        all(" is now " in line and "run the workflow again" in line for line in told)
        and "Traceback" not in output
    )
    assert (
        not pixels.exists() and not network.exists() and not any(path.exists() for path in wanted)
    )
    folder(*words)
    assert {path: path.read_bytes() for path in wanted} == kept
