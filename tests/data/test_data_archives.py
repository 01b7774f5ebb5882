"""Archives: what they hold lands in the folder, or nothing does."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from brnf.data.archives import extract_archive
from brnf.errors import UserError
from brnf.store.files import MARK

FILES = {"train/a.txt": b"one", "train/deep/b.txt": b"two" * 1000, "c..txt": b""}


def write_zip(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo("placeholder")
            member.filename = name
            member.external_attr = mode << 16
            archive.writestr(member, content)
    return path


def write_tar(
    path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE, compression: str = ""
) -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode = (
                kind,
                len(content) if kind == tarfile.REGTYPE else 0,
                0o4777,
            )
            member.linkname = "train/a.txt" if kind == tarfile.LNKTYPE else "../../outside"
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARK
    }


def refused(archive: Path, most_bytes: int = 10**6) -> str:
    target = archive.parent / "target"
    with pytest.raises(UserError, match=r"^[^\n]+; [^\n]+$") as error:
        extract_archive(archive, target, most_bytes)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    return str(error.value)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_tar(tmp_path: Path, compression: str) -> None:
    extract_archive(
        write_tar(tmp_path / "a.tar", FILES, compression=compression), tmp_path / "target"
    )
    assert contents(tmp_path / "target") == FILES
    (tmp_path / "own").touch()  # the user's umask counts, not the archive's 4777
    extracted = tmp_path / "target" / "train" / "a.txt"
    assert extracted.stat().st_mode == (tmp_path / "own").stat().st_mode


def test_zip_replaces_an_older_folder(tmp_path: Path) -> None:
    extract_archive(write_zip(tmp_path / "a.zip", {"old": b"old"}), tmp_path / "target")
    extract_archive(write_zip(tmp_path / "a.zip", FILES), tmp_path / "target")
    assert contents(tmp_path / "target") == FILES


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize(
    "name", ["../outside", "train/../../outside", "/outside", "..\\outside", "C:\\outside", "a/.."]
)
def test_names_that_leave_the_folder(
    tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    assert "no ordinary file" in refused(
        write(tmp_path / "a.archive", {"train/a.txt": b"one", name: b"evil"})
    )
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    assert "'x' is no ordinary file" in refused(write_tar(tmp_path / "a.tar", {"x": b""}, kind))


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    assert "'x' is no ordinary file" in refused(
        write_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, mode=0o120777)
    )


def test_sizes(tmp_path: Path) -> None:
    bomb = {"zeros": b"\0" * 2_000_000}
    assert "more than allowed" in refused(write_zip(tmp_path / "a.zip", bomb))
    (tmp_path / "a.zip").unlink()
    assert "more than allowed" in refused(write_tar(tmp_path / "a.tar", bomb, compression="gz"))


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_damage(tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path]) -> None:
    path = write(tmp_path / "a.archive", FILES)
    content = path.read_bytes()
    for damaged in (
        content[: len(content) // 3],
        b"",
        b"junk" * 100,
        content[:30] + b"\xff" * 30 + content[60:],
    ):
        path.write_bytes(damaged)
        assert "a.archive" in refused(path)
    path.unlink()
    with pytest.raises(UserError, match="no such archive"):
        extract_archive(path, tmp_path / "target")
