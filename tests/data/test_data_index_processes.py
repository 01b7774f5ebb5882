"""The index is the same to the byte however many processes read the images and wherever a run was
cut, and what was read once is not read again.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data import contents, index_lists, probing
from brnf.data.file_table import KnownFiles, Seen, TableWriter, parts, read_part, read_table
from brnf.data.images import Header, image_header
from brnf.data.masks import write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.index_images import Inputs, Options, Outputs, run

COUNT = 12


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of photographs, every third with a mask; one is turned upright."""
    random = np.random.default_rng(0)
    lines = ["image,labels,mask,split"]
    for number in range(COUNT):
        exif = Image.Exif()
        exif[0x0112] = 3 if number == 5 else 1
        picture = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        picture.save(tmp_path / f"p{number:02}.jpg", exif=exif)
        mask = f"m{number}.png" if number % 3 == 0 else ""
        value = number % 2 + 1
        if mask:
            write_palette_png(tmp_path / mask, np.full((6, 8), value, np.uint8))
        lines.append(f"p{number:02}.jpg,{value},{mask},{'val' if number % 4 == 0 else 'train'}")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "own.csv"


def indexed(table: Path, index: Path, workers: int = 0, **dataset: bool) -> dict[str, bytes]:
    """Index a table and return the bytes of every file of the index."""
    options = Options(IndexedImages(kind="table", **dataset), shards=3)
    run(Inputs(table=table), Outputs(index), options, Runtime(workers=workers, progress="none"))
    return {str(path.relative_to(index)): path.read_bytes() for path in files_in(index)}


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def cut_after(images: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a run be cut when so many photographs are decoded; return a list of their names."""
    decoded: list[str] = []

    def read(path: Path) -> Header:
        if len(decoded) == images:
            raise KeyboardInterrupt
        decoded.append(path.stem)
        return image_header(path)

    monkeypatch.setattr(probing, "checked_header", read)
    return decoded


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bytes_do_not_depend_on_the_number_of_processes(
    table: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = indexed(table, tmp_path / "alone")
    monkeypatch.setattr(probing, "CHUNK", 2)
    monkeypatch.setattr(index_lists, "BUFFERED", 2)
    assert indexed(table, tmp_path / "together", workers) == alone
    seen, again = ((tmp_path / f"{name}.files.csv").read_bytes() for name in ("alone", "together"))
    assert seen == again
    assert "1 photographs are turned" in alone["summary.md"].decode()


def test_a_run_that_was_cut_twice_goes_on_to_the_same_bytes(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = indexed(table, tmp_path / "whole")
    names = [f"p{number:02}" for number in range(COUNT)]
    for done, images in ((0, 5), (5, 3)):
        decoded = cut_after(images, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            indexed(table, tmp_path / "index")
        assert decoded == names[done : done + images]
    decoded = cut_after(COUNT, monkeypatch)
    assert indexed(table, tmp_path / "index") == whole and decoded == names[8:]
    assert not list(tmp_path.glob("index.files.c[hu]*"))


def test_a_row_that_was_cut_in_its_middle_is_read_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = indexed(table, tmp_path / "whole")
    cut_after(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        indexed(table, tmp_path / "index")
    checkpoint = tmp_path / "index.files.checkpoint.csv"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    decoded = cut_after(COUNT, monkeypatch)
    assert indexed(table, tmp_path / "index") == whole and decoded[:2] == ["p04", "p05"]


def test_a_photograph_that_changed_after_the_cut_is_read_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        indexed(table, tmp_path / "index")
    changed = tmp_path / "p01.jpg"
    changed.write_bytes(changed.read_bytes() + b"more")
    decoded = cut_after(COUNT, monkeypatch)
    found = indexed(table, tmp_path / "index")
    assert decoded == ["p01", *(f"p{number:02}" for number in range(5, COUNT))]
    monkeypatch.undo()
    assert found == indexed(table, tmp_path / "anew")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_has_not_changed_is_not_opened(
    table: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = indexed(table, tmp_path / "index")

    def opened(*words: object) -> None:
        raise AssertionError(words)

    for name in ("checked_header", "image_header", "image_size", "count_mask", "read_values"):
        monkeypatch.setattr(probing, name, opened)
    monkeypatch.setattr(contents, "_digest", opened)
    assert indexed(table, tmp_path / "index", workers) == first
    os.utime(tmp_path / "p03.jpg", (1, 1))
    with pytest.raises(AssertionError, match=r"p03\.jpg"):
        indexed(table, tmp_path / "index", workers)


@pytest.mark.parametrize("workers", [0, 3])
def test_the_first_mistake_by_order_is_told(
    table: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "CHUNK", 2)
    write_palette_png(tmp_path / "m3.png", np.full((6, 8), 77, np.uint8))
    for name in ("p07", "p10"):
        (tmp_path / f"{name}.jpg").write_bytes(b"none")
    with pytest.raises(
        UserError, match=r"^[^\n]+m3\.png: holds 77, [^\n]+\(3 bad images in all: p03, p07, p10\)$"
    ):
        indexed(table, tmp_path / "index", workers)
    found = indexed(table, tmp_path / "index", workers, skip_bad=True)
    assert "9 images, 2 classes" in found["summary.md"].decode()
    assert [line[:3] for line in found["splits/train.csv"].decode().splitlines()[1:]] == [
        "p01", "p02", "p05", "p06", "p09", "p11",
    ]  # fmt: skip


DIE = """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from brnf.data.pipeline import _begin

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, initializer=_begin)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_a_stage_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "die.py").write_text(DIE)
    # It is not waited for by reading to the end of its output, which the process may hold open.
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "die.py")], stdout=subprocess.PIPE, text=True
    ) as stage:
        assert stage.stdout is not None
        worker = int(stage.stdout.readline())
        assert stage.wait() == -signal.SIGKILL
        while Path(f"/proc/{worker}/cmdline").exists() and _command(worker):
            time.sleep(0.1)  # the limit of the test ends a wait for ever


