"""What the owner of a data set should know of it although nothing is damaged."""

from collections import Counter
from collections.abc import Mapping, Sequence

from brnf.data.entries import Entry, Listing
from brnf.data.images import Header

__all__ = ["remarks"]

EVALUATED = ("val", "test")
MOST_NAMED = 5
"""Images or classes that one remark names."""


def remarks(
    listing: Listing, headers: Mapping[str, Header], measured: Sequence[str] = ()
) -> list[str]:
    """Return one line for each kind of thing that is taken in a certain way, with its count.

    Arguments:
        listing: the images that are indexed.
        headers: of those of its photographs, by id, that are turned or have more than 8 bits.
        measured: splits on which results are measured, where their images have masks.
    """
    special = [
        (entry, headers[entry.id]) for entry in listing.entries if headers and entry.id in headers
    ]
    return [
        *_unmeasured(listing, measured),
        *listing.notes,
        *_negatives(listing),
        *(
            line
            for split in listing.splits
            if split not in EVALUATED
            for line in _constant(listing, split)
        ),
        *_turned(special),
        *_deep(special),
    ]


def _unmeasured(listing: Listing, measured: Sequence[str]) -> list[str]:
    """Say where nothing is measured."""
    masked = {split for entry in listing.entries if entry.mask for split in entry.splits}
    without = [split for split in measured if split not in masked]
    if without and not masked.intersection(measured):
        which = f" of split {' or '.join(measured)}" if masked else ""
        return [
            f"no image{which} has a mask, so nothing is measured: there are no tables of mIoU, and "
            "the report shows predictions with their confidence"
        ]
    return [
        f"no image of split '{split}' has a mask, so nothing is measured on it" for split in without
    ]


def _negatives(listing: Listing) -> list[str]:
    """Say how many images show none of the classes."""
    count = Counter(split for entry in listing.entries for split in entry.splits)
    empty = Counter(
        split for entry in listing.entries if entry.labels == frozenset() for split in entry.splits
    )
    parts = [f"{number} of {count[split]} in {split}" for split, number in empty.items()]
    if not parts:
        return []
    return [f"images without a label count as showing none of the classes: {', '.join(parts)}"]


def _constant(listing: Listing, split: str) -> list[str]:
    """Say which classes are on every image: their labels tell a classifier nothing."""
    images = [entry.labels for entry in listing.entries if split in entry.splits and entry.labels]
    if not images or any(split in entry.splits and not entry.labels for entry in listing.entries):
        return []
    names = sorted(frozenset.intersection(*images))
    if not names:
        return []
    return [
        f"on every image of split {split}: {_some(names)}; nothing can be learnt of a class that "
        "no image lacks, so add photographs without it, with an empty label"
    ]


def _turned(special: Sequence[tuple[Entry, Header]]) -> list[str]:
    """Say whose EXIF orientation is followed, and of which no mask's size tells that it fits."""
    turned = [(entry, header) for entry, header in special if header.orientation != 1]
    if not turned:
        return []
    unsure = [
        entry.id
        for entry, header in turned
        if (entry.mask or entry.size) and not header.changes_size
    ]
    line = f"{len(turned)} photographs are turned upright, as their EXIF orientation says"
    if unsure:
        line += (
            f"; masks and outlines must be of the upright pictures, which their size does not tell "
            f"of {len(unsure)} ({_some(unsure)}): look at them"
        )
    return [line]


def _deep(special: Sequence[tuple[Entry, Header]]) -> list[str]:
    """Say what was brought to 8 bits."""
    names = [entry.id for entry, header in special if header.deep]
    if not names:
        return []
    return [
        f"{len(names)} photographs of more than 8 bits a channel are brought to 8 by the range of "
        f"their values ({_some(names)})"
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")
