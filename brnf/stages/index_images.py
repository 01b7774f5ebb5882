"""Stage: list the images of a data set, with sizes, labels, splits and shards; the only stage that
looks for images.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from brnf.config.sections.data import IndexedImages
from brnf.data.coco import list_coco
from brnf.data.coco_file import annotation_file
from brnf.data.contents import FIRST, Contents
from brnf.data.entries import Entry, Fault, Listing, select_classes, told
from brnf.data.held_out import with_held_out
from brnf.data.images import Header
from brnf.data.index import write_shared
from brnf.data.index_lists import ListWriter, MaskWriter, labels_text
from brnf.data.limit import limited
from brnf.data.mask_counts import MaskCount, MaskCounts
from brnf.data.mask_report import MaskReport
from brnf.data.probing import Known, Probe, header_of, probed
from brnf.data.remarks import remarks
from brnf.data.summary import summary
from brnf.data.table import list_table
from brnf.data.voc import list_scenes, list_voc
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """Where the data set is: a root (kinds voc, coco and scenes) or a table (kind table)."""

    root: Path | None = None
    """Folder that holds VOCdevkit, VOCdevkit itself, VOC2012, COCO's annotations and photographs,
    or what render_scenes wrote.
    """
    table: Path | None = None
    """CSV image,labels[,mask][,split] of own images; paths are relative to it."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    index: Path
    """Folder of the index (``brnf/data/index.py``), with summary.md; a table of all files that were
    read stands beside it.
    """


@dataclass(frozen=True)
class Options:
    """What is listed (docs/method.md section 1)."""

    dataset: IndexedImages = IndexedImages()
    """The data set, its classes and labels, and how it is checked."""
    splits: tuple[str, ...] = ()
    """Splits to list; none given: all that the data set has."""
    val: str | None = None
    """One of the splits that is made of images with a mask where a table names none."""
    measured: tuple[str, ...] = ()
    """Splits on which results are measured; of which no image has a mask is told."""
    shards: int = 8
    """Number of shards of a split; an image's shard is a hash of its id."""
    state: str = FIRST
    """Name of the state that the workflow found the data in (``brnf/data/contents.py``); kept with
    the index.
    """


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """List the images of a data set with their sizes, labels, splits and shards."""
    if not 1 <= options.shards <= 10_000:
        raise UserError(f"shards: {options.shards} is out of range; choose 1 to 10000")
    with locked(outputs.index):
        whole = _list(inputs, options, runtime)
        counts = MaskCounts.beside(outputs.index, whole.mask_values)
        dataset = options.dataset
        listing, left_out = select_classes(whole, dataset.classes, dataset.negatives)
        if options.val is not None and options.val not in listing.splits:
            listing = with_held_out(listing, options.val, dataset.val_share, dataset.val_seed)
        del whole  # there may be millions of images
        if options.dataset.limit is not None:
            listing = limited(listing, options.dataset.limit)
        contents = Contents(outputs.index)
        for source in listing.sources:
            contents.look(source)
        masks = (
            {
                split: contents.look(annotation_file(listing.root, split)).digest
                for split in listing.splits
            }
            if options.dataset.kind == "coco"
            else {}
        )
        try:
            listing, special, problems = _probed(listing, dataset, contents, counts, runtime)
        except BaseException:  # the next run goes on from here
            with suppress(UserError, OSError):
                contents.flush()
                counts.write_beside(outputs.index, whole=True)
            raise
        measured = () if dataset.kind == "coco" else options.measured  # its masks are drawn
        notes = remarks(listing, special, measured)
        with atomic_directory(outputs.index) as folder:
            held = MaskReport.of(
                listing, _written(folder, listing, contents, counts, masks, options)
            )
            (folder / "state.txt").write_text(f"{options.state}\n")
            (folder / "summary.md").write_text(
                summary(listing, left_out, problems, notes, held, dataset, options.shards)
            )
            contents.finish()
            counts.write_beside(outputs.index)
            for note in [*notes, *([f"masks: {held.line}"] if held.suspicious else [])]:
                print(f"warning: {note}", file=sys.stderr)
            held.check(dataset.mask_contradictions)  # no index of masks that are not of its labels


