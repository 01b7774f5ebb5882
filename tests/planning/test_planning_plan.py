"""The plan: what every probe measures, how it is extrapolated, and the table."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from brnf.backbones import Backbone
from brnf.cam.network import save_cam_network
from brnf.config.experiment import Experiment, read_experiments
from brnf.config.sections.cam import BackboneOptions
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.planning import probes, trials
from brnf.planning.configured import cam_network
from brnf.planning.estimate import seconds_by_rule
from brnf.planning.sizes import SplitSize
from brnf.planning.trials import TRIALS
from brnf.planning.work import planned_work
from brnf.stages import plan

TINY = Path(__file__).parents[2] / "config" / "tiny.yaml"
QUIET = Runtime(device="cpu", threads=1, workers=0, progress="none")
SIZE = SplitSize(24, 6, 64, 96, 1.7, 0, 0, 0, False)


def tiny(**changes: Any) -> Experiment:
    settings = yaml.safe_load(TINY.read_text()) | {"companions": {}}
    return read_experiments(
        settings | {key: settings.get(key, {}) | value for key, value in changes.items()}
    )["tiny"]


@pytest.mark.parametrize("rule", sorted(TRIALS))
def test_every_trial_runs_with_the_configured_networks(rule: str) -> None:
    torch.set_num_threads(1)
    trial, times = TRIALS[rule](
        tiny(brnf={"crop": 64}, base={"crop": 64}), SIZE, torch.device("cpu")
    )
    seconds, look = trial(1.0)
    assert seconds > 0 and (look > 0) == (rule in ("train_base", "train_brnf"))
    assert times == {"train_base": 4, "train_brnf": 4, "train_segmentation": 2}.get(rule, 1)


def test_there_is_a_trial_for_all_that_is_planned() -> None:
    assert {work.rule for work in planned_work(tiny())} == set(TRIALS)


@pytest.mark.parametrize(("cache", "step", "look"), [(False, 1, 0.5), (True, 0, 0.5)])
def test_a_step_from_kept_stages_costs_no_look_at_the_images(
    cache: bool, step: float, look: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``cache`` the backbone's time is in the look at each of two images, not in the step."""
    runs = 0  # of the backbone: what the clock shows here

    def counted(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
        nonlocal runs
        runs += 1
        return normalise(backbone, images)

    normalise = Backbone.normalise
    monkeypatch.setattr(Backbone, "normalise", counted)
    monkeypatch.setattr(trials, "clock", lambda device: lambda: runs)
    changes = {"cache": cache, "crop": 64}
    trial, _ = TRIALS["train_base"](tiny(base=changes), SIZE, torch.device("cpu"))
    assert trial(1.0) == (step, look)


def fake_trials(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Put a trial in place that says it takes some seconds a full step, of which a real one has
    three times as many images.
    """
    asked: list[float] = []

    def trial(fraction: float) -> tuple[float, float]:
        asked.append(fraction)
        return seconds * fraction**2, 0.5 * fraction**2

    monkeypatch.setitem(probes.TRIALS, "evaluate", lambda *_: (trial, 3))
    return asked


def test_a_quick_probe_measures_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_trials(monkeypatch, 2.0)
    found = probes.probe("evaluate", tiny(), SIZE, QUIET, seconds=100.0)
    assert asked == [0.25, 0.25, 0.5, 1.0]
    assert (found.seconds, found.look, found.share, found.device) == (
        6.0,
        0.5,
        pytest.approx(1 / 3),
        "cpu",
    )
    assert found.memory > 1e7


def test_a_slow_probe_stops_in_time_and_extrapolates_by_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = fake_trials(monkeypatch, 160.0)
    found = probes.probe("evaluate", tiny(), SIZE, QUIET, seconds=100.0)
    assert asked == [0.25, 0.25, 0.5]  # the next one would take 160 seconds
    assert (found.seconds, found.share) == (480.0, pytest.approx(0.25 / 3))


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plan a small part of the tiny experiment with two seeds, some of which has been made."""
    results = tmp_path_factory.mktemp("results")
    chosen = read_experiments(
        yaml.safe_load(TINY.read_text())
        | {
            "companions": {},
            "seeds": [0, 1],
            "models": ["base"],
            "products": ["cam_classifier", "seeds"],
        }
    )["tiny"]
    folder = results / "tiny"
    for file in (
        "config.yaml",
        "base/seed0/cams/train/0.h5",
        "base/seed0/benchmarks/compute_cams/train-0.tsv",
    ):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("s\n9.0\n")
    (folder / "config.yaml").write_text(chosen.yaml())
    plan.run(
        plan.Inputs(folder / "config.yaml"),
        plan.Outputs(folder / "tables" / "plan.csv"),
        plan.Options(seconds=3.0),
        QUIET,
    )
    return folder / "tables" / "plan.csv"


def test_the_plan_holds_a_line_a_model_and_stage(planned: Path) -> None:
    table = pd.read_csv(planned).set_index("stage")
    assert list(table.index) == ["train_base", "compute_cams", "evaluate"]
    assert list(table.jobs) == [2, 4, 4] and list(table.amount) == [
        "4 steps",
        "24 images",
        "24 images",
    ]
    assert (table.hours > 0).all() and (table.memory_gb > 0.05).all()
    assert table.hours_before.tolist()[1] == pytest.approx(
        4 * 9 / 3600
    ) and table.hours_before.isna().tolist() == [True, False, True]


def test_the_plan_tells_products_and_what_of_them_is_missing(planned: Path, tmp_path: Path) -> None:
    table = pd.read_csv(planned).set_index("stage")
    maps = (
        2 * 24 * 96 * 96 * 2.7 * 2 * 2 * 0.45 / 1e9
    )  # two seeds, images, pixels, channels, products, bytes
    assert table.disk_gb.compute_cams == pytest.approx(maps, abs=1e-4)
    assert table.disk_missing_gb.compute_cams == pytest.approx(maps * 3 / 4, abs=1e-4)
    network = cam_network(tiny(), 6, torch.device("cpu"))
    save_cam_network(
        tmp_path / "network.pt",
        network,
        BackboneOptions("tf_efficientnet_lite0", "none"),
        ["a"] * 6,
    )
    assert table.disk_gb.train_base == pytest.approx(
        2 * (tmp_path / "network.pt").stat().st_size / 1e9, rel=0.02
    )


def test_the_start_of_a_run_knows_the_plan_until_jobs_have_run(planned: Path) -> None:
    seconds = seconds_by_rule(planned.parents[2], "tiny")
    table = pd.read_csv(planned).set_index("stage")
    assert seconds["train_base"] == pytest.approx(3600 * table.hours.train_base / 2)
    assert seconds["compute_cams"] == 9.0


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.yaml").write_text("- a\n")
    with pytest.raises(UserError, match=r"config\.yaml: missing or damaged") as caught:
        plan.run(
            plan.Inputs(tmp_path / "x" / "config.yaml"),
            plan.Outputs(tmp_path / "plan.csv"),
            plan.Options(),
            QUIET,
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "plan.csv").exists()
