"""GPUs are counted without torch, and a log tells why none is used."""

from pathlib import Path

import pytest
import torch

from brnf.engine import cuda, runtime
from brnf.engine.cuda import unusable_reason, visible_gpus

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version."
)


def device_files(folder: Path, count: int) -> Path:
    for name in (*(f"nvidia{number}" for number in range(count)), "nvidiactl", "nvidia-uvm"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("0", 1),
        ("2,3", 2),
        ("", 0),
        ("-1", 0),
        ("0,-1,1", 1),
        ("1,4,2", 1),  # there is no fourth; CUDA reads no further
        ("GPU-8932f937,GPU-1b2c", 2),
        ("NoDevFiles", 0),
    ],
)
def test_gpus_are_counted_as_cuda_sees_them(
    tmp_path: Path, visible: str | None, count: int
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert visible_gpus(environment, device_files(tmp_path, 4)) == count


def test_a_machine_without_a_gpu_has_none_whatever_a_variable_says(tmp_path: Path) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, tmp_path) == 0


@pytest.mark.parametrize(("status", "count"), [(0, 2), (9, 0)])
def test_without_device_files_the_driver_s_program_is_asked(
    tmp_path: Path, status: int, count: int
) -> None:
    program = tmp_path / "nvidia-smi"
    lines = "\n".join(f"echo 'GPU {number}: NVIDIA A100 (UUID: GPU-x)'" for number in range(2))
    program.write_text(f"#!/bin/sh\n{lines}\nexit {status}\n")
    program.chmod(0o755)
    assert visible_gpus({"PATH": str(tmp_path)}, tmp_path) == count


@pytest.mark.parametrize(
    ("gpus", "version", "reason"),
    [
        (0, "13.0", "torch finds no GPU"),
        (1, None, "there is a GPU, but this torch is built without CUDA"),
        (
            1,
            "13.0",
            "there is a GPU, but CUDA 13.0 cannot be used: The NVIDIA driver on your system is too "
            "old (found version 11040)",
        ),
    ],
)
def test_a_log_tells_why_no_gpu_is_used(
    monkeypatch: pytest.MonkeyPatch, gpus: int, version: str | None, reason: str
) -> None:
    def refuse() -> None:
        raise RuntimeError(OLD_DRIVER)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(cuda, "visible_gpus", lambda: gpus)
    assert unusable_reason() == reason


def test_a_log_names_device_capability_driver_and_cuda(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "version").write_text("580.82.07\n")
    monkeypatch.setattr(cuda, "DRIVER_VERSION", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    described = cuda.describe_gpu(torch.device("cuda:0"))
    assert described == "NVIDIA H200, capability 9.0, driver 580.82.07, CUDA 13.0"


@pytest.mark.parametrize(
    ("device", "count", "chosen", "asked"),
    [
        ("cpu", 1, "cuda:0", False),
        ("auto", 0, "cuda:0", False),
        ("auto", 1, "cuda:0", True),
        ("auto", 1, "cpu", True),  # its driver is too old
        ("cuda:1", 0, "cuda:1", True),
    ],
)
def test_a_gpu_is_claimed_only_where_one_may_be(
    device: str, count: int, chosen: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = []

    def claim(self: runtime.Runtime) -> torch.device:
        claims.append(self.device)
        return torch.device(chosen)

    monkeypatch.setattr(runtime, "visible_gpus", lambda: count)
    monkeypatch.setattr(runtime.Runtime, "torch_device", claim)
    found = runtime.Runtime(device=device).gpu()
    assert claims == [device] * asked
    assert found == (torch.device(chosen) if asked and chosen != "cpu" else None)
