"""A training can be watched while it runs, and comes out the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brnf.engine import runtime, watching
from brnf.engine.checkpoint import Checkpoint
from brnf.engine.history import read_history
from brnf.engine.runtime import Runtime
from brnf.engine.trainer import Descent, Row, Trainer, take_steps
from brnf.engine.watching import Watching, check_tensorboard
from brnf.errors import UserError

CPU = torch.device("cpu")
STEPS = 6


class Line(Trainer[Tensor]):
    """Minimise the sum of a batch's products with one weight; note what is there so far."""

    def __init__(self, history: Path, fails_at: int = -1) -> None:
        network = nn.Linear(1, 1, bias=False)
        nn.init.ones_(network.weight)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
        super().__init__(network, Descent(optimiser, lambda done: 1.0, "lower it"), STEPS)
        self._history, self._fails_at = history, fails_at
        self.seen: list[int] = []

    def add_gradient(self, batch: Tensor) -> Row:
        if len(self.history) == self._fails_at:
            raise KeyboardInterrupt
        self.seen.append(len(read_history(self._history)) if self._history.exists() else 0)
        loss = self.network(batch).sum()
        loss.backward()
        return {"loss": loss.item(), "rare": float("nan")}


def trained(folder: Path, runtime: Runtime, fails_at: int = -1) -> Line:
    """Train, from the checkpoint if there is one."""
    torch.manual_seed(0)
    trainer = Line(folder / "history.partial.csv", fails_at)
    checkpoint = Checkpoint(folder / "network.pt", "stamp", CPU, runtime.checkpoint_seconds)
    checkpoint.restore(trainer)
    batches = torch.rand(STEPS, 1, 1, generator=torch.Generator().manual_seed(0))
    take_steps("line", trainer, lambda done: batches[done:], STEPS, checkpoint, runtime)
    return trainer


@pytest.mark.parametrize(("seconds", "seen"), [(0.0, [0, 1, 2, 3, 4, 5]), (900.0, [0] * 6)])
def test_the_history_so_far_is_written_every_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, seen: list[int]
) -> None:
    monkeypatch.setattr(watching, "SECONDS", seconds)
    assert trained(tmp_path, Runtime(progress="none")).seen == seen


def test_a_full_disk_costs_the_view_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, rows: object) -> None:
        raise UserError(f"{path}: the disk is full")

    monkeypatch.setattr(watching, "SECONDS", 0.0)
    monkeypatch.setattr(watching, "write_history", full)
    assert len(trained(tmp_path, Runtime(progress="none")).history) == STEPS


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read TensorBoard's files as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in names}


def test_tensorboard_shows_each_step_once_and_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    plain = trained(tmp_path / "plain", Runtime(progress="none"))
    watched = Runtime(progress="none", checkpoint_seconds=0, tensorboard=True)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "watched", watched, fails_at=3)
    again = trained(tmp_path / "watched", watched)
    assert str(again.history) == str(plain.history)  # nan is not equal to itself
    assert torch.equal(again.network.weight, plain.network.weight)
    found = curves(tmp_path / "watched" / "tensorboard")
    assert list(found) == ["loss"]  # what was not measured is no point
    assert found["loss"] == [
        (step, pytest.approx(row["loss"])) for step, row in enumerate(plain.history, 1)
    ]


def test_pictures_are_made_for_tensorboard_each_time_the_history_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = []

    def pictures() -> dict[str, NDArray[np.uint8]]:
        made.append(True)
        return {"example": np.full((4, 6, 3), len(made), np.uint8)}

    for seconds, wanted in ((900.0, True), (0.0, False), (0.0, True)):
        monkeypatch.setattr(watching, "SECONDS", seconds)
        view = Watching(tmp_path / "network.pt", 0, tensorboard=wanted)
        for step in (1, 2):
            view.add([{"loss": 1.0}] * step, pictures)
        view.close()
    assert len(made) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.height, one.width) for one in events.Images("example")] == [
        (1, 4, 6),
        (2, 4, 6),
    ]


def test_a_training_that_starts_anew_replaces_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for loss in (1.0, 2.0):
        view = Watching(tmp_path / "network.pt", 0, tensorboard=True)
        view.add([{"loss": loss}])
        view.close()
    assert curves(tmp_path / "tensorboard") == {"loss": [(1, 2.0)]}


def test_tensorboard_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "find_spec", lambda name: None)
    check_tensorboard(False)
    with pytest.raises(UserError, match=r"tensorboard: true needs .*; pip install tensorboard"):
        check_tensorboard(True)


@pytest.mark.parametrize(
    ("settings", "processes", "line"),
    [
        ({}, "1", "device: cpu (auto: torch finds no GPU), fp32, 1 thread\n"),
        ({"device": "cpu", "threads": 2}, "1", "device: cpu, fp32, 2 threads\n"),
        ({"device": "cpu"}, "2", "device: cpu, fp32, 1 thread, 2 processes together\n"),
    ],
)
def test_the_log_names_the_device(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, object],
    processes: str,
    line: str,
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    try:
        Runtime(**settings).torch_device()  # type: ignore[arg-type]
        Runtime(**settings).torch_device(told=False)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)
    assert capsys.readouterr().err == line


def test_only_the_first_of_several_processes_names_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "FIRST", False)
    before = torch.get_num_threads()
    Runtime(device="cpu").torch_device()
    torch.set_num_threads(before)
    assert capsys.readouterr().err == ""
