"""What made a result, and what that was made from: read from the stamps."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from brnf.errors import UserError
from brnf.store.file_lists import condensed
from brnf.store.stamps import Stamp, read_stamp, stamp_file, unchanged

__all__ = ["origins", "print_provenance"]


def origins(result: Path) -> dict[str, Stamp]:
    """Return the stamps of a result and of all products that it was made from, itself first.

    A product that was removed since, as pixel stores may be, is told by its stamp, which stays.

    Raises:
        UserError: the result has no stamp.
    """
    if read_stamp(result) is None:
        missing = "does not exist" if not result.exists() else f"has no {stamp_file(result).name}"
        raise UserError(f"{result}: {missing}; name a file or folder that the workflow has made")
    found: dict[str, Stamp] = {}
    waiting = [str(result)]
    while waiting:
        path = waiting.pop(0)
        stamp = read_stamp(path)
        if path not in found and stamp is not None:
            found[path] = stamp
            waiting += stamp.inputs
    return found


def _lines(result: Path) -> Iterator[str]:
    """Yield what a person reads of the origins of a result.

    Raises:
        UserError: the result has no stamp.
    """
    for path, stamp in origins(result).items():
        yield path
        yield f"  {stamp.stage}, {_when(stamp)}{_state(Path(path), stamp)}"
        if stamp.machine:
            yield f"  on {stamp.machine}"
        if stamp.versions:
            yield f"  with {', '.join(f'{name} {one}' for name, one in stamp.versions.items())}"
        yield f"  code {stamp.code}{f', commit {stamp.commit}' if stamp.commit else ''}"
        yield from (f"  --{flag} {' '.join(words)}" for flag, words in stamp.options.items())
        yield from (f"  {flag}: {identity}" for flag, identity in stamp.weights.items())
        yield from (f"  from {word}" for word in condensed(stamp.inputs))


def _as_json(result: Path) -> str:
    """Return all stamps as one JSON object, path -> stamp.

    Raises:
        UserError: the result has no stamp.
    """
    content: dict[str, Any] = {
        path: msgspec.to_builtins(stamp) for path, stamp in origins(result).items()
    }
    return json.dumps(content, indent=1)


def _when(stamp: Stamp) -> str:
    if stamp.adopted:
        return f"adopted at {stamp.made} on the word of a user"
    return f"ended {stamp.made} after {stamp.seconds:g} s" if stamp.made else "not ended"


def _state(product: Path, stamp: Stamp) -> str:
    if stamp.content is None:
        return ""
    if not product.exists():
        return "; removed since"
    return "" if unchanged(product, stamp.content) else "; CHANGED SINCE"


def print_provenance(results: Sequence[Path], as_json: bool) -> None:
    """Print the origins of results.

    Raises:
        UserError: one has no stamp.
    """
    for result in results:
        print(_as_json(result) if as_json else "\n".join(_lines(result)))
