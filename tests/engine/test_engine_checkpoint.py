"""Trainings that are stopped and run again end in the bytes of an unbroken one, or begin anew when
anything is different.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from brnf.cam.training import CamTrainer
from brnf.config.sections.cam import (
    BackboneNetwork,
    BackboneOptions,
    BaseTraining,
    BrnfTraining,
    CamTraining,
)
from brnf.config.sections.flow import Flow, FlowInTraining
from brnf.config.sections.segmentation import BoundaryTraining, SegmentationTraining
from brnf.data.index import ImageRecord, Index
from brnf.engine import checkpoint as checkpoints
from brnf.engine.checkpoint import Checkpoint, training_stamp
from brnf.engine.controller import CONTROLLER
from brnf.engine.runtime import Runtime
from brnf.engine.trainer import take_steps
from brnf.flow.training import FlowTrainer
from brnf.segment.boundary_training import BoundaryTrainer
from brnf.segment.training import SegmentationTrainer
from brnf.stages import train_base, train_boundaries, train_brnf, train_flow, train_segmentation
from brnf.store.maps import write_maps
from brnf.store.pixels import PixelRows, write_pixels

CPU = torch.device("cpu")
EVERY_STEP = Runtime(device="cpu", workers=0, progress="none", checkpoint_seconds=0)
SELDOM = Runtime(device="cpu", workers=0, progress="none")
STEPS = 6
BACKBONE = BackboneOptions(name="tf_efficientnet_lite0", weights="none")
FROZEN_BACKBONE = replace(BACKBONE, trainable_stages=0)
CAM = CamTraining(side_widths=(4, 4, 4, 4))
CROPS: dict[str, Any] = {
    "batch_size": 2,
    "resize_low": 32,
    "resize_high": 40,
    "crop": 32,
    "steps": STEPS,
}
CACHED: dict[str, Any] = {"cache": True, "fit_classifier": True, "resize_high": 32}
"""What differs where the outputs of a frozen backbone are cached."""


class Stop(Exception):
    """The training is interrupted."""


def changed(options: Any, changes: Mapping[str, Any]) -> Any:
    """Return options with other values, by names such as ``base.weight_decay``."""
    for name, value in changes.items():
        field, _, rest = name.partition(".")
        new = changed(getattr(options, field), {rest: value}) if rest else value
        options = replace(options, **{field: new})
    return options


@dataclass(frozen=True)
class Training:
    """A stage with small options, and an option whose value changes its course."""

    stage: ModuleType
    trainer: type
    options: Any
    change: dict[str, Any]

    def run(self, folder: Path, data: Path, runtime: Runtime, **changes: Any) -> list[bytes]:
        """Run the stage and return the content of its outputs."""
        given: dict[ModuleType, Callable[[], Any]] = {
            train_base: lambda: train_base.Inputs(data),
            train_brnf: lambda: train_brnf.Inputs(data, data / "base.pt", (data / "seeds.h5",)),
            train_flow: lambda: train_flow.Inputs((data / "pixels.h5",)),
            train_boundaries: lambda: train_boundaries.Inputs(data, (data / "masks",)),
            train_segmentation: lambda: train_segmentation.Inputs(data, (data / "masks",)),
        }
        files = folder / "result.pt", folder / "history.csv"
        self.stage.run(
            given[self.stage](),
            self.stage.Outputs(*files),
            changed(self.options, changes),
            runtime,
        )
        return [file.read_bytes() for file in files]


SMALL_BASE = train_base.Options(
    split="train", backbone=BACKBONE, cam=CAM, base=BaseTraining(**CROPS)
)
TRAININGS = {
    "base": Training(train_base, CamTrainer, SMALL_BASE, {"base.weight_decay": 0.1}),
    "sfc": Training(
        train_base, CamTrainer, replace(SMALL_BASE, method="sfc"), {"base.sfc.lambda_scale": 0.1}
    ),
    "brnf": Training(
        train_brnf,
        CamTrainer,
        train_brnf.Options(
            split="train",
            seed_product="classifier",
            backbone=FROZEN_BACKBONE,
            cam=CAM,
            brnf=BrnfTraining(
                **CROPS | CACHED,
                labels_from="seed",
                online_warmup=1,
                bank_region=4,
                bank_sampled=12,
            ),
            flow=FlowInTraining(blocks=2),
        ),
        {"brnf.lambda_cal": 1.0},
    ),
    "flow": Training(
        train_flow,
        FlowTrainer,
        train_flow.Options(
            flow=Flow(blocks=2, hidden=8, steps=STEPS, batch_rows=40, held_out=0.2, balanced=True)
        ),
        {"flow.noise": 0.1},
    ),
    "boundaries": Training(
        train_boundaries,
        BoundaryTrainer,
        train_boundaries.Options(
            split="train",
            backbone=BackboneNetwork(name="tf_efficientnet_lite0", weights="none"),
            random_walk=BoundaryTraining(steps=STEPS, batch_size=2, crop=32, training_radius=3),
        ),
        {"random_walk.learning_rate": 0.2},
    ),
    "segmentation": Training(
        train_segmentation,
        SegmentationTrainer,
        train_segmentation.Options(
            split="train",
            segmentation=SegmentationTraining(
                backbone="mobilenetv3_small_050",
                weights="none",
                rates=(1,),
                head="aspp_sum",
                frozen_batch_norm=False,
                iterations=STEPS,
                batch_size=2,
                crop=32,
            ),
        ),
        {"segmentation.hsv": 0.0},
    ),
}


def write_data(folder: Path, seed: int, images: int = 6) -> Path:
    """Write what the trainings read: photographs with their index, seed maps, pixel features and
    pseudo-labels.
    """
    random = np.random.default_rng(seed)
    (folder / "masks").mkdir(parents=True)
    records = []
    with (
        write_maps(folder / "seeds.h5", 20) as maps,
        write_pixels(folder / "pixels.h5", 4, 3) as pixels,
    ):
        for number in range(images):
            name, label = str(number), 1 + number % 2
            Image.fromarray(random.integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(
                folder / f"{name}.png"
            )
            records.append(ImageRecord(name, folder / f"{name}.png", 40, 32, (label,)))
            score = random.random((32, 40))
            maps.write(name, np.array([label]), {"classifier": np.stack([1 - score, score])})
            Image.fromarray((label * (score > 0.5)).astype(np.uint8)).save(
                folder / "masks" / f"{name}.png"
            )
            flat, present = score[::4, ::4].ravel(), np.array([True, label == 1, label == 2])
            feature = random.normal(size=(flat.size, 4)) + label
            pixels.append(
                PixelRows(
                    name,
                    (8, 10),
                    present,
                    feature,
                    flat,
                    1 - flat,
                    np.full(flat.size, label),
                    np.arange(flat.size),
                )
            )
    Index(("red", "green"), (1, 2), tuple(records)).write(folder, "train")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_data(tmp_path_factory.mktemp("data"), 0)


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("other"), 1, images=5)


@pytest.fixture(params=list(TRAININGS))
def training(request: pytest.FixtureRequest) -> Training:
    return TRAININGS[request.param]


def stopped(training: Training, after: int, *arguments: Any, **changes: Any) -> int:
    """Run a training that is stopped before the step that follows ``after``; return how many steps
    it took itself.
    """
    taken, step = 0, training.trainer.step

    def counted(self: Any, batch: Any) -> Any:
        nonlocal taken
        if len(self.history) == after:
            raise Stop
        taken += 1
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.trainer, "step", counted)
        with pytest.raises(Stop):
            training.run(*arguments, **changes)
    return taken


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_stopped_twice_it_ends_in_the_bytes_of_an_unbroken_training(
    training: Training, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = training.run(tmp_path / "whole", data, SELDOM)
    assert visible(tmp_path / "whole") == ["history.csv", "result.pt"]
    assert stopped(training, 2, tmp_path / "broken", data, EVERY_STEP) == 2
    assert visible(tmp_path / "broken") == ["result.checkpoint.pt"]
    assert stopped(training, 5, tmp_path / "broken", data, EVERY_STEP) == 3
    capsys.readouterr()
    assert training.run(tmp_path / "broken", data, SELDOM) == whole
    assert "goes on after step 5" in capsys.readouterr().err
    assert visible(tmp_path / "broken") == ["history.csv", "result.pt"]


def test_other_options_or_inputs_and_damage_begin_anew_with_one_line(
    training: Training,
    data: Path,
    other_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def discards(reason: str, where: Path, **changes: Any) -> None:
        assert stopped(training, 1, tmp_path, data, EVERY_STEP) == 1
        capsys.readouterr()
        assert stopped(training, 1, tmp_path, where, SELDOM, **changes) == 1
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if not line.startswith("device: ")]
        assert (
            len(said) == 1
            and said[0].endswith(f"{reason}; the training starts anew")
            and "checkpoint.pt: " in said[0]
        ), said
        assert visible(tmp_path) == []

    discards("other options, inputs or code", data, **training.change)
    discards("other options, inputs or code", other_data)
    checkpoint = tmp_path / "result.checkpoint.pt"
    stopped(training, 1, tmp_path, data, EVERY_STEP)
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    assert stopped(training, 1, tmp_path, data, EVERY_STEP) == 1
    assert "not a torch file of plain tensors; the training starts anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("base", "backbone"),
        ("brnf", "backbone"),
        ("boundaries", "backbone"),
        ("segmentation", "segmentation"),
    ],
)
def test_another_content_of_the_file_of_weights_begins_anew(
    name: str, section: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, weights = TRAININGS[name], tmp_path / "weights.pth"
    torch.manual_seed(0)
    network = getattr(training.options, section)
    backbone = network.backbone if section == "segmentation" else network.name
    state = timm.create_model(backbone, pretrained=False).state_dict()

    def says(reason: str) -> None:
        capsys.readouterr()
        torch.save(state, weights)
        changes = {f"{section}.weights": str(weights)}
        stopped(training, 2, tmp_path / "out", data, EVERY_STEP, **changes)
        assert reason in capsys.readouterr().err

    says("")
    says("goes on after step 2")
    state["conv_stem.weight"] += 1e-3
    says("made with other options, inputs or code; the training starts anew")


def test_a_training_with_another_lambda_is_a_fresh_one_to_the_byte(
    data: Path, tmp_path: Path
) -> None:
    training, other = TRAININGS["brnf"], {"brnf.lambda_cal": 0.5}
    stopped(training, 4, tmp_path / "changed", data, EVERY_STEP)
    result = training.run(tmp_path / "changed", data, SELDOM, **other)
    assert result == training.run(tmp_path / "fresh", data, SELDOM, **other)
    assert result != training.run(tmp_path / "fresh", data, SELDOM)


def test_a_training_that_outlived_its_workflow_leaves_its_last_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TRAININGS["flow"]
    monkeypatch.setenv(CONTROLLER, str(tmp_path / "gone"))
    whole = training.run(tmp_path / "out", data, SELDOM)
    assert "result.checkpoint.pt" in visible(tmp_path / "out")
    for name in (
        "result.pt",
        "history.csv",
    ):  # what Snakemake does with the outputs of a job that it does not believe
        (tmp_path / "out" / name).unlink()
    monkeypatch.delenv(CONTROLLER)
    monkeypatch.setattr(FlowTrainer, "step", None)
    assert training.run(tmp_path / "out", data, SELDOM) == whole
    assert visible(tmp_path / "out") == ["history.csv", "result.pt"]


class Counter:
    """A training whose state is how far it has come."""

    def __init__(self, signal_at: int = -1) -> None:
        self.history: list[Any] = []
        self._signal_at = signal_at

    def step(self, batch: int) -> dict[str, float]:
        if len(self.history) == self._signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.history.append({"loss": torch.rand(()).item()})
        return self.history[-1]

    def pictures(self, batch: int) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: Any) -> None:
        self.history = list(state["history"])


def count(trainer: Counter, checkpoint: Checkpoint) -> list[Any]:
    take_steps("count", trainer, lambda done: range(done, 100), 10, checkpoint, SELDOM)
    return trainer.history


def test_sigterm_ends_after_the_step_with_a_checkpoint_and_the_random_numbers_go_on(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    whole = count(Counter(), Checkpoint(tmp_path / "whole.pt", "a", CPU, 300))
    torch.manual_seed(0)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        count(Counter(signal_at=3), Checkpoint(tmp_path / "x.pt", "a", CPU, 300))
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    torch.manual_seed(1)
    trainer, checkpoint = Counter(), Checkpoint(tmp_path / "x.pt", "a", CPU, 300)
    assert checkpoint.restore(trainer) and len(trainer.history) == 4
    assert count(trainer, checkpoint) == whole


@pytest.mark.parametrize("error", [RuntimeError, ConnectionResetError, EOFError])
def test_a_loading_process_that_ends_by_the_same_sigterm_is_no_fault(
    error: type[Exception], tmp_path: Path
) -> None:
    def batches(done: int) -> Iterator[int]:
        yield 0
        os.kill(os.getpid(), signal.SIGTERM)
        raise error("lost")

    children = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        with pytest.raises(SystemExit) as caught:
            checkpoint = Checkpoint(tmp_path / "x.pt", "a", CPU, 300)
            take_steps("count", Counter(), batches, 10, checkpoint, SELDOM)
        assert caught.value.code == 143
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, "torch would raise, too"
    finally:
        signal.signal(signal.SIGCHLD, children)


def test_checkpoints_keep_their_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = 0.0, []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)

    class Slow(Counter):
        def step(self, batch: int) -> dict[str, float]:
            nonlocal now
            now += 40
            return super().step(batch)

    class Noted(Checkpoint):
        def write(self, trainer: Any) -> None:
            written.append(now)
            super().write(trainer)

    count(Slow(), Noted(tmp_path / "x.pt", "a", CPU, 100))
    assert written == [120, 240, 360]


def test_a_checkpoint_that_cannot_be_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert len(count(Counter(), Checkpoint(tmp_path / "file" / "x.pt", "a", CPU, 0))) == 10
    said = capsys.readouterr().err.splitlines()
    assert (
        len(said) == 1
        and said[0].startswith("warning: ")
        and said[0].endswith("the training goes on without a checkpoint")
    )


def test_a_file_that_is_no_checkpoint_is_discarded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint(tmp_path / "x.pt", "a", CPU, 0)
    torch.save({"weights": torch.zeros(2)}, checkpoint.path)
    assert not checkpoint.restore(Counter()) and not checkpoint.path.exists()
    assert (
        capsys.readouterr().err
        == f"{checkpoint.path}: not a checkpoint; the training starts anew\n"
    )


def test_the_stamp_follows_code_options_device_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "a").write_text("one")
    file.write_text("two")

    def stamp(stage: str = "train_flow", device: str = "cpu", **changes: Any) -> str:
        options = replace(train_flow.Options(), **changes)
        return training_stamp(stage, options, torch.device(device), folder, file, ("class",))

    first = stamp()
    os.utime(file, (1, 1))
    assert stamp() == first  # touched, not changed
    stamps = [first, stamp(seed=1), stamp("train_base"), stamp(device="cuda")]
    file.write_text("three")
    stamps.append(stamp())
    (folder / "a").rename(folder / "b")
    stamps.append(stamp())
    monkeypatch.setattr(checkpoints, "READ_WHOLE", 0)  # as if the files were large
    stamps.append(stamp())
    assert stamp() == stamps[-1]
    os.utime(file, (2, 2))
    stamps.append(stamp())
    assert len(set(stamps)) == len(stamps)
