"""Reading and writing of torch files without ever running code from them."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from brnf.errors import DamagedProduct, UserError
from brnf.store.files import atomic_file

__all__ = ["read_tensors", "write_tensors"]


def read_tensors(path: Path, remedy: str, stage: str | None = None) -> Any:
    """Read tensors and plain values.

    Arguments:
        path: written by ``torch.save``.
        remedy: what the user can do when it is missing or cannot be read.
        stage: that writes it when it is a product of the workflow, which can be made again.

    Raises:
        UserError: the file is missing, damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # the unpickler meets damaged bytes with whatever they happen to cause
        if stage is not None:
            raise DamagedProduct(
                path, "damaged, or not a torch file of plain tensors", stage
            ) from error
        raise UserError(
            f"{path}: damaged, or not a torch file of plain tensors; {remedy}"
        ) from error


def _check_sums(path: Path) -> None:
    """Compare the checksums of an archive, which torch writes but does not look at: damaged numbers
    would pass, and damaged sizes crash.

    Files of before torch 1.6 are no archives and have none.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more bytes than it has, as torch never writes it")
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values, whole or not at all; equal content gives equal bytes."""
    # Given a name, torch would write that into the file, and a temporary name is never the same
    # twice.
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
