"""The script for a GPU, tried on the CPU, and its stages on a device that refuses to be mixed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brnf.engine import distributed, map_shards
from brnf.engine.cuda import unusable_reason
from brnf.engine.runtime import Runtime
from brnf.store.maps import MapWriter
from tests.gpu import __main__ as script
from tests.gpu import compare, machine, stages
from tests.gpu.chain import CALLS, Call, Chain
from tests.gpu.compare import TOLERANCES, difference
from tests.gpu.draws import same_draws
from tests.gpu.result import Context, NeedsGpuError, Result
from tests.pretended_device import DEVICE, counted

NAMES = [call.name for call in CALLS]
FEW = [call for call in CALLS if call.name in ("train_flow", "train_segmentation (VOC)")]
WITHOUT_EQUAL_BYTES = {
    "adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "bincount",
    "grid_sampler_2d_backward",
    "histc",
    "max_unpool2d",
    "median",
    "nll_loss2d_backward",
    "nll_loss2d_forward",
    "nll_loss_forward",
    "put_",
    "reflection_pad2d_backward",
    "scatter_reduce",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
}
"""What torch.use_deterministic_algorithms says a GPU has no other way for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the run on the CPU."""
    place = tmp_path_factory.mktemp("gpu")
    torch.set_num_threads(1)
    assert all(result.passed for result in stages.prepare(Context("cpu", place, "prepare")))
    return place


class _Names(TorchDispatchMode):
    """Note the names of operations that meet a tensor of the pretended device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        leaves = tree_leaves((arguments, named or {}))
        if any(isinstance(value, Tensor) and value.device == DEVICE for value in leaves):
            self.found.add(function.__name__.split(".")[0])
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_no_stage_mixes_devices_nor_lacks_a_way_to_equal_bytes(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    chain, names = Chain(folder), _Names()
    chain.clip  # noqa: B018, it is made on the CPU
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            counted() as found,
            names,
            # Values are made up: no process was ended, and labels are not those of the image.
            mock.patch.object(distributed, "any_rank", lambda flag, device: flag),
            mock.patch.object(MapWriter, "write", lambda *_: None),
            mock.patch.object(MapWriter, "write_packed", lambda *_: None),
            mock.patch.object(map_shards, "pack_maps", lambda *_: None),
        ):
            chain.run(call, tmp_path, Runtime(device="meta", workers=0, progress="none"))
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
    assert found.kernels.total() > 100, "the stage has computed on the device"
    # Both have another way: torch takes the first apart, brnf.segment.loss the second.
    other_way = {"upsample_bilinear2d_backward", "nll_loss2d_forward", "nll_loss2d_backward"}
    assert not names.found & WITHOUT_EQUAL_BYTES - other_way


@pytest.mark.parametrize("name", ["compute_cams", "store_pixels", "train_brnf", "train_flow"])
def test_a_stage_agrees_with_itself_and_a_wrong_one_does_not(name: str, folder: Path) -> None:
    context = Context("cpu", folder, f"agree {name}")
    call = next(call for call in CALLS if call.name == name)
    assert stages._compared(context, context.chain, call, "fp32").passed
    exact = torch.nn.functional.conv2d if name != "train_flow" else torch.addmm
    owner = torch.nn.functional if name != "train_flow" else torch

    def wrong(*arguments: Any, **named: Any) -> Tensor:
        return exact(*arguments, **named) * 1.01

    with mock.patch.object(owner, exact.__name__, wrong):
        found = stages._compared(context, context.chain, call, "fp32")
    assert not found.passed and "differ by" in found.found


def test_masks_and_figures_that_differ_are_seen(folder: Path, tmp_path: Path) -> None:
    chain = Chain(folder)
    for kind, name in (("masks", "walked"), ("figures", "sweep.json")):
        assert difference(kind, chain.file(name), chain.file(name)) == (kind, 0)
    with mock.patch.object(np, "asarray", lambda image: np.array(image) + id(image) % 7):
        assert compare._masks(chain.file("walked"), chain.file("walked")) > 0
    text = chain.file("sweep.json").read_text().replace('"raw_miou": 0', '"raw_miou": 1')
    (tmp_path / "sweep.json").write_text(text)
    assert difference("figures", tmp_path / "sweep.json", chain.file("sweep.json"))[1] >= 1
    assert all(set(row) == {"fp32", "tf32", "bf16", "fp16"} for row in TOLERANCES.values())


