"""Which photographs a user means, and where what is said about each is written."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brnf.errors import UserError

__all__ = ["ENDINGS", "Photograph", "find_photographs"]

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp"),
    *(".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"),
)
"""Of the photographs in a folder; a file that is named itself may have any."""


@dataclass(frozen=True)
class Photograph:
    """A photograph.

    Attributes:
        path: the file.
        name: of its outputs, without an ending: its place in the folder that was given.
    """

    path: Path
    name: Path


def find_photographs(words: Sequence[str], out: Path) -> list[Photograph]:
    """Return the photographs that files, folders and patterns name, each once, in their order.

    Arguments:
        words: files; folders, with all below them but hidden files; or patterns such as
            ``photos/**/*.jpg``.
        out: folder of the outputs; what lies in it is no photograph.

    Raises:
        UserError: a word names nothing, two photographs would share an output, or photographs lie
            in the folder of the outputs.
    """
    found: dict[Path, Photograph] = {}
    inside = out.resolve()
    for word in words:
        for photograph in _named(word):
            real = photograph.path.resolve()
            if not real.is_relative_to(inside):
                found.setdefault(real, photograph)
            elif Path(word).is_file() or Path(word).resolve().is_relative_to(inside):
                raise UserError(
                    f"{photograph.path}: lies in the folder of the outputs, {out}; choose another"
                )
    names: dict[Path, Path] = {}
    for photograph in found.values():
        if (other := names.setdefault(photograph.name, photograph.path)) != photograph.path:
            raise UserError(
                f"{photograph.path}: would have the output {photograph.name} of {other}; rename "
                "one, or predict them into two folders"
            )
    return list(found.values())


def _named(word: str) -> Iterator[Photograph]:
    """Yield what one word of the user names."""
    path = Path(word)
    if path.is_dir():
        files = _below(path)
    elif path.is_file():
        files = [Photograph(path, Path(path.stem))]
    else:
        paths = map(Path, sorted(glob.glob(word, recursive=True)))
        files = [part for one in paths for part in _named(str(one)) if one != path]
    if not files:
        kinds = ", ".join(ENDINGS)
        reason = f"holds no photograph ({kinds})" if path.is_dir() else "no such file or folder"
        raise UserError(f"{word}: {reason}; name photographs, folders or patterns")
    yield from files


def _below(folder: Path) -> list[Photograph]:
    """Return the photographs in a folder and the folders below it."""
    return [
        Photograph(path, path.relative_to(folder).with_suffix(""))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
