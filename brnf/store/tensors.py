"""Reading and writing of torch files without ever running code from them."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from brnf.errors import UserError
from brnf.store.files import whole_file

__all__ = ["read_tensors", "write_tensors"]


def read_tensors(path: Path, remedy: str) -> Any:
    """Read tensors and plain values.

    Arguments:
        path: written by ``torch.save``.
        remedy: what the user can do when it cannot be read.

    Raises:
        UserError: the file is missing, damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the checksums of what it reads
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile(f"{path}: a checksum is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets damaged bytes with whatever they happen to cause
        raise UserError(f"{path}: damaged, or not a torch file of plain tensors; {remedy}") from error


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values, whole or not at all; equal content gives equal bytes."""
    # Given a name, torch would write that into the file, and a temporary name is never the same twice.
    with whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
