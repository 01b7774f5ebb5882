"""A stamp beside every product says what made it: stage, options, code and inputs.

Written by the stage itself, so it belongs to the product and not to the folder, the clock or the
program that called the stage.
"""

import hashlib
import os
import platform
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from brnf.errors import UserError
from brnf.store.files import atomic_file

__all__ = [
    "Content",
    "Stamp",
    "by_flag",
    "compare",
    "content_of",
    "digest_of",
    "listing_of",
    "read_stamp",
    "refresh",
    "same_size",
    "stamp_file",
    "unchanged",
    "versions",
    "write_stamp",
]

PACKAGES = (
    *("brnf", "torch", "torchvision", "timm", "FrEIA", "numpy", "h5py"),
    *("opencv-python-headless", "scikit-learn", "numba", "pandas", "snakemake"),
)
"""Whose versions a stamp records."""
Digest = Callable[[Path], str]
State = Literal["same", "touched", "changed"]


class Content(msgspec.Struct, frozen=True):
    """What a product holds.

    Attributes:
        digest: 32 hexadecimal digits of a hash of the bytes, in a folder of all files' names and
            bytes.
        size: bytes, of all files.
        listing: digest of names, sizes and times of change; an equal one spares reading.
    """

    digest: str
    size: int
    listing: str


class Stamp(msgspec.Struct, frozen=True):
    """What made a product.

    Attributes:
        stage: name of the module in :mod:`brnf.stages`.
        options: flag without dashes -> words, as they were given.
        code: fingerprint of the code that ran (:func:`brnf.fingerprint.fingerprint`).
        inputs: path of each file that was read -> digest of its content.
        weights: flag that names initial weights -> what they were (:func:`brnf.weights.identity`).
        content: of the product; None as long as its stage has not ended.
        versions: package -> version.
        machine: processor and system.
        commit: of the checkout that ran; empty for an installed package.
        made: time of its end, ISO 8601 with zone.
        seconds: that the stage took.
        adopted: whether a user vouched for a product without a stamp.
    """

    stage: str
    options: dict[str, list[str]]
    code: str
    inputs: dict[str, str] = {}
    weights: dict[str, str] = {}
    content: Content | None = None
    versions: dict[str, str] = {}
    machine: str = ""
    commit: str = ""
    made: str = ""
    seconds: float = 0.0
    adopted: bool = False


def stamp_file(product: str | Path) -> Path:
    """Return where the stamp of a product lies: beside it, hidden."""
    path = Path(product)
    return path.with_name(f".{path.name}.stamp")


def read_stamp(product: str | Path) -> Stamp | None:
    """Return the stamp of a product; None where there is none, or a damaged one."""
    try:
        return msgspec.json.decode(stamp_file(product).read_bytes(), type=Stamp)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_stamp(product: str | Path, stamp: Stamp) -> None:
    """Write the stamp of a product.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    with atomic_file(stamp_file(product)) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(stamp), indent=1) + b"\n")


def content_of(product: Path) -> Content:
    """Read a product, a file or a folder, and return what it holds.

    Raises:
        OSError: it cannot be read.
    """
    size, listing = _looked_at(product)
    return Content(digest_of(product), size, listing)


def compare(product: Path, content: Content, digest: Digest | None = None) -> State:
    """Compare a product with its stamp; it is read only where the sizes are equal and the times are
    not.

    Arguments:
        product: a file or a folder.
        content: of its stamp.
        digest: how to read it; None: :func:`digest_of`.

    Returns:
        ``same``, ``touched`` where only its times are others, or ``changed``.
    """
    try:
        size, listing = _looked_at(product)
        if listing == content.listing:
            return "same"
        same = size == content.size and (digest or digest_of)(product) == content.digest
        return "touched" if same else "changed"
    except OSError:
        return "changed"


def unchanged(product: Path, content: Content) -> bool:
    """Return whether a product still holds what its stamp says."""
    return compare(product, content) != "changed"


def by_flag(words: Iterable[str]) -> dict[str, list[str]]:
    """Return the words that follow each flag of a command line.

    >>> by_flag(["--scales", "0.5", "1", "--root=-rf"])
    {'scales': ['0.5', '1'], 'root': ['-rf']}
    """
    found: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            found[flag] = [value] if equals else []
        elif flag:
            found[flag].append(word)
    return found


def refresh(product: Path) -> None:
    """Enter the present times of a product into its stamp, so that it need not be read to be known.

    Snakemake gives an output another time when its job has ended. Called where the content is known
    to be that of the stamp; one of another size keeps its stamp.
    """
    stamp = read_stamp(product)
    if stamp is None or stamp.content is None:
        return
    with suppress(OSError, UserError):  # where nobody may write it is read at each call
        size, listing = _looked_at(product)
        if size == stamp.content.size and listing != stamp.content.listing:
            content = msgspec.structs.replace(stamp.content, listing=listing)
            write_stamp(product, msgspec.structs.replace(stamp, content=content))


def same_size(product: Path, content: Content) -> bool:
    """Return whether a product has the size that its stamp tells."""
    try:
        return _looked_at(product)[0] == content.size
    except OSError:
        return False


def digest_of(path: Path) -> str:
    """Return the digest of a file or folder.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_dir():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:32]
    whole = hashlib.sha256()
    for name, _ in _files(str(path)):
        line = f"{name}\0{digest_of(path / name)}\n"
        whole.update(line.encode(errors="surrogateescape"))
    return whole.hexdigest()[:32]


def listing_of(folder: Path) -> str:
    """Return a digest of the names, sizes and times of the files in a folder that no stage made."""
    return _looked_at(folder)[1]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _looked_at(product: Path) -> tuple[int, str]:
    """Return the bytes of a product and a digest of its names, sizes and times, without reading
    it.
    """
    found = _files(str(product)) if product.is_dir() else [("", product.stat())]
    size, lines = 0, []
    for name, state in found:
        size += state.st_size
        lines.append(f"{name}\0{state.st_size} {state.st_mtime_ns}\n")
    whole = hashlib.sha256("".join(lines).encode(errors="surrogateescape"))
    return size, whole.hexdigest()[:32]


def _files(folder: str, inside: str = "") -> list[tuple[str, os.stat_result]]:
    """Return path and state of all files below a folder, sorted, but hidden ones.

    Folders of masks hold thousands, so each is looked at once.
    """
    found: list[tuple[str, os.stat_result]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _files(entry.path, f"{inside}{entry.name}/")
            elif entry.is_file():
                found.append((f"{inside}{entry.name}", entry.stat()))
    return sorted(found)
