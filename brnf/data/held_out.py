"""A validation split of photographs with masks, for data sets that name none."""

import hashlib
from collections import Counter
from dataclasses import replace

from brnf.data.entries import Entry, Listing

__all__ = ["with_held_out"]


def with_held_out(listing: Listing, name: str, share: float, seed: int) -> Listing:
    """Make a split of images that have a mask, and take them out of all others.

    An image is chosen by a hash of its id, so that adding images moves no other. At least one is
    chosen; the last image of a class stays where it is.

    Arguments:
        listing: of the classes that are used.
        name: of the new split.
        share: of the images with a mask.
        seed: of the hash; another one chooses others.

    Returns:
        The listing with the split; as it was where no image has a mask.
    """
    masked = sorted(
        (entry for entry in listing.entries if entry.mask and entry.labels),
        key=lambda entry: _place(entry, seed),
    )
    left = Counter(label for entry in listing.entries for label in entry.labels or ())
    chosen = set[str]()
    for entry in masked:
        if chosen and _place(entry, seed) >= share:
            break
        if all(left[label] > 1 for label in entry.labels or ()):
            left.subtract(entry.labels or ())
            chosen.add(entry.id)
    if not chosen:
        return listing
    note = (
        f"no split '{name}' is given: it is made of {len(chosen)} of the {len(masked)} labelled "
        "images with a mask, chosen by a hash of their ids (dataset.val_share)"
    )
    return replace(
        listing,
        splits=(*listing.splits, name),
        entries=tuple(
            replace(entry, splits=(name,)) if entry.id in chosen else entry
            for entry in listing.entries
        ),
        notes=(*listing.notes, note),
    )


def _place(entry: Entry, seed: int) -> float:
    """Return where an image's hash lies in 0..1."""
    digest = hashlib.sha256(f"{seed} {entry.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