def _list(inputs: Inputs, options: Options, runtime: Runtime) -> Listing:
    """List the data set of the chosen kind."""
    dataset = options.dataset
    if dataset.kind == "table":
        if inputs.table is None:
            raise UserError(
                "dataset.table: kind table needs a CSV; set it to the path of your table"
            )
        return list_table(
            inputs.table, options.splits, dataset.classes, dataset.skip_bad, options.val
        )
    if inputs.root is None:
        raise UserError(
            f"dataset.root: kind {dataset.kind} needs the data set's folder; set it to its path"
        )
    if dataset.kind == "coco":
        watch = partial(Progress, name="draw labels", runtime=runtime, unit="image")
        return list_coco(inputs.root, options.splits, dataset, watch)
    if dataset.kind == "scenes":
        return list_scenes(inputs.root, options.splits)
    return list_voc(inputs.root, options.splits, dataset.classes, dataset.skip_bad)


def _probed(
    listing: Listing,
    dataset: IndexedImages,
    contents: Contents,
    counts: MaskCounts,
    runtime: Runtime,
) -> tuple[Listing, dict[str, Header], list[Fault]]:
    """Open the image and the masks of every entry, and append what they hold to ``contents``.

    Returns:
        the listing without bad images, the headers of those whose pictures are turned or have more
        than 8 bits, by id, and what is wrong with the others.

    Raises:
        UserError: an image is bad and may not be left out; says the first fault, and how many there
            are. Or a split is left without one.
    """
    special, bad, problems = {}, set(), list(listing.faults)
    for fault in listing.faults:
        contents.note(*fault.files)

    def known(entry: Entry) -> Known:
        if not (masks := entry.masks):
            return Known((contents.known(entry.image),), ())
        files = tuple(map(contents.known, (entry.image, *masks)))
        return Known(files, tuple(one is not None and one.digest in counts for one in files[1:]))

    found = probed(listing.entries, known, dataset.verify, runtime.workers)
    name = "verify images" if dataset.verify else "measure images"
    total = len(listing.entries)
    for entry, result in Progress(found, name, runtime, unit="image", total=total):
        error = result if isinstance(result, UserError) else None
        if isinstance(result, Probe) and result.counts:
            error = _kept(entry, result, counts, dataset)
        if error is not None:
            problems.append(Fault(entry.id, error))
            contents.note(*entry.files)
            bad.add(entry.id)
        elif isinstance(result, Probe):
            contents.add(zip(entry.files, result.files, strict=True))
            if result.header.orientation != 1 or result.header.deep:
                special[entry.id] = result.header
    if bad:
        listing = replace(
            listing, entries=tuple(entry for entry in listing.entries if entry.id not in bad)
        )
    empty = set(listing.splits).difference(*(entry.splits for entry in listing.entries))
    if problems and (empty or not dataset.skip_bad):
        raise told(problems)
    return listing, special, problems


def _kept(
    entry: Entry, probe: Probe, counts: MaskCounts, dataset: IndexedImages
) -> UserError | None:
    """Remember what the masks of an image hold, or return what is wrong with it."""
    try:
        if dataset.verify:
            for path, seen, count in zip(entry.masks, probe.files[1:], probe.counts, strict=True):
                counts.get(path, seen.digest, count)
    except UserError as error:
        return error
    return None


def _written(
    folder: Path,
    listing: Listing,
    contents: Contents,
    counts: MaskCounts,
    drawn: Mapping[str, str],
    options: Options,
) -> Iterator[MaskCount | None]:
    """Write the lists of every split, and yield what the mask of each image holds; ``drawn`` are
    digests of what the masks of a split are drawn from.
    """
    number = {name: i for i, name in enumerate(listing.classes, 1)}
    root = listing.root
    write_shared(folder, listing.classes, listing.mask_values, root)
    lists = {split: ListWriter(folder, split, root, options.shards) for split in listing.splits}
    truths = {split: MaskWriter(folder, split, root) for split in listing.splits}
    added = contents.added()
    texts: dict[frozenset[str], str] = {}  # of labels, which many images share
    for entry in listing.entries:
        photograph, *masks = islice(added, 1 + len(entry.masks))
        shown = entry.labels or frozenset()
        if (labels := texts.get(shown)) is None:
            labels = texts[shown] = labels_text(sorted(number[label] for label in shown))
        size, taken = header_of(photograph).size, photograph.digest
        digest = "+".join([mask.digest for mask in masks])
        for split in entry.splits:
            lists[split].append(entry.id, entry.image, size, labels, taken)
            truth = digest or drawn.get(split, "")
            truths[split].append(entry.id, entry.mask, entry.context, truth)
        counted = options.dataset.verify and entry.mask is not None
        yield counts.get(entry.mask or "", masks[0].digest) if counted else None
    for split in listing.splits:
        lists[split].close()
        truths[split].close()


if __name__ == "__main__":
    run_stage(run)
