"""What the owner of a data set reads about its index: one page, summary.md."""

from collections import Counter
from collections.abc import Sequence

from brnf.config.sections.data import IndexedImages
from brnf.data.entries import Fault, Listing
from brnf.data.mask_report import MaskReport

__all__ = ["summary"]

MOST_PROBLEMS = 100
"""Bad images that are named."""


def summary(
    listing: Listing,
    left_out: Counter[str],
    problems: Sequence[Fault],
    notes: Sequence[str],
    held: MaskReport,
    dataset: IndexedImages,
    shards: int,
) -> str:
    """Return a page of Markdown: images of each class in each split, masks, what is left out.

    Arguments:
        listing: the images that are indexed.
        left_out: images of each split that carry other classes only.
        problems: of images that skip_bad leaves out.
        notes: see :func:`brnf.data.remarks.remarks`.
        held: masks against labels.
        dataset: how the data set was read.
        shards: into which each split is cut.
    """
    classes = listing.classes
    titles = (
        "images",
        *classes,
        "without labels",
        "with a mask",
        "left out: no label",
        "left out: none of the classes",
    )
    rows: list[list[str]] = [[] for _ in titles]
    seen: set[str] = set()
    for split in listing.splits:
        images = masked = without = 0
        count = Counter[str]()
        for entry in listing.entries:
            if split in entry.splits:
                count.update(entry.labels or ())
                images, without = images + 1, without + (not entry.labels)
                masked += entry.mask is not None or dataset.kind == "coco"
        seen |= set(count)
        numbers = [images, *(count[name] for name in classes), without, masked]
        numbers += [listing.unlabelled.get(split, 0), left_out[split]]
        for cells, value in zip(rows, numbers, strict=True):
            cells.append(str(value))
    lines = [
        f"# Image index ({dataset.kind})",
        "",
        f"| | {' | '.join(listing.splits)} |",
        "|---" * (len(listing.splits) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in zip(titles, rows, strict=True)]
    checked = (
        "Every image and mask was decoded."
        if dataset.verify
        else "Only the headers were read (verify: false)."
    )
    result = (
        f"{len(problems)} bad images were left out (skip_bad: true):"
        if problems
        else "See below."
        if notes or held.suspicious
        else "No problem found."
    )
    most = f"At most {dataset.limit} of each split (limit). " if dataset.limit else ""
    lines += [
        "",
        f"{len(listing.entries)} images, {len(classes)} classes, {shards} "
        f"{'shard' if shards == 1 else 'shards'} a split. {most}{checked} {result}",
    ]
    if problems:
        lines += ["", *(f"- {fault.name}: {fault.error}" for fault in problems[:MOST_PROBLEMS])]
        lines += [f"- and {len(problems) - MOST_PROBLEMS} more"] * (len(problems) > MOST_PROBLEMS)
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    never = [name for name in classes if name not in seen]
    if never:
        lines += ["", f"Classes without any image: {', '.join(never)}."]
    return "\n".join([*lines, *held.paragraphs()]) + "\n"
