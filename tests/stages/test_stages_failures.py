"""Failures around a stage end in one line; what can be made again is set aside."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from brnf.errors import DamagedProduct, UserError
from brnf.stages import render_scenes
from brnf.stages._cli import BY_WORKFLOW, run_stage
from brnf.workflow.exit_messages import EXIT_MESSAGES, SHELL_PREFIX

FAULT = "holds values that are not finite"


@dataclass(frozen=True)
class Inputs:
    product: Path


def damaged(inputs: Inputs) -> None:
    raise DamagedProduct(inputs.product, FAULT, "store_pixels")


def mistaken(inputs: Inputs) -> None:
    raise UserError(f"{inputs.product}: is of another kind; give another file")


def crowded(inputs: Inputs) -> None:
    torch.empty(2**60)


def larger(inputs: Inputs) -> None:
    raise MemoryError


def ends(
    run: object, product: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return the line that a stage ends with."""
    monkeypatch.setattr(sys, "argv", ["stage", "--product", str(product)])
    with pytest.raises(SystemExit) as ended:
        run_stage(run)  # type: ignore[arg-type]
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line.removeprefix("error: ").strip()


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_the_workflow_sets_a_damaged_product_aside(
    tmp_path: Path,
    folder: bool,
    earlier: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    product, aside = tmp_path / "product", tmp_path / "product.damaged"
    for path in [product, *([aside] if earlier else [])]:
        if folder:
            path.mkdir()
        (path / "part" if folder else path).write_text(path.name)
    monkeypatch.setenv(BY_WORKFLOW, "1")
    line = ends(damaged, product, monkeypatch, capsys)
    assert (
        line == f"{product}: {FAULT}; it is now product.damaged, run the workflow again: "
        "store_pixels makes it anew"
    )
    assert not product.exists() and (aside / "part" if folder else aside).read_text() == "product"
    assert (
        ends(damaged, product, monkeypatch, capsys) == line
    )  # another job was told the same before


def test_by_hand_nothing_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    product = tmp_path / "product"
    product.write_text("")
    monkeypatch.delenv(BY_WORKFLOW, raising=False)
    assert (
        ends(damaged, product, monkeypatch, capsys)
        == f"{product}: {FAULT}; remove it and run store_pixels again"
    )
    assert product.exists()


def test_a_mistake_of_the_user_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    product = tmp_path / "product"
    product.write_text("")
    monkeypatch.setenv(BY_WORKFLOW, "1")
    assert (
        ends(mistaken, product, monkeypatch, capsys)
        == f"{product}: is of another kind; give another file"
    )
    assert product.exists()


@dataclass(frozen=True)
class Outputs:
    masks: Path


def replacing(inputs: Inputs, outputs: Outputs) -> None:
    pytest.fail("begun")


@pytest.mark.parametrize("masks", ["data/product", ".", "data", "data/../data"])
def test_an_output_that_would_replace_an_input_is_refused(
    tmp_path: Path, masks: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["--product", "data/product", "--masks", masks]
    monkeypatch.setattr(sys, "argv", ["stage", *words])
    with pytest.raises(SystemExit) as ended:
        run_stage(replacing)
    assert ended.value.code == 2
    said = f"error: {Path(masks)}: would replace the input data/product; name another output\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("run", [crowded, larger])
def test_a_lack_of_memory_is_one_line(
    tmp_path: Path, run: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(run, tmp_path, monkeypatch, capsys).startswith("out of memory; lower batch_size")


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB",
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_full_gpu_is_one_line_whichever_library_meets_it(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(inputs: Inputs) -> None:
        raise RuntimeError(words)

    told = ends(full, tmp_path, monkeypatch, capsys)
    assert told.startswith("out of memory; lower batch_size")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [("rho", "1.5", "at most 1"), ("rho", "nan", "a finite number"), ("size", "8", "at least 32")],
)
def test_a_value_out_of_its_keys_bounds_is_one_line_and_writes_nothing(
    tmp_path: Path,
    key: str,
    value: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["stage", "--scenes", str(tmp_path / "scenes"), f"--scenes.{key}", value]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        run_stage(render_scenes.run)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line == f"error: scenes.{key}: is {value}, must be {problem}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_stage_that_dies_is_told_of(tmp_path: Path, number: signal.Signals) -> None:
    """As the rules run it: under Snakemake's prefix, with the errors copied into a log."""
    log = tmp_path / "log"
    command = (
        f"{SHELL_PREFIX} {sys.executable} -c 'import os; os.kill(os.getpid(), {number:d})' "
        f"2> >(tee {log} >&2)"
    )
    told = {**os.environ, **EXIT_MESSAGES}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=told)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: the stage ")]
    assert done.returncode == 128 + number and len(lines) == 1 and "; " in lines[0]


@pytest.mark.parametrize("code", [0, 2, 130])
def test_a_stage_that_ends_itself_is_not_talked_over(code: int) -> None:
    command, told = f"{SHELL_PREFIX} exit {code}", {**os.environ, **EXIT_MESSAGES}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=told)
    assert (done.returncode, done.stderr) == (code, "")
    assert "memory" not in command  # Snakemake shows the command of every job that fails


def test_errors_survive_the_way_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DamagedProduct(Path("a.h5"), "broken\nin two", "evaluate")))
    assert str(
        error
    ) == "a.h5: broken in two; remove it and run evaluate again" and error.path == Path("a.h5")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("two\nlines\r\n\tof text", "two lines of text"),
        ("a name with  two spaces", "a name with  two spaces"),
        ("\x1b[2Jcleared", "\\x1b[2Jcleared"),
        (os.fsdecode(b"\xff.jpg"), "\\xdcff.jpg"),
    ],
)
def test_what_files_hold_cannot_break_the_line(message: str, line: str) -> None:
    assert str(UserError(message)) == line
    long = str(UserError("start" + "x" * 10_000 + "end"))
    assert long.startswith("start") and long.endswith("end") and len(long) < 1300
