"""Stage: fetch a public data set's archives and unpack them."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path

from brnf.data.archives import extract_archive
from brnf.data.download import archive_name, check_md5, fetch
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.stages._cli import run_stage
from brnf.store.files import MARK, atomic_file, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """Where the archives go."""

    folder: Path
    """Their members land here; an archive that lies here already is checked and not fetched."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes beside the data."""

    record: Path
    """JSON list of the archives and the number of their files; appears when all are unpacked."""


@dataclass(frozen=True)
class Options:
    """Which archives."""

    addresses: tuple[str, ...]
    """One of HTTP for each archive, a zip or tar."""
    md5s: tuple[str, ...]
    """Checksum of each."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Fetch, check and unpack archives one after the other; what an earlier call finished is not
    done again.
    """
    if len(options.addresses) != len(options.md5s):
        raise UserError(
            f"download: {len(options.addresses)} addresses and {len(options.md5s)} md5s; give one "
            "md5 for each address"
        )
    with locked(outputs.record):
        inputs.folder.mkdir(parents=True, exist_ok=True)
        done = [
            _obtain(inputs.folder, address, md5, runtime)
            for address, md5 in zip(options.addresses, options.md5s, strict=True)
        ]
        with atomic_file(outputs.record) as temporary:
            temporary.write_text(json.dumps(done, indent=1) + "\n")


def _obtain(folder: Path, address: str, md5: str, runtime: Runtime) -> dict[str, str | int]:
    """Unpack one archive into the folder and return what is noted of it."""
    name = archive_name(address)
    note = folder / f".{name}.unpacked"
    if (known := _noted(note)) and known["md5"] == md5:
        return known
    archive = folder / name
    if archive.exists():
        check_md5(archive, md5, str(archive))
    else:
        fetch(address, archive, md5, lambda chunks, total: _shown(chunks, total, name, runtime))
    unpacked = folder / f".{name}.folder"
    extract_archive(archive, unpacked)
    known = {"address": address, "md5": md5, "files": _merge(unpacked, folder)}
    with atomic_file(note) as temporary:
        temporary.write_text(json.dumps(known) + "\n")
    archive.unlink()
    return known


def _noted(note: Path) -> dict[str, str | int] | None:
    try:
        known: dict[str, str | int] = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and {"address", "md5", "files"} <= set(known) else None


def _shown(
    chunks: Iterator[bytes], total: int | None, name: str, runtime: Runtime
) -> Iterable[bytes]:
    return (
        chunks
        if total is None
        else Progress(chunks, f"fetch {name}", runtime, unit="MiB", total=total)
    )


def _merge(source: Path, folder: Path) -> int:
    """Move all files of a folder to the same places in another one and return their number.

    Raises:
        UserError: another file stands at such a place, or the folder cannot be written; before
            anything is moved in the first case.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file() and path != source / MARK)
    targets = [folder / path.relative_to(source) for path in files]
    for path, target in zip(files, targets, strict=True):
        if target.exists() and not (target.is_file() and cmp(path, target, shallow=False)):
            raise UserError(f"{target}: is not what the archive holds; move it away")
    for path, target in zip(files, targets, strict=True):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written ({error.strerror}); remove what stands there and run "
                "it again"
            ) from error
    shutil.rmtree(source)
    return len(files)


if __name__ == "__main__":
    run_stage(run)
