"""The CRF's machine code: kept, found again without numba, and never half of it."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brnf.segment import compiled

ROOT = Path(__file__).parents[2]
OWN_LOADER = sys.platform == "linux" and os.uname().machine == "x86_64"
"""Whether kept code is loaded without LLVM here."""
REFINE = """
import hashlib, sys
import numpy as np
from brnf.config.sections.segmentation import Crf
from brnf.segment.crf import dense_crf
assert not {"numba", "llvmlite", "torch"} & set(sys.modules), "imported before there is a CRF"
random = np.random.default_rng(0)
image = random.integers(0, 256, (20, 30, 3), np.uint8)
probability = random.dirichlet(np.ones(4), (20, 30)).transpose(2, 0, 1).astype(np.float32)
found = dense_crf(image, probability, Crf())
print(hashlib.sha256(found.tobytes()).hexdigest(), *{"numba", "llvmlite"} & set(sys.modules))
"""


def refine(cache: Path) -> subprocess.Popen[str]:
    """Start a process that refines an image; its machine code is kept in ``cache``."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", REFINE], env=environment, **pipes)


def test_processes_that_compile_at_once_and_a_folder_that_keeps_nothing(tmp_path: Path) -> None:
    closed = tmp_path / "file"
    closed.write_text("")  # no folder can be made below it, by root neither
    processes = [refine(folder) for folder in (tmp_path / "a", tmp_path / "a", closed)]
    told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    results = {out.split()[0] for out, _ in told}
    assert len(results) == 1, "kept or not, by one loader or the other"
    assert "compiled in" in told[0][1] and "kept in" in told[0][1]
    assert "not kept in" in told[2][1] and "numba" in told[2][0].split()
    assert [file.suffix for file in (tmp_path / "a" / "brnf").iterdir()] == [".o"]
    again = refine(tmp_path / "a")
    out, error = again.communicate()
    loader = [] if OWN_LOADER else ["llvmlite"]
    assert out.split() == [*results, *loader] and error == ""


def test_only_what_is_whole_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "compile_object", lambda: b"code")
    assert compiled._kept() is None
    assert compiled._compiled() == b"code" and compiled._kept() == b"code"
    (kept,) = (tmp_path / "brnf").iterdir()
    for spoilt in (kept.read_bytes()[:-1], kept.read_bytes() + b"x", b"", b"\0" * 40):
        kept.write_bytes(spoilt)
        assert compiled._kept() is None
        compiled._compiled()
        assert compiled._kept() == b"code"


def keep_repeatedly(path: Path, content: bytes) -> None:
    for _ in range(200):
        compiled._keep(path, hashlib.sha256(content).digest() + content)


def test_a_reader_never_sees_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dense-crf.o"
    monkeypatch.setattr(compiled, "_file", lambda: path)
    contents = [letter * 200_000 for letter in (b"a", b"b")]
    keep_repeatedly(path, contents[0])
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=keep_repeatedly, args=(path, each)) for each in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert compiled._kept() in contents
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644, "other users of a shared folder read it, too"


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert compiled.cache_folder() is None and compiled._file() is None and compiled._kept() is None
    monkeypatch.setenv("HOME", "/home/someone")
    assert compiled.cache_folder() == Path("/home/someone/.cache/brnf")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert compiled.cache_folder() == Path("/fast/brnf")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/faster")
    assert compiled.cache_folder() == Path("/faster/brnf")


def test_another_source_or_processor_has_another_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/cache")
    names = {compiled._file()}
    for name in compiled.SOURCES:
        shutil.copy(Path(compiled.__file__).with_name(name), tmp_path / name)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    assert names == {compiled._file()}
    for name in compiled.SOURCES:
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        names.add(compiled._file())
    monkeypatch.setattr(compiled, "describe_processor", lambda: "another processor")
    names.add(compiled._file())
    monkeypatch.setattr(compiled, "version", lambda package: f"{package} 2")
    names.add(compiled._file())
    assert len(names) == 6


def test_llvm_is_asked_for_the_processor_where_linux_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import llvmlite.binding as llvm

    monkeypatch.setenv("NUMBA_CACHE_DIR", "/cache")
    monkeypatch.setattr(compiled, "describe_processor", lambda: None)
    names = {compiled._file()}
    assert names == {compiled._file()}
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "other")
    names.add(compiled._file())
    assert len(names) == 2


@pytest.mark.parametrize("spoilt", ["kind", "order", "count"])
def test_a_kernel_refuses_arrays_that_it_would_misread(spoilt: str) -> None:
    offsets, weights = np.zeros((4, 3), np.int32), np.ones((4, 3), np.float32)
    if spoilt == "kind":
        weights = weights.astype(np.float64)
    if spoilt == "order":
        weights = np.asfortranarray(weights)
    values: list[np.ndarray] = [] if spoilt == "count" else [np.zeros(1, np.float32)]
    with pytest.raises((TypeError, compiled.ctypes.ArgumentError)):
        compiled.kernels()["splat_one"](4, 3, offsets, weights, *values)
