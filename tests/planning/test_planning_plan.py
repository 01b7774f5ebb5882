"""The target `plan`, run: two miniatures of a small part of the tiny experiment."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from brnf.config.experiment import read_experiments
from brnf.data.scenes import draw_scene
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.making import duration
from brnf.planning.estimate import seconds_by_rule
from brnf.stages import plan

ROOT = Path(__file__).parents[2]
SHARDS, SEEDS = 3, (0, 1)
RULES = {
    "render_scenes": 1,
    "index_images": 1,
    "import_maps": 2 * SHARDS,
    "train_base": 2,
    "write_cam_model": 2,
    "evaluate": 2,
    "tabulate": 1,
    "draw": 4,
    "report": 1,
}
"""Rules that take time, and their jobs: imported maps of the base are evaluated; its network, which
gives the features, is trained for its curve.
"""

pytestmark = pytest.mark.timeout(1800)
"""Two miniatures run the whole workflow, which may take minutes where other tests run beside."""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a plan and what it printed; base maps are imported."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "maps").mkdir()
    for number in range(24):
        _write_map(folder / "maps" / f"train_{number:05d}.npy")
    done = _snakemake(folder, "plan")
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def _snakemake(folder: Path, *targets: str) -> "subprocess.CompletedProcess[str]":
    words = [f"shards={SHARDS}", f"random_seeds={list(SEEDS)}", "companions=null", "models=[base]"]
    words += ["products=[seeds]", "base={method: import, import: {folder: maps}}"]
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    command += ["--snakefile", str(ROOT / "workflow" / "Snakefile")]
    command += ["--configfile", str(ROOT / "config" / "tiny.yaml")]
    return subprocess.run(
        [*command, "--config", *words, "--", *targets],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _write_map(path: Path) -> None:
    labels = draw_scene(0, "train", int(path.stem[-5:]), size=96, rho=0.9, nu=0.6).labels
    maps = np.random.default_rng(0).random((len(labels), 24, 24), dtype=np.float32)
    content = {"keys": np.array(sorted(labels)), "IS_CAM": maps}
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def test_each_rule_has_a_line_with_the_jobs_of_the_whole_experiment(
    planned: tuple[Path, str],
) -> None:
    table = pd.read_csv(planned[0] / "results" / "tiny" / "tables" / "plan.csv").set_index("rule")
    assert table.jobs.to_dict() == RULES
    assert (table.seconds > 0.05).all() and (table.memory_gb > 0.02).all()
    assert table.hours.tolist() == pytest.approx((table.jobs * table.seconds / 3600).tolist(), 1e-3)


def test_the_plan_is_said_in_units_one_reads(planned: tuple[Path, str]) -> None:
    folder, output = planned
    page = (folder / "results" / "tiny" / "tables" / "plan.md").read_text()
    assert page in output
    time, size = r"\d+ (s|min)", r"(\d+ MB|\d+\.\d GB)"
    assert re.search(rf"^\| import_maps \| 6 \| {time} \| {time} \| {size} ", page, re.MULTILINE)
    assert re.search(r"^Time: \d+ (s|min) of jobs .*; about \d+ (s|min) with 2 at a", page, re.M)
    assert "Measured with 4 and 12 images" in page and " free; that of a CAM" in page
    assert "plan: 4 images: job 1, " in output and "plan: 12 images: job 1, " in output


def test_nothing_stays_but_the_tables(planned: tuple[Path, str]) -> None:
    results = planned[0] / "results" / "tiny"
    files = {
        str(path.relative_to(results))
        for path in results.rglob("*")
        if path.is_file() and not path.name.endswith(".stamp")
    }
    assert {file for file in files if not file.startswith("logs/")} <= {
        "config.yaml",
        "tables/plan.csv",
        "tables/plan.md",
        "tables/plan.csv.lock",
        "tables/.plan.csv.lock",
    }
    assert not list(Path(tempfile.gettempdir()).glob(f"brnf-plan-*/{planned[0].name}"))


def test_the_start_of_a_run_knows_the_plan(planned: tuple[Path, str]) -> None:
    results = planned[0] / "results"
    table = pd.read_csv(results / "tiny" / "tables" / "plan.csv").set_index("rule")
    assert seconds_by_rule(results, "tiny") == pytest.approx(table.seconds.to_dict())


def test_the_disk_is_within_a_tenth_of_what_a_run_writes(planned: tuple[Path, str]) -> None:
    results = planned[0] / "results" / "tiny"
    table = pd.read_csv(results / "tables" / "plan.csv").set_index("rule")
    shards = [f"base/seed0/cams/train/{shard}.h5" for shard in range(SHARDS)]
    done = _snakemake(planned[0], *(f"results/tiny/{shard}" for shard in shards))
    assert done.returncode == 0, done.stdout
    written = len(SEEDS) * sum((results / shard).stat().st_size for shard in shards)
    assert 1e9 * table.disk_gb.import_maps == pytest.approx(written, rel=0.1)


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.yaml").write_text("- a\n")
    outputs = plan.Outputs(tmp_path / "plan.csv", tmp_path / "plan.md")
    with pytest.raises(UserError, match=r"config\.yaml: missing or damaged") as caught:
        plan.run(plan.Inputs((tmp_path / "x" / "config.yaml",)), outputs, plan.Options(), Runtime())
    assert "\n" not in str(caught.value) and not outputs.csv.exists()


def test_clip_es_without_its_weights_ends_in_the_line_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
    record = tmp_path / "results" / "tiny" / "config.yaml"
    record.parent.mkdir(parents=True)
    base = settings["base"] | {"method": "clip_es"}
    chosen = read_experiments(settings | {"base": base, "companions": {}})["tiny"]
    written = yaml.safe_load(chosen.yaml())
    written["base"]["clip_es"]["weights"] = "gone.pt"
    record.write_text(yaml.safe_dump(written))
    outputs = plan.Outputs(tmp_path / "plan.csv", tmp_path / "plan.md")
    with pytest.raises(UserError, match=r"base\.clip_es\.weights: no file 'gone\.pt'"):
        plan.run(plan.Inputs((record,)), outputs, plan.Options(), Runtime(progress="none"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (5000, "83 min"),
        (7200, "2 h"),
        (12000, "3 h 20 min"),
        (200_000, "2.3 days"),
        (58_680_000, "679 days"),
    ],
)
def test_times_are_said_as_one_says_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
