"""Full and forbidden disks: one line that names the output, nothing half written, what was there
before is kept.
"""

import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brnf.config.sections.flow import FlowArchitecture
from brnf.data.archives import extract_archive
from brnf.data.masks import write_palette_png
from brnf.engine.history import write_history
from brnf.errors import UserError
from brnf.evaluate.tables import write_table
from brnf.flow.density import FlowDensity
from brnf.flow.saved import save_density
from brnf.store.files import atomic_directory, atomic_file, locked
from brnf.store.maps import write_maps
from brnf.store.pixels import PixelRows, write_pixels
from brnf.store.records import write_records
from brnf.store.tensors import write_tensors

ROOM = 256 * 1024
RANDOM = np.random.default_rng(0)


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[bool]:
    """Mount something on a folder, where that is allowed."""
    worked = False
    if os.geteuid() == 0 and shutil.which("mount"):
        done = subprocess.run(["mount", *words, str(folder)], capture_output=True, check=False)
        worked = done.returncode == 0
    try:
        yield worked
    finally:
        if worked:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["disk", "limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk with room for 256 KiB; where none can be mounted, files of this
    process stay that small instead.
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs") as worked:
        if worked and request.param == "disk":
            yield folder
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
        try:
            yield tmp_path
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def maps(path: Path) -> None:
    with write_maps(path, 20) as writer:
        for number in range(60):
            writer.write(
                f"image{number}",
                np.array([1]),
                {"seeds": RANDOM.random((2, 60, 60)).astype(np.float32)},
            )


def pixels(path: Path) -> None:
    rows = 400
    with write_pixels(path, 32, 3) as writer:
        for number in range(60):
            score, present = RANDOM.random(rows), np.array([True, True, False])
            feature = RANDOM.random((rows, 32))
            writer.append(
                PixelRows(
                    f"image{number}",
                    (20, 20),
                    present,
                    feature,
                    score,
                    score,
                    np.ones(rows),
                    np.arange(rows),
                )
            )


def tensors(path: Path) -> None:
    write_tensors(path, {"a": torch.rand(400, 400)})


def density(path: Path) -> None:
    save_density(path, FlowDensity(128, 3, FlowArchitecture(blocks=4)))


def masks(path: Path) -> None:
    with atomic_directory(path) as folder:
        for number in range(30):
            write_palette_png(
                folder / f"{number}.png", RANDOM.integers(0, 255, (700, 700), dtype=np.uint8)
            )


def table(path: Path) -> None:
    write_table(pd.DataFrame(RANDOM.random((9000, 10))), path)


def history(path: Path) -> None:
    write_history(path, [{"loss": float(value)} for value in RANDOM.random(50_000)])


def text(path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("x" * 10**6)


WRITERS = (maps, pixels, tensors, density, masks, table, history, text)


def told(path: Path, write: Callable[[Path], None]) -> str:
    with pytest.raises(UserError, match=r"^[^\n]+; [^\n]+$") as error:
        write(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    full: Path, write: Callable[[Path], None], capfd: pytest.CaptureFixture
) -> None:
    before, path = full / "finished", full / "output"
    before.write_text("finished")
    if write is not masks:
        path.write_text("older")
    assert "No space left" in (line := told(path, write)) or "File too large" in line
    assert {entry for entry in full.iterdir() if not entry.is_dir()} == {before} | (
        {path} if write is not masks else set()
    )
    assert before.read_text() == "finished" and (write is masks or path.read_text() == "older")
    assert not [entry for entry in full.rglob("*.part")]
    assert capfd.readouterr().err == ""  # HDF5 has much to say about disks


def test_an_archive_that_does_not_fit_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    np.savez_compressed(tmp_path / "packed.npz", zeros=np.zeros(10**6))
    with mounted(folder, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs") as worked:
        limit = {} if worked else {"most_bytes": ROOM}
        with pytest.raises(UserError, match=r"packed\.npz: unpacks to [^\n]+; [^\n]+$"):
            extract_archive(tmp_path / "packed.npz", folder / "output", **limit)
        assert list(folder.iterdir()) == []


def test_records_name_the_file_that_was_asked_for(full: Path) -> None:
    def write(path: Path) -> None:
        with atomic_file(path) as temporary:
            write_records(temporary, 4, [np.zeros((1, ROOM), np.uint8)] * 4)

    told(full / "records", write)
    assert not (full / "records").exists()


def as_nobody(call: Callable[[], None]) -> str:
    """Run something in a process without root's rights, and return what a user is told."""

    def run(connection: multiprocessing.connection.Connection) -> None:
        with suppress(PermissionError):  # an ordinary user stays who it is
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            call()
            connection.send("no error")
        except UserError as error:
            connection.send(str(error))
        except BaseException as error:
            connection.send(f"{type(error).__name__}: {error}")

    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=run, args=(sending,))
    process.start()
    answer = receiving.recv()
    process.join()
    return str(answer)


def lock(path: Path) -> None:
    with locked(path):
        pass


@pytest.mark.parametrize("write", [*WRITERS, lock], ids=lambda write: write.__name__)
@pytest.mark.parametrize("how", ["permission", "mount"])
def test_a_read_only_folder_is_one_line(write: Callable[[Path], None], how: str) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own lies in one that others may not enter
    try:
        folder.chmod(0o755)
        (folder / "results").mkdir(mode=0o755)
        results = folder / "results"
        results.chmod(0o555)
        words = ("--bind", "-o", "ro", str(results))
        if how == "mount":
            with mounted(results, *words) as worked:
                path = results / "deeper" / "output"
                line = told(path, write) if worked else as_nobody(lambda: write(path))
                assert "Read-only" in line if worked else "Permission denied" in line
        else:
            path = results / "output"
            line = as_nobody(lambda: write(path))
            assert line.startswith(
                f"{path}: cannot be written (Permission denied); mend the permissions"
            )
        assert list(results.iterdir()) == []
    finally:
        (folder / "results").chmod(0o755)
        (folder / "results").rmdir()
        folder.rmdir()


def test_a_file_where_a_folder_must_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for write in (text, lock):
        assert (
            "Not a directory" in (line := told(tmp_path / "results" / "output", write))
            or "File exists" in line
        )
