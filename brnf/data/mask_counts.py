"""What masks hold, counted while they are decoded."""

import csv
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brnf.data.masks import colour_map, read_values
from brnf.errors import UserError
from brnf.store.files import atomic_file
from brnf.store.label_type import MOST_CLASSES, ignored_value

__all__ = ["MaskCount", "MaskCounts", "count_mask", "some"]

COLUMNS = ("digest", "pixels", "colours")
MOST_VALUES = 8
"""Values, classes or kinds of contradictions that a message names."""


@dataclass(frozen=True)
class MaskCount:
    """What one mask holds.

    Attributes:
        pixels: of each value in the file.
        colours: value in the file -> value whose colour it has in VOC's palette, or among grays;
            empty unless all have such colours, some of them another value's: an editor has rebuilt
            the palette.
    """

    pixels: Mapping[int, int]
    colours: Mapping[int, int] = field(default_factory=dict)


def count_mask(path: Path, size: tuple[int, int]) -> MaskCount:
    """Decode a mask and count its values.

    Arguments:
        path: of the mask.
        size: height and width of its image.

    Raises:
        UserError: the mask cannot be read or has another size.
    """
    values, palette = read_values(path, size=size)
    counts = np.bincount(values.ravel())
    pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    if palette is None or any(value >= len(palette) for value in pixels):
        return MaskCount(pixels)
    for usual in (colour_map(), np.repeat(np.arange(256)[:, None], 3, axis=1)):
        known = {tuple(colour): value for value, colour in enumerate(usual.tolist())}
        colours = {value: known.get(tuple(palette[value].tolist()), -1) for value in pixels}
        if -1 not in colours.values():
            moved = any(one != other for one, other in colours.items())
            return MaskCount(pixels, colours if moved else {})
    return MaskCount(pixels)


class MaskCounts:
    """Counts of masks by digest; a table of them stands beside the index, so that a second run
    decodes only what is new.

    Arguments:
        known: from an earlier run.
        allowed: values that masks may hold beside 0 and the ignored one, which follows from the
            largest (:func:`brnf.store.label_type.ignored_value`).
    """

    def __init__(self, known: Mapping[str, MaskCount], allowed: Collection[int]) -> None:
        self._known = known
        self._allowed = frozenset(allowed) | {0, ignored_value(max(allowed, default=0))}
        self._seen: dict[str, MaskCount] = {}

    @classmethod
    def beside(cls, index: Path, allowed: Collection[int]) -> "MaskCounts":
        """Start from the table beside an index, or from nothing where it is missing or damaged."""
        with suppress(OSError, ValueError, csv.Error):
            return cls(_read(_table(index)), allowed)
        return cls({}, allowed)

    def __contains__(self, digest: str) -> bool:
        return digest in self._known

    def get(self, path: str, digest: str, counted: MaskCount | None = None) -> MaskCount:
        """Return what a mask holds.

        Arguments:
            path: of the mask.
            digest: of its bytes.
            counted: what it holds, where that is not known.

        Raises:
            UserError: the mask holds a value that is no class.
        """
        count = counted or self._seen.get(digest) or self._known[digest]
        if outside := sorted(set(count.pixels) - self._allowed):
            pixels = sum(count.pixels[value] for value in outside)
            raise UserError(
                f"{path}: holds {some(outside)}, which no class has ({pixels} pixels); allowed "
                f"are {_ranges(self._allowed)}; number the mask as docs/data.md says"
            )
        self._seen[digest] = count
        return count

    def write_beside(self, index: Path, whole: bool = False) -> None:
        """Write what was asked for into the table beside an index; if ``whole``, all known."""
        written = {**self._known, **self._seen} if whole else self._seen
        with atomic_file(_table(index)) as temporary, temporary.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            rows.writerows(
                (digest, _pairs(count.pixels), _pairs(count.colours))
                for digest, count in sorted(written.items())
            )


def some(words: Sequence[object]) -> str:
    """Return the first of some words, and how many more there are."""
    more = [f"{len(words) - MOST_VALUES} more"] if len(words) > MOST_VALUES else []
    return ", ".join([*map(str, words[:MOST_VALUES]), *more])


def _ranges(values: Collection[int]) -> str:
    """Return numbers as ranges, such as ``0..20 and 255``."""
    ordered = sorted(values)
    starts = [value for value in ordered if value - 1 not in values]
    ends = [value for value in ordered if value + 1 not in values]
    parts = [
        str(start) if start == end else f"{start}..{end}"
        for start, end in zip(starts, ends, strict=True)
    ]
    return " and ".join(parts)


def _table(index: Path) -> Path:
    return index.with_name(f"{index.name}.masks.csv")


def _pairs(numbers: Mapping[int, int]) -> str:
    return ";".join(f"{key}:{value}" for key, value in sorted(numbers.items()))


def _numbers(text: str) -> dict[int, int]:
    pairs = (part.split(":") for part in text.split(";") if part)
    found = {int(key): int(value) for key, value in pairs}
    if not all(0 <= value <= MOST_CLASSES + 1 for value in found):
        raise ValueError("values of a mask are at most two bytes")
    return found


def _read(table: Path) -> dict[str, MaskCount]:
    with table.open(newline="") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != COLUMNS:
            raise ValueError("other columns")
        return {
            digest: MaskCount(_numbers(pixels), _numbers(colours))
            for digest, pixels, colours in rows
        }
