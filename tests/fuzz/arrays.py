"""Dictionaries of arrays of other code bases, and archives."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brnf.data.archives import extract_archive
from brnf.store.safe_pickle import read_array_dictionary
from tests.fuzz.mutations import mutate_bytes, mutate_value
from tests.fuzz.runner import Kind
from tests.fuzz.sources import spoilt_bytes

__all__ = ["array_kinds"]

MAPS: dict[Any, Any] = {
    "keys": np.array([3, 11]),
    "IS_CAM": np.random.default_rng(0).random((2, 5, 7), np.float32),
}
TENSORS: dict[Any, Any] = {
    "keys": torch.tensor([0, 14]),
    "cam": torch.ones(2, 3, 4),
    "high_res": np.ones((2, 6, 8), np.float16),
}


def saved(content: Any, protocol: int = 4) -> bytes:
    """Return what ``np.save`` writes of an object."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = np.empty((), object)
    array[()] = content
    return file.getvalue() + pickle.dumps(array, protocol)


def packed(**content: Any) -> bytes:
    """Return what ``np.savez`` writes."""
    file = io.BytesIO()
    np.savez_compressed(file, **content) if len(content) > 1 else np.savez(file, **content)
    return file.getvalue()


DICTIONARIES = (
    *(saved(content, protocol) for content in (MAPS, TENSORS) for protocol in (2, 3, 4, 5)),
    packed(**MAPS),
    packed(keys=MAPS["keys"]),
)


def zipped(compression: int) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("train/a.txt", b"one" * 50)
        archive.writestr("train/deep/b.txt", bytes(500))
    return file.getvalue()


def tarred(compression: str, form: int) -> bytes:
    """Return a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}", format=form) as archive:
        for name, content in (
            ("train/a.txt", b"one" * 50),
            ("train/" + "deep/" * 30 + "b.txt", bytes(500)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


ARCHIVES = (
    *(
        zipped(compression)
        for compression in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
            zipfile.ZIP_BZIP2,
            zipfile.ZIP_LZMA,
        )
    ),
    *(
        tarred(compression, form)
        for compression in ("", "gz", "bz2", "xz")
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    ),
)


def spoil_dictionary(random: np.random.Generator) -> bytes:
    """Spoil the bytes of a dictionary, or what it holds."""
    if random.random() < 0.8:
        return mutate_bytes(
            DICTIONARIES[int(random.integers(len(DICTIONARIES)))], DICTIONARIES, random
        )
    content = MAPS if random.random() < 0.5 else TENSORS
    return saved(mutate_value({**content, "list": [1, 2]}, random), int(random.integers(2, 6)))


def read_dictionary(path: Path, number: int) -> None:
    """Read a dictionary of arrays."""
    for key, value in read_array_dictionary(path, "import it again").items():
        assert isinstance(key, str | int) and isinstance(value, np.ndarray)


def unpack(path: Path, number: int) -> None:
    """Unpack an archive and look that nothing lies beside its folder."""
    extract_archive(path, path.parent / "out", 10**7)
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, "out"}
    assert all(entry.is_dir() or entry.is_file() for entry in (path.parent / "out").rglob("*"))
    assert not any(entry.is_symlink() for entry in (path.parent / "out").rglob("*"))


def array_kinds() -> list[Kind]:
    """Return the kinds of files that hold others."""
    return [
        Kind("npy", 1500, DICTIONARIES[0], spoil_dictionary, read_dictionary, "maps.npy"),
        Kind("archive", 800, ARCHIVES[0], spoilt_bytes(ARCHIVES), unpack, "archive"),
    ]
