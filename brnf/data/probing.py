"""What opening the files of an image tells, found by several processes at once.

A file that was decoded before and has not changed since is not opened again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from brnf.data.contents import looked_at, unchanged
from brnf.data.entries import Entry
from brnf.data.file_table import Seen
from brnf.data.images import Header, checked_header, image_header, image_size
from brnf.data.mask_counts import MaskCount, count_mask
from brnf.data.masks import read_values
from brnf.data.pipeline import Workers
from brnf.errors import UserError

__all__ = ["Known", "Probe", "header_of", "probe", "probed"]

CHUNK = 32
"""Images that a process is handed at once: a tenth of a second of decoding."""


class Known(NamedTuple):
    """What is known of an image before its files are opened.

    Attributes:
        files: what earlier runs saw of the photograph and of each mask.
        counted: for each mask, whether it is known how many pixels of each value it holds.
    """

    files: tuple[Seen | None, ...]
    counted: tuple[bool, ...]


class Probe(NamedTuple):
    """What the files of an image hold.

    Attributes:
        files: the photograph and each mask.
        counts: of each mask; None where it was not counted.
    """

    files: tuple[Seen, ...]
    counts: tuple[MaskCount | None, ...]

    @property
    def header(self) -> Header:
        """Return what the photograph's header tells."""
        return header_of(self.files[0])


Result: TypeAlias = Probe | UserError
Task: TypeAlias = tuple[Entry, Known]


def probed(
    entries: Iterable[Entry], known: Callable[[Entry], Known], verify: bool, workers: int
) -> Iterator[tuple[Entry, Result]]:
    """Yield every image with what its files hold, or what is wrong with one of them, in their
    order.

    Arguments:
        entries: the images; read no further ahead than two chunks for each process.
        known: returns what is known of an image.
        verify: whether photographs and masks are decoded.
        workers: processes; 0 works here.

    Raises:
        UserError: a process died.
    """
    handed: deque[list[Task]] = deque()

    def chunks() -> Iterator[tuple[list[Task], bool]]:
        tasks = ((entry, known(entry)) for entry in entries)
        while chunk := list(islice(tasks, CHUNK if workers else 1)):
            handed.append(chunk)
            yield chunk, verify

    with Workers(workers, "read images") as processes:
        for found in processes.map(_probe_all, chunks(), _ready):
            for (entry, _), result in zip(handed.popleft(), found, strict=True):
                yield entry, result


def _ready(chunk: Sequence[Task], verify: bool) -> list[Result] | None:
    """Return what is known of a chunk in which nothing has changed, else None."""
    found: list[Result] = []
    for entry, known in chunk:
        if not known.counted:
            seen = unchanged(entry.image, known.files[0])
            if seen is None or not seen.header or (verify and not seen.decoded):
                return None
            if entry.size not in (None, header_of(seen).size):
                return None
            found.append(Probe((seen,), ()))
            continue
        files = tuple(map(unchanged, entry.files, known.files))
        photograph, *masks = files
        if (
            photograph is None
            or (verify and not photograph.decoded)
            or any(mask is None for mask in masks)
            or (verify and not all(known.counted))
            or any(one is not None and not one.header for one in files)
        ):
            return None
        size = header_of(photograph).size
        sizes = (header_of(mask).size for mask in masks if mask is not None)
        if entry.size not in (None, size) or any(other != size for other in sizes):
            return None  # what is wrong is told where it is found the first time
        found.append(Probe(tuple(one for one in files if one is not None), (None,) * len(masks)))
    return found


def _probe_all(chunk: Sequence[Task], verify: bool) -> list[Result]:
    return [probe(entry, known, verify) for entry, known in chunk]


def probe(entry: Entry, known: Known, verify: bool) -> Result:
    """Return what the files of an image hold, or what is wrong with one of them.

    Arguments:
        entry: the image.
        known: what is known of it.
        verify: whether what is not known is decoded.
    """
    try:
        photograph, header = _photograph(entry, known.files[0], verify)
        files, counts = [photograph], []
        for path, seen, counted in zip(entry.masks, known.files[1:], known.counted, strict=True):
            mask, count = _mask(path, seen, counted, header, verify)
            files.append(mask)
            counts.append(count)
    except UserError as error:
        return error
    return Probe(tuple(files), tuple(counts))


def _photograph(entry: Entry, known: Seen | None, verify: bool) -> tuple[Seen, Header]:
    """Look at a photograph."""
    path = Path(entry.image)
    try:
        seen = looked_at(entry.image, known)
    except UserError:
        image_header(path)  # which may have more to say
        raise
    if verify and not seen.decoded:
        seen, header = seen._replace(decoded=True), checked_header(path)
    else:
        header = header_of(seen) if seen.header else image_header(path)
    if entry.size not in (None, header.size):
        height, width = header.size
        raise UserError(
            f"{path}: is {width}x{height} pixels, its annotations are of "
            f"{entry.size[1]}x{entry.size[0]}{_unturned(header, entry.size)}; restore it"
        )
    return seen._replace(header=_text(header)), header


def _mask(
    name: str, known: Seen | None, counted: bool, header: Header, verify: bool
) -> tuple[Seen, MaskCount | None]:
    """Look at a mask, and count its values if that is not known."""
    path, (height, width) = Path(name), header.size
    if unturned := header.changes_size and _unturned(header, _mask_size(path)):
        raise UserError(f"{path}: the mask is {height}x{width} pixels{unturned}")
    mask = looked_at(name, known)
    counted = counted and known is not None and mask.digest == known.digest
    size = header_of(mask).size if mask.header else None
    if (counted or not verify) and header.size not in (size, size or _mask_size(path)):
        read_values(path, size=header.size)
    count = None if counted or not verify else count_mask(path, header.size)
    return mask._replace(header=_text(Header(header.size, 1, False))), count


def _unturned(header: Header, size: tuple[int, int] | None) -> str:
    """Say that a size is the photograph's before its EXIF orientation turned it, if it is."""
    if not header.changes_size or size != header.size[::-1]:
        return ""
    return (
        f" like the photograph before its EXIF orientation {header.orientation} turns it; turn it "
        "likewise, or write the photograph upright without the tag"
    )


def _mask_size(path: Path) -> tuple[int, int] | None:
    """Return height and width from a mask's header, None where it has none to read."""
    try:
        return image_size(path)
    except UserError:
        return None


def header_of(seen: Seen) -> Header:
    """Return what the header of a picture told when it was looked at."""
    return _header(seen.header)


@lru_cache(4096)
def _header(text: str) -> Header:
    height, width, orientation, deep = map(int, text.split())
    return Header((height, width), orientation, bool(deep))


def _text(header: Header) -> str:
    return f"{header.size[0]} {header.size[1]} {header.orientation} {int(header.deep)}"
