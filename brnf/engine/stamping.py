"""The stamps of a stage's outputs: begun before it runs, ended after it."""

import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brnf.errors import DamagedProduct
from brnf.fingerprint import fingerprint
from brnf.shipped import commit
from brnf.store.file_lists import expanded
from brnf.store.stamps import (
    Stamp,
    by_flag,
    content_of,
    digest_of,
    listing_of,
    read_stamp,
    same_size,
    stamp_file,
    unchanged,
    versions,
    write_stamp,
)
from brnf.weights import weights_named

__all__ = ["READ", "given_options", "set_aside", "stamped"]

STAGES = "brnf.stages."
READ = "BRNF_INPUTS"
"""Environment variable by which the workflow names all files that a job reads, a tab between them;
a stage that is called by hand takes those of its arguments.
"""
STAMPS = "BRNF_STAMPS"
"""Environment variable by which the workflow says ``no`` where files are copies of what is stored:
a stamp would stay beside a copy and tell of another one later.
"""


@contextmanager
def stamped(module: str, words: Sequence[str], given: Any) -> Iterator[None]:
    """Write the stamps of a stage's outputs when the block ends without an error.

    Before it, each gets one without content: what a killed stage leaves is never taken for whole.

    Arguments:
        module: of the stage, such as ``brnf.stages.train_flow``.
        words: of the command line.
        given: the stage's arguments, with ``inputs``, ``outputs`` and perhaps ``options``.

    Raises:
        DamagedProduct: an input is no more what its own stage wrote.
    """
    if os.environ.get(STAMPS) == "no":
        yield
        return
    read = list(_read_paths(getattr(given, "inputs", None)))
    _check_whole(read)
    begin = time.monotonic()
    outputs = list(_paths(getattr(given, "outputs", None)))
    options = given_options(words, getattr(given, "options", None))
    code = fingerprint(module) if module.startswith(STAGES) else ""
    stamp = Stamp(module.rpartition(".")[2], options, code)
    for output in outputs:
        write_stamp(output, stamp)
    try:
        yield
    except BaseException:
        for output in outputs:
            if not os.path.lexists(output):  # nothing that a stamp could tell of
                stamp_file(output).unlink(missing_ok=True)
        raise
    inputs = _digests(read)
    for output in filter(Path.exists, outputs):
        whole = Stamp(
            stage=stamp.stage,
            options=options,
            code=stamp.code,
            inputs=inputs,
            weights=weights_named(options),
            content=content_of(output),
            versions=versions(),
            machine=f"{platform.node()} ({platform.machine()}, {platform.platform()})",
            commit=commit(),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - begin, 1),
        )
        write_stamp(output, whole)
        _remove(set_aside(output))


def set_aside(product: Path) -> Path:
    """Return the name of a damaged product from which it is made anew."""
    return product.with_name(f"{product.name}.damaged")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def given_options(words: Sequence[str], options: Any) -> dict[str, list[str]]:
    """Return the words that follow each flag of a stage's options, as they were given.

    Arguments:
        words: of the command line.
        options: dataclass of the stage, or None.
    """
    if options is None:
        return {}
    sections = {
        field.name.replace("_", "-"): is_dataclass(getattr(options, field.name))
        for field in fields(options)
    }
    return {
        flag: values
        for flag, values in by_flag(words).items()
        if sections.get(flag.partition(".")[0]) == ("." in flag)
    }


def _read_paths(inputs: Any) -> Iterator[Path]:
    """Yield all that a job reads."""
    if named := os.environ.get(READ):
        yield from (Path(path) for word in named.split("\t") for path in expanded(word))
    else:
        yield from _paths(inputs)


def _check_whole(paths: Iterable[Path]) -> None:
    """Hold inputs against their stamps; of a job of the workflow, which has done so before, only
    their sizes: Snakemake has given them other times, and to read all of them takes long.
    """
    fits = same_size if os.environ.get(READ) else unchanged
    for path in paths:
        stamp = read_stamp(path)
        if stamp and stamp.content and path.exists() and not fits(path, stamp.content):
            raise DamagedProduct(path, "was changed after it was made", stamp.stage)


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return a digest of everything that was read."""
    found = {}
    for path in paths:
        stamp = read_stamp(path)
        if stamp and stamp.content:
            found[str(path)] = stamp.content.digest
        elif path.is_file():
            found[str(path)] = digest_of(path)
        elif path.is_dir():
            found[str(path)] = listing_of(path)
    return found


def _paths(arguments: Any) -> Iterator[Path]:
    """Yield the paths among the values of a dataclass."""
    if not is_dataclass(arguments):
        return
    for field in fields(arguments):
        value = getattr(arguments, field.name)
        values: Iterable[Any] = value if isinstance(value, tuple) else [value]
        yield from (one for one in values if isinstance(one, Path))
