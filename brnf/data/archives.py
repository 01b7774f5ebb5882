"""Unpacking of downloaded archives that may hold anything."""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from brnf.errors import UserError
from brnf.store.files import UNWRITABLE, atomic_directory

__all__ = ["extract_archive"]

MOST_MEMBERS = 1_000_000
MOST_BYTES = 64 * 2**30
"""COCO's largest archive unpacks to 13 GB."""


def extract_archive(archive: Path, folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpack a zip or tar archive (plain, gz, bz2, xz) into a folder, whole or not at all.

    Nothing can land outside of the folder: absolute names and ``..`` are refused, and so are links,
        devices and pipes, which no
    data set needs. Permissions are those of ordinary files.

    Arguments:
        archive: the file.
        folder: appears when all is unpacked; an older one at this place is replaced.
        most_bytes: of the unpacked files together.

    Raises:
        UserError: the archive is missing, damaged, too large for the limit or the disk, or holds a
            member that is refused.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; download it again")
    with atomic_directory(folder) as temporary, _explained(archive):
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, temporary, most_bytes)
        else:
            _extract_tar(archive, temporary, most_bytes)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Turn what damaged archives cause into one line; what concerns the disk passes."""
    try:
        yield
    except UserError:
        raise
    # the decompressors raise what they like: zlib.error, EOFError, LZMAError, NotImplementedError
    # ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise
        reason = str(error)[:120] or type(error).__name__
        raise UserError(
            f"{archive}: damaged or refused archive ({reason}); remove it and download it again"
        ) from error


def _extract_zip(path: Path, folder: Path, most_bytes: int) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_size(
            path, folder, len(members), sum(member.file_size for member in members), most_bytes
        )
        for member in members:
            kind = stat.S_IFMT(
                member.external_attr >> 16
            )  # 0 when the archive was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or _leaves(member.filename):
                raise UserError(
                    f"{path}: its member '{member.filename}' is no ordinary file below the folder; "
                    "download it again"
                )
            archive.extract(member, folder)


def _extract_tar(path: Path, folder: Path, most_bytes: int) -> None:
    with tarfile.open(path) as archive:
        members: list[tarfile.TarInfo] = []
        size = 0
        for member in archive:
            members.append(member)
            size += member.size
            _check_size(path, folder, len(members), size, most_bytes)
            if not (member.isreg() or member.isdir()) or _leaves(member.name):
                raise UserError(
                    f"{path}: its member '{member.name}' is no ordinary file below the folder; "
                    "download it again"
                )
        for member in members:
            place = folder / member.name
            content = archive.extractfile(member)  # of a folder: none
            (place if content is None else place.parent).mkdir(parents=True, exist_ok=True)
            if content is not None:
                with content, place.open("wb") as target:
                    shutil.copyfileobj(content, target)


def _leaves(name: str) -> bool:
    """Return whether a member's name could point out of the folder, on any system."""
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in name or "\0" in name


def _check_size(path: Path, folder: Path, members: int, size: int, most_bytes: int) -> None:
    if members > MOST_MEMBERS or size > most_bytes:
        raise UserError(
            f"{path}: unpacks to {members} files of {size} bytes, more than allowed; this is not "
            "the data set's archive"
        )
    if size > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"{path}: unpacks to {size} bytes, but {folder.parent} has only {free} left; free space"
        )
