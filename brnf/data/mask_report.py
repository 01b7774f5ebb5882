"""What masks hold against what the labels of their images say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from brnf.data.entries import Listing
from brnf.data.mask_counts import MOST_VALUES, MaskCount, some
from brnf.data.masks import remap_table
from brnf.errors import UserError
from brnf.store.label_type import ignored_value

__all__ = ["MaskReport"]


@dataclass(frozen=True)
class MaskReport:
    """What all masks hold, against the labels of their images.

    Attributes:
        classes: of the data set.
        masks: how many were counted.
        compared: how many of them belong to images whose labels are known.
        contradicting: how many show other classes than the labels of their image name.
        first: the first of these, in words.
        kinds: contradictions in words -> how many.
        rebuilt: how many masks have the colours of other values, and agree with their labels if
            they are read by colour; these count as contradictions, too.
        empty: how many hold background only although their images are labelled; nobody may have
            drawn these yet, so they are told and do not end the run.
        missing: classes that images carry and no mask shows.
        ignored: share of the pixels that is ignored or of no chosen class.
    """

    classes: tuple[str, ...]
    masks: int
    compared: int
    contradicting: int
    first: str
    kinds: Counter[str]
    rebuilt: int
    empty: int
    missing: tuple[str, ...]
    ignored: float

    @classmethod
    def of(cls, listing: Listing, counts: Iterable[MaskCount | None]) -> "MaskReport":
        """Hold the masks of a listing against its labels.

        Arguments:
            listing: of the classes that were chosen.
            counts: of the mask of each entry, None where it has none; gone through once.
        """
        table = remap_table(listing.mask_values, np.dtype(np.uint16)).tolist()
        number = {name: place for place, name in enumerate(listing.classes, 1)}
        ignored = ignored_value(len(listing.classes))
        pixels: Counter[int] = Counter()
        masks = compared = contradicting = rebuilt = empty = 0
        first, kinds = "", Counter[str]()
        for entry, count in zip(listing.entries, counts, strict=True):
            if count is None:
                continue
            masks += 1
            pixels.update(_classes(count.pixels.items(), table))
            if entry.labels is None:
                continue
            compared += 1
            labelled = {number[label] for label in entry.labels}
            shown = set(_classes(count.pixels.items(), table)) - {0, ignored}
            moved = _agrees_by_colour(count, labelled, listing.mask_values, table)
            rebuilt += moved
            if labelled and set(count.pixels) == {0}:
                empty += 1
            elif moved or shown != labelled:
                lacking, further = (
                    some([listing.classes[number - 1] for number in sorted(numbers)])
                    for numbers in (labelled - shown, shown - labelled)
                )
                kind = _kind(count, lacking, further, moved, listing.mask_values)
                kinds[kind] += 1
                contradicting += 1
                first = first or f"{entry.mask}: {kind}"
        carried = {label for entry in listing.entries for label in entry.labels or ()}
        missing = tuple(
            name
            for number, name in enumerate(listing.classes, 1)
            if name in carried and not pixels[number]
        )
        total = pixels.total()
        share = pixels[ignored] / total if total else 0.0
        return cls(
            listing.classes,
            masks,
            compared,
            contradicting,
            first,
            kinds,
            rebuilt,
            empty,
            missing if masks else (),
            share,
        )

    @property
    def share(self) -> float:
        """Return the share of the masks that contradict their labels."""
        return self.contradicting / self.compared if self.compared else 0.0

    @property
    def line(self) -> str:
        """Return all of it on one line."""
        count = self.contradicting
        words = [
            f"{count} of {self.compared} masks contradict their image's labels"
            if count
            else f"{self.masks} masks, none of which contradicts its image's labels",
            f"{100 * self.ignored:.1f} % of their pixels are ignored",
        ]
        if self.empty:
            words.insert(1, f"{self.empty} are empty although their images are labelled")
        if self.missing:
            words.insert(1, f"in no mask: {some(self.missing)}")
        return "; ".join(words)

    @property
    def suspicious(self) -> bool:
        """Return whether a user should look at the masks."""
        return bool(self.contradicting or self.empty or self.missing or self.ignored > 0.5)

    def paragraphs(self) -> list[str]:
        """Return what the summary of an index says."""
        if not self.masks:
            return []
        if not self.suspicious:
            return ["", f"Masks: {self.line}."]
        listed = [f"- {number} times {kind}" for kind, number in self.kinds.most_common()]
        return [
            "",
            *(["Masks against labels:", "", *listed[:MOST_VALUES], ""] if listed else []),
            f"Warning: masks and labels: {self.line}.",
        ]

    def check(self, allowed: float) -> None:
        """Refuse masks of which more than a share contradict their labels.

        Raises:
            UserError: names the first, and how classes are numbered.
        """
        if self.share <= allowed:
            return
        numbered = ", ".join(
            f"{value} {name}" for value, name in enumerate(self.classes[:MOST_VALUES], 1)
        )
        more = ", ..." if len(self.classes) > MOST_VALUES else ""
        hint = (
            "; an editor has rebuilt palettes, save the masks with their own"
            if self.rebuilt
            else f"; classes are {numbered}{more}, correct masks, labels or dataset.classes"
        )
        raise UserError(
            f"{self.first} ({self.contradicting} of {self.compared} masks "
            f"contradict their image's labels){hint}, or raise dataset.mask_contradictions to go on"
        )


def _classes(pixels: Iterable[tuple[int, int]], table: Sequence[int]) -> Counter[int]:
    """Return the pixels of each class index."""
    found: Counter[int] = Counter()
    for value, count in pixels:
        found[table[value]] += count
    return found


def _agrees_by_colour(
    count: MaskCount, labelled: set[int], values: Sequence[int], table: Sequence[int]
) -> bool:
    """Return whether a mask whose palette was rebuilt shows the labels if read by its colours."""
    meant = set(count.colours.values()) - {0, ignored_value(max(values))}
    return (
        bool(count.colours) and meant <= set(values) and {table[one] for one in meant} == labelled
    )


def _kind(count: MaskCount, lacking: str, further: str, moved: bool, values: Sequence[int]) -> str:
    """Say how a mask contradicts its labels: classes that it lacks, and those it has beside."""
    if moved:
        return "its palette has the colours of other values"
    ignored = ignored_value(max(values))
    if lacking and ignored in count.pixels and set(count.pixels) <= {0, ignored}:
        return f"labelled {lacking}, its mask holds 0 and {ignored} only, and {ignored} is ignored"
    if not lacking:
        return f"its mask holds {further}, which no label names"
    return f"labelled {lacking}, its mask holds {further or 'none of it'}"
