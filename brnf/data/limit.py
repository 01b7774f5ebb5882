"""A small part of a data set, in which the classes come as evenly as they can."""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from brnf.data.entries import Entry, Listing

__all__ = ["limited"]

NONE = ""
"""The turn of images that show none of the classes."""


def limited(listing: Listing, limit: int) -> Listing:
    """Keep at most so many images of each split, always the same.

    The classes of a split take turns, and images that show none of them do so like a class: the one
    with the fewest images so far adds its next one, in the order of a hash of the ids. With a limit
    of at least C + 1 every class that the split has is thus in it. Images whose labels are not
    known come last.

    The smallest split chooses first, and its images count towards the larger ones that hold them:
    what is computed for VOC's ``train_aug`` still covers ``train``.

    Arguments:
        listing: with the classes that are used.
        limit: of a split, at least 1.
    """
    members = {
        name: [entry for entry in listing.entries if name in entry.splits]
        for name in listing.splits
    }
    splits: dict[str, list[str]] = {}
    for name in sorted(listing.splits, key=lambda name: (len(members[name]), name)):
        shared = [entry for entry in members[name] if entry.id in splits][:limit]
        others = [entry for entry in members[name] if entry.id not in splits]
        added = _evenly(shared, others, listing.classes, limit - len(shared))
        for entry in (*shared, *added):
            splits.setdefault(entry.id, []).append(name)
    return replace(
        listing,
        entries=tuple(
            replace(entry, splits=tuple(name for name in entry.splits if name in splits[entry.id]))
            for entry in listing.entries
            if entry.id in splits
        ),
    )


def _evenly(
    chosen: Sequence[Entry], others: Sequence[Entry], classes: Sequence[str], count: int
) -> list[Entry]:
    """Choose some of the other images, given those that are chosen already."""
    waiting = sorted(others, key=lambda entry: hashlib.sha256(entry.id.encode()).digest())
    queues = {
        name: deque(entry for entry in waiting if name in _turns(entry))
        for name in (*classes, NONE)
    }
    seen = Counter(name for entry in chosen for name in _turns(entry))
    found: dict[str, Entry] = {}
    while len(found) < min(count, len(waiting)):
        entry = next(_next_of(queues, seen, found), None)
        if entry is None:  # only images of unknown labels are left
            entry = next(entry for entry in waiting if entry.id not in found)
        found[entry.id] = entry
        seen.update(_turns(entry))
    return list(found.values())


def _turns(entry: Entry) -> frozenset[str]:
    """Return the classes whose turn an image may be."""
    return frozenset((NONE,)) if entry.labels == frozenset() else entry.labels or frozenset()


def _next_of(
    queues: dict[str, deque[Entry]], seen: Counter[str], found: dict[str, Entry]
) -> Iterator[Entry]:
    """Yield the next image of the class that has the fewest, then of the other classes."""
    for name in sorted(queues, key=lambda name: seen[name]):
        queue = queues[name]
        while queue and queue[0].id in found:
            queue.popleft()
        if queue:
            yield queue[0]
