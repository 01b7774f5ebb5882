"""Locks of outputs: held by processes that live and by no other, and what killed writers leave is
removed.
"""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brnf.errors import UserError
from brnf.store import files
from brnf.store.files import atomic_directory, atomic_file, is_held, locked

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from brnf.store.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(output: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock of an output until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_writer_is_told_which_process_is_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_GRACE", 0.1)
    output = tmp_path / "new" / "out.pt"
    with holder(output) as process:
        assert is_held(tmp_path / "new" / ".out.pt.lock")
        with (
            pytest.raises(
                UserError, match=rf"out\.pt: process {process.pid} on \S+ is writing this output"
            ),
            locked(output),
        ):
            pytest.fail("two writers")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not is_held(
            tmp_path / "new" / ".out.pt.lock"
        )  # the file is there, its holder is not
        with locked(output):
            pass
    assert list((tmp_path / "new").iterdir()) == []


def test_a_lock_that_is_about_to_be_freed_is_waited_for(tmp_path: Path) -> None:
    output, order = tmp_path / "out.pt", []

    def second() -> None:
        with locked(output, patience=300):
            order.append("second")
            assert is_held(
                tmp_path / ".out.pt.lock"
            )  # of the new file, not of the one that the first has removed

    with locked(output):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(timeout=300)
    assert order == ["first", "second"] and not is_held(tmp_path / ".out.pt.lock")


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "out.pt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out", "out[1]"])
@pytest.mark.parametrize("whole", [atomic_file, atomic_directory])
def test_remains_of_killed_writers_are_removed(
    tmp_path: Path, whole: Callable[[Path], object], name: str
) -> None:
    (tmp_path / f".{name}.1.part").write_text("half")
    (tmp_path / f".{name}.2.part").mkdir()
    (tmp_path / f".{name}.2.part" / "half").write_text("half")
    (tmp_path / f".{name}.old.part").mkdir()
    (tmp_path / f".{name}.h5.1.part").write_text("of another output")
    with whole(tmp_path / name) as temporary:  # type: ignore[attr-defined]
        (temporary / "file" if temporary.is_dir() else temporary).write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{name}.h5.1.part", name]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_directory(tmp_path / "above" / "out") as folder:
            (folder / content).write_text(content)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [
        "above",
        "above/out",
        "above/out/.brnf",
        "above/out/new",
    ]


def foreign(folder: Path) -> Path:
    folder.mkdir()
    (folder / "photo.jpg").write_text("mine")
    return folder


def test_what_others_made_is_not_replaced(tmp_path: Path) -> None:
    out = foreign(tmp_path / "out")
    said = r"out: holds photo\.jpg and was not written by this program, and stays; move it away"
    with pytest.raises(UserError, match=said), atomic_directory(out):
        pytest.fail("begun")
    with pytest.raises(UserError, match=said), atomic_directory(tmp_path / "late" / "out"):
        foreign(tmp_path / "late" / "out")  # while the block runs
    with pytest.raises(UserError, match="link: holds photo"), atomic_directory(tmp_path / "link"):
        (tmp_path / "link").symlink_to(out)
    assert (out / "photo.jpg").read_text() == "mine"
    assert (tmp_path / "late" / "out" / "photo.jpg").read_text() == "mine"
    with pytest.raises(UserError, match="out: cannot be written"), atomic_file(out) as temporary:
        temporary.write_text("new")
    assert (out / "photo.jpg").read_text() == "mine"


def test_an_empty_folder_and_a_link_to_an_own_one_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("real", "empty"):
        with atomic_directory(tmp_path / name) as folder:
            (folder / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_directory(tmp_path / "link") as folder:
        (folder / "new").touch()
    assert (tmp_path / "link" / "new").exists() and not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "old").exists() and (tmp_path / "empty" / "old").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_once_and_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_told", [])
    for name in ("one.pt", "two.pt"):
        with locked(tmp_path / name), atomic_file(tmp_path / name) as temporary:
            temporary.write_text("done")
            lock = files.lock_file(tmp_path / name)
            assert not is_held(lock) and is_held(lock, unknown=True)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{tmp_path}: its file system has no locks (" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pt", "two.pt"]
    with (tmp_path / "one.pt").open() as handle, pytest.raises(files.NoLocksError):
        files.try_lock(handle)


def test_other_errors_of_locking_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(files.fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "one.pt"):
        pytest.fail("locked")