def test_equal_bytes_twice_and_after_a_break(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "CALLS", FEW)
    monkeypatch.setattr(stages, "TRAININGS", FEW)
    for check in (stages.twice, stages.broken_off):
        found = list(check(Context("cpu", folder, check.__name__)))
        assert len(found) == len(FEW) and all(result.passed for result in found), found
        assert all("equal bytes" in result.found for result in found)
    changed = folder / "twice" / "second" / FEW[0].outputs["history"]
    changed.write_text(changed.read_text() + "1")
    said, passed = stages._same(folder / "twice" / "first", changed.parent, FEW[0])
    assert not passed and said == f"{changed.name} differ"


def test_one_process_joins_a_group(folder: Path) -> None:
    found = list(machine.one_rank(Context("cpu", folder, "one_rank")))
    assert [result.passed for result in found] == [True, True], found
    assert found[0].found.startswith("gloo: all_reduce") and found[1].found == "equal bytes"


@pytest.mark.parametrize("check", [machine.out_of_memory, machine.one_gpu_for_two])
def test_what_means_nothing_on_a_cpu_says_so(check: script.Check, tmp_path: Path) -> None:
    with pytest.raises(NeedsGpuError):
        list(check(Context("cpu", tmp_path, "none")))


def test_draws_are_the_same_on_every_device() -> None:
    with same_draws():
        one, other = (torch.Generator(device).manual_seed(3) for device in ("cuda:0", "cpu"))
        drawn = [torch.randn(4, generator=each, device="cpu") for each in (one, other)]
        order = [torch.randperm(9, generator=each, device="cpu") for each in (one, other)]
        kept = torch.nn.Dropout(0.25)(torch.ones(10_000))
    assert torch.equal(*drawn) and torch.equal(*order)
    assert abs(float((kept > 0).float().mean()) - 0.75) < 0.02
    assert float(kept.max()) == pytest.approx(1 / 0.75)


@pytest.mark.skipif(not unusable_reason(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 0
    assert capsys.readouterr().out == f"test-gpu: skipped: {unusable_reason()}\n"


def passing(context: Context) -> Iterator[Result]:
    yield Result("one", "as it has to be")


def failing(context: Context) -> Iterator[Result]:
    yield Result("one", "as it has to be")
    yield Result("two", "otherwise", False)


def silent(context: Context) -> Iterator[Result]:
    yield from ()


@pytest.mark.parametrize(("check", "status"), [(passing, 0), (failing, 1), (silent, 1)])
def test_a_check_fails_by_any_of_its_lines_and_by_none(
    check: script.Check, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = script.Listed(f"test.{check.__name__}", check.__name__, "shown", 1)
    monkeypatch.setitem(script.CHECKS, "shown", listed)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, f"tests.gpu.{listed.module}", sys.modules[__name__])
    assert script.run_check("shown", "cpu", tmp_path) == status


def test_the_table_tells_what_each_check_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {"prepare": 0, "out_of_memory": script.NEEDS_GPU, "twice": 1}
    sleeps = "import sys, time; time.sleep(60 * (sys.argv[1] == 'one_rank'))"

    def status(command: list[str], seconds: float) -> str:
        name = command[command.index("--check") + 1]
        code = f"{sleeps}; sys.exit({ends.get(name, 0)})"
        return real([sys.executable, "-c", code, name], 2 if name == "one_rank" else seconds)

    real = script._status
    monkeypatch.setattr(script, "_status", status)
    names = ["prepare", "out_of_memory"]
    assert script.run_all(names, "cpu", tmp_path, 100) == 0
    for name, told in (("twice", "FAILED"), ("one_rank", "took too long")):
        assert script.run_all([*names, name], "cpu", tmp_path, 100) == 1
        assert f"| {script.CHECKS[name].shown} | {told} |" in capsys.readouterr().out
    ends["prepare"] = 1
    assert script.run_all(names, "cpu", tmp_path, 100) == 1
    said = capsys.readouterr().out
    assert f"| {script.CHECKS['out_of_memory'].shown} | not run |" in said
    assert sum(one.seconds for one in list(script.CHECKS.values())) <= 1.5 * script.SECONDS