def _command(process: int) -> bytes:
    """Return the command line of a process, nothing of one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_table_of_files_finds_its_rows(tmp_path: Path) -> None:
    names = ["a", 'b"\r\n,c', os.fsdecode(b"caf\xe9"), *(f"more/{i}" for i in range(3000))]
    rows = [(name, Seen((i, 2, 3, 4), f"{i:032x}", i % 2 == 0, "1 2 1 0")) for i, name in
            enumerate(names)]  # fmt: skip
    writer = TableWriter(tmp_path / "files.csv")
    writer.add(rows)
    writer.close()
    assert list(read_table(tmp_path / "files.csv")) == rows
    known = KnownFiles(tmp_path / "none.csv", tmp_path / "files.csv")
    assert [known.get(name) for name, _ in rows] == [seen for _, seen in rows]
    assert known.get("b") is None
    later = TableWriter(tmp_path / "later.csv")
    later.add([("a", Seen((9, 9, 9, 9), "later"))])
    later.close()
    with (tmp_path / "files.csv").open("ab") as file:  # of two rows of a file the later one counts
        file.write(b"more/0,7,7,7,7,again,True,1 2 1 0\r\n")
    twice = KnownFiles(tmp_path / "files.csv")
    assert [twice.get(name).digest for name in ("a", "more/0")] == [f"{0:032x}", "again"]  # type: ignore[union-attr]
    both = KnownFiles(tmp_path / "none.csv", tmp_path / "later.csv")
    assert both.get("more/0") is None
    both = KnownFiles(tmp_path / "files.csv", tmp_path / "later.csv")
    assert [both.get(name).digest for name in ("a", "more/0")] == ["later", "again"]  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_the_parts_of_a_table_hold_all_rows(tmp_path: Path, count: int) -> None:
    names = [f"{i}/b\r\n,c" if i % 3 == 0 else f"more/{i}" for i in range(200)]
    rows = [(name, Seen((i, 2, 3, 4), f"{i:032x}", True, "1 2 1 0")) for i, name in
            enumerate(names)]  # fmt: skip
    writer = TableWriter(tmp_path / "files.csv")
    writer.add(rows)
    writer.close()
    places = parts(tmp_path / "files.csv", count)
    assert count / 2 <= len(places) <= count
    assert [row for place in places for row in read_part(tmp_path / "files.csv", *place)] == rows


def test_processes_find_what_has_changed(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(table, tmp_path / "index")
    monkeypatch.setattr(contents, "AT_ONCE", 10)
    monkeypatch.setattr(contents, "PROBED", 2)
    monkeypatch.setattr(contents, "BYTES_A_PROCESS", 500)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(3))
    state = contents.data_state(tmp_path / "index")
    assert state == contents.FIRST
    os.utime(tmp_path / "p11.jpg", (1, 1))
    assert contents.data_state(tmp_path / "index") == state
    changed = tmp_path / "p11.jpg"
    changed.write_bytes(changed.read_bytes() + b"more")
    by_processes = contents.data_state(tmp_path / "index")
    monkeypatch.setattr(contents, "BYTES_A_PROCESS", 10**9)
    assert state != by_processes == contents.data_state(tmp_path / "index")
