"""The chain over a finished run of two rendered handfuls of scenes: both sides of every stage run
and agree; no time is judged.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from benchmarks.agreement import AGREEMENT
from benchmarks.chain import REFERENCE, STAGES, StageRow, chain_table, measure, run, timings_of_run
from benchmarks.finished_run import MAPS, MASKS, STEPS, FinishedRun, prepare
from benchmarks.harness import Timing
from benchmarks.reference_training import SEEING
from benchmarks.stopwatch import REST, Spent, Stopwatch, TimedProcess
from brnf.config.experiment import Experiment, read_experiments
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages import (
    compute_cams,
    denoise_seeds,
    index_images,
    make_pseudo_labels,
    predict_segmentation,
    render_scenes,
    store_pixels,
    train_base,
    train_brnf,
    train_flow,
    train_segmentation,
)

CONFIG = Path(__file__).parents[2] / "config" / "tiny.yaml"
QUIET = Runtime(device="cpu", workers=0, progress="none")
IMAGES = {"train": 8, "val": 2}


class Workflow:
    """What the rules do, in this process."""

    def __init__(self, results: Path) -> None:
        self.results, self.index = results, results / "index"
        settings = yaml.safe_load(CONFIG.read_text())
        settings["scenes"] |= IMAGES
        settings["brnf"]["batch_size"] = settings["base"]["batch_size"] = 4
        settings["brnf"]["cache"] = True
        settings["flow"]["steps"] = 50  # the 25th is judged
        self.experiment: Experiment = read_experiments(settings)["tiny"]

    def options(self, stage: Any, model: str = "base", **given: Any) -> Any:
        return FinishedRun(self.results, self.results, model).options(stage, **given)

    def of(self, model: str, path: str) -> Path:
        return self.results / model / "seed0" / path

    def shards(self, split: str) -> list[tuple[str, Path]]:
        return [
            (f"{split}/{path.stem}", path)
            for path in sorted((self.index / "shards" / split).glob("*.csv"))
        ]

    def data(self) -> None:
        self.results.mkdir(parents=True)
        (self.results / "config.yaml").write_text(self.experiment.yaml())
        render_scenes.run(
            render_scenes.Outputs(self.results / "data"), self.options(render_scenes), QUIET
        )
        options = self.options(index_images, splits=("train", "val"))
        index_images.run(
            index_images.Inputs(self.results / "data"),
            index_images.Outputs(self.index),
            options,
            QUIET,
        )

    def network(self, model: str) -> None:
        network, history = (
            self.of(model, "network/network.pt"),
            self.of(model, "network/history.csv"),
        )
        network.parent.mkdir(parents=True)
        if model == "base":
            options = self.options(train_base, split="train", method="sipe")
            train_base.run(
                train_base.Inputs(self.index), train_base.Outputs(network, history), options, QUIET
            )
            return
        seeds = tuple(self.of("base", f"denoised/{shard}.h5") for shard, _ in self.shards("train"))
        inputs = train_brnf.Inputs(self.index, self.of("base", "network/network.pt"), seeds)
        options = self.options(train_brnf, model, split="train", seed_product="seeds")
        train_brnf.run(inputs, train_brnf.Outputs(network, history), options, QUIET)

    def denoised(self, model: str) -> None:
        network, flow, product = (
            self.of(model, "network/network.pt"),
            self.of(model, "flow/flow.pt"),
            self.experiment.seed_map(model),
        )
        files = {
            folder: {
                shard: self.of(model, f"{folder}/{shard}.h5") for shard, _ in self.shards("train")
            }
            for folder in FOLDERS
        }
        for shard, images in self.shards("train"):
            for found in files.values():
                found[shard].parent.mkdir(parents=True, exist_ok=True)
            cams, pixels = files["cams"][shard], files["pixels"][shard]
            compute_cams.run(
                compute_cams.Inputs(self.index, network, images),
                compute_cams.Outputs(cams),
                self.options(compute_cams, model),
                QUIET,
            )
            inputs = store_pixels.Inputs(self.index, network, cams, images)
            store_pixels.run(
                inputs,
                store_pixels.Outputs(pixels),
                self.options(store_pixels, model, product=product),
                QUIET,
            )
        flow.parent.mkdir()
        outputs = train_flow.Outputs(flow, flow.with_name("history.csv"))
        train_flow.run(
            train_flow.Inputs(tuple(files["pixels"].values())),
            outputs,
            self.options(train_flow, model),
            QUIET,
        )
        for shard, denoised in files["denoised"].items():
            read = denoise_seeds.Inputs(files["pixels"][shard], files["cams"][shard], flow)
            options = self.options(denoise_seeds, model, product=product)
            denoise_seeds.run(read, denoise_seeds.Outputs(denoised), options, QUIET)

    def segmented(self, model: str) -> None:
        network = self.of(model, "segmentation/network.pt")
        masks = tuple(self.of(model, f"pseudo_labels/{shard}") for shard, _ in self.shards("train"))
        for (shard, images), folder in zip(self.shards("train"), masks, strict=True):
            folder.parent.mkdir(parents=True, exist_ok=True)
            inputs = make_pseudo_labels.Inputs(
                self.index, images, self.of(model, f"denoised/{shard}.h5")
            )
            outputs = make_pseudo_labels.Outputs(folder, folder.with_suffix(".h5"))
            make_pseudo_labels.run(
                inputs, outputs, self.options(make_pseudo_labels, model, product="seeds"), QUIET
            )
        network.parent.mkdir()
        written = train_segmentation.Outputs(network, network.with_name("history.csv"))
        train_segmentation.run(
            train_segmentation.Inputs(self.index, masks),
            written,
            self.options(train_segmentation, model, split="train"),
            QUIET,
        )
        for shard, images in self.shards("val"):
            folder = self.of(model, f"predictions/{shard}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            predict_segmentation.run(
                predict_segmentation.Inputs(self.index, network, images),
                predict_segmentation.Outputs(
                    folder, folder.with_suffix(".h5"), folder.with_suffix(".csv")
                ),
                self.options(predict_segmentation, model),
                QUIET,
            )


FOLDERS = ("cams", "pixels", "denoised")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    workflow = Workflow(tmp_path_factory.mktemp("finished") / "results" / "tiny")
    workflow.data()
    for model in ("base", "brnf"):
        workflow.network(model)
        workflow.denoised(model)
    workflow.segmented("brnf")
    return workflow.results


@pytest.fixture(scope="module")
def finished(results: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    found = FinishedRun(results, tmp_path_factory.mktemp("measured") / "inputs", share=0.5)
    prepare(found, results / "data")
    return found


@pytest.mark.parametrize("stage", [*STAGES, SEEING])
def test_both_sides_agree(stage: str, finished: FinishedRun, tmp_path: Path) -> None:
    row = measure(finished, stage, 1, tmp_path)
    assert row.stage == stage and 0 < row.left <= 1 and 0 <= sum(row.loops.values()) <= 1
    assert row.ours.median > 0 and row.reference.median > 0 and min(row.peaks) > 50 * 2**20
    assert list(tmp_path.iterdir()) == [], "outputs are removed"


def test_every_stage_has_both_sides_and_a_comparison() -> None:
    assert set(REFERENCE) == set(AGREEMENT) == {*STAGES, SEEING}


def test_a_wrong_result_is_noticed(finished: FinishedRun, tmp_path: Path) -> None:
    for side in ("ours", "reference"):
        (tmp_path / side).mkdir()
    (tmp_path / "ours" / "history.csv").write_text("step,loss\n1,2.0\n")
    (tmp_path / "reference" / "history.csv").write_text("step,loss\n1,2.1\n")
    with pytest.raises(AssertionError):
        AGREEMENT["train_segmentation"](finished, tmp_path / "ours", tmp_path / "reference")


def test_the_whole_is_scaled_phase_by_phase(finished: FinishedRun) -> None:
    # Base and BRNF each train a flow of 50 steps, half of which are measured.
    assert finished.factors("train_flow") == {STEPS: 2 * 50 / 25, REST: 2}
    assert finished.factors("train_brnf") == {STEPS: 6 / 3, REST: 8 / 4}
    assert finished.factors("compute_cams")[REST] >= 2 * 8 / 4
    assert set(finished.factors("evaluate")) == {MAPS, MASKS, REST}
    assert (
        Spent({STEPS: 1.0, REST: 0.5}, {(STEPS, "dense CRF"): 0.25}).whole({STEPS: 4.0, REST: 2.0})
        == 5.0
    )
    assert Spent({STEPS: 1.0}, {(STEPS, "dense CRF"): 0.25}).whole_loops({STEPS: 4.0}) == {
        "dense CRF": 1.0
    }


def test_phases_and_loops_are_told_apart() -> None:
    times = iter(range(100))
    watch = Stopwatch(lambda: float(next(times)))

    def work() -> None:
        with watch.phase(STEPS), watch.loop("flow training step"), watch.loop("flow log-density"):
            pass

    spent = watch.time(work)  # one tick between any two looks at the clock
    assert spent.phases == {STEPS: 5.0, REST: 2.0}
    assert spent.loops == {(STEPS, "flow training step"): 2.0, (STEPS, "flow log-density"): 1.0}


def row(stage: str, ours: float, reference: float, **loops: float) -> StageRow:
    shares = {name.replace("_", " "): seconds / reference for name, seconds in loops.items()}
    return StageRow(
        stage, "work", Timing((ours,)), Timing((reference,)), shares, (2.0**20, 2.0**21)
    )


def test_bound_and_total_follow_from_the_shares() -> None:
    # 60 s of 100 s can be halved, so 70 s are left: the bound is 10 / 7, and 80 s reach 0.875 of
    # it.
    rows = [
        row("make_pseudo_labels", 40.0, 80.0, dense_CRF=60.0),
        row("train_segmentation", 40.0, 20.0),
    ]
    text = chain_table(rows)
    assert (
        "ratio 1.25, Amdahl bound 1.43" in text
        and "reached: 0.88 of the bound, goal ≥ 0.9 of the bound: MISSED" in text
    )
    line = next(line for line in text.splitlines() if line.startswith("| make_pseudo_labels"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:11] == [
        "40 s",
        "80 s",
        "2.00 (2.00 to 2.00)",
        "1",
        "2",
        "80.0%",
        "75.0%",
        "1.60",
        "",
    ]
    assert "| dense CRF" in text and text.count("60.0%") == 1
    other = replace(rows[0], stage=SEEING, reference=Timing((180.0,)))
    with pytest.raises(StopIteration):
        next(line for line in chain_table([rows[1]]).splitlines() if SEEING in line)
    assert SEEING in chain_table(rows, other)


def test_times_of_the_finished_run_stand_beside(finished: FinishedRun, tmp_path: Path) -> None:
    assert timings_of_run(finished).empty
    for model, seconds in (("base", 2.0), ("brnf", 3.0), ("control", 50.0)):
        folder = tmp_path / model / "seed0" / "benchmarks"
        folder.mkdir(parents=True)
        table = pd.DataFrame([{"s": seconds, "cpu_time": 1.0, "max_rss": 100 * seconds}])
        table.to_csv(folder / "train_flow.tsv", sep="\t", index=False)
    found = timings_of_run(FinishedRun(tmp_path, tmp_path)).loc["train_flow"]
    assert (found.seconds, found.peak_mb) == (5.0, 300.0)


def test_the_command_prints_one_table_and_leaves_the_run_alone(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = dict(states(results))
    run(results, results / "data", share=0.5, repeats=1, stages=("make_pseudo_labels", "evaluate"))
    printed = capfd.readouterr().out
    assert (
        printed.count("| make_pseudo_labels") == printed.count("| evaluate") == 1
        and "Amdahl bound" in printed
    )
    assert dict(states(results)) == before


def states(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    for path in folder.rglob("*"):
        state = path.stat()
        yield path, (state.st_size, state.st_mtime_ns)


def test_a_data_set_that_is_not_there_is_told(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the root"):
        prepare(FinishedRun(results, tmp_path / "inputs"), tmp_path)


def refuse(run: object, watch: object) -> None:
    raise UserError("not this one")


def test_what_a_side_does_not_have_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^not this one$"):
        TimedProcess(refuse, None)  # type: ignore[arg-type]
