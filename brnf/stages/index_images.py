"""Stage: list the images of a data set, with sizes, labels, splits and shards; the only stage that
looks for images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from brnf.config.sections.data import IndexedImages
from brnf.data.coco import list_coco
from brnf.data.coco_file import annotation_file
from brnf.data.contents import FIRST, Contents
from brnf.data.entries import Entry, Listing, select_classes
from brnf.data.images import image_size, read_image
from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.data.limit import limited
from brnf.data.masks import read_mask
from brnf.data.table import list_table
from brnf.data.voc import list_scenes, list_voc
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]

MOST_PROBLEMS = 100
"""Bad images that the summary names."""


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
        contents = Contents.beside(outputs.index)
        listing, left_out = select_classes(_list(inputs, options, runtime), options.dataset.classes)
        if options.dataset.limit is not None:
            listing = limited(listing, options.dataset.limit)
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
        listing, found, problems = _probed(listing, options.dataset, contents, runtime)
        with atomic_directory(outputs.index) as folder:
            splits = _write(folder, listing, found, masks, options.shards)
            (folder / "state.txt").write_text(f"{options.state}\n")
            (folder / "summary.md").write_text(
                _summary(splits, listing, left_out, problems, options)
            )
            contents.write_beside(outputs.index)


def _list(inputs: Inputs, options: Options, runtime: Runtime) -> Listing:
    """List the data set of the chosen kind."""
    dataset = options.dataset
    if dataset.kind == "table":
        if inputs.table is None:
            raise UserError(
                "dataset.table: kind table needs a CSV; set it to the path of your table"
            )
        return list_table(inputs.table, options.splits, dataset.classes)
    if inputs.root is None:
        raise UserError(
            f"dataset.root: kind {dataset.kind} needs the data set's folder; set it to its path"
        )
    if dataset.kind == "coco":
        watch = partial(Progress, name="draw labels", runtime=runtime, unit="image")
        return list_coco(inputs.root, options.splits, dataset, watch)
    return {"voc": list_voc, "scenes": list_scenes}[dataset.kind](inputs.root, options.splits)


@dataclass(frozen=True)
class _Probe:
    """What opening the files of an image told."""

    height: int
    width: int
    image: str
    masks: str


def _probed(
    listing: Listing, dataset: IndexedImages, contents: Contents, runtime: Runtime
) -> tuple[Listing, list[_Probe], dict[str, UserError]]:
    """Open the image and the masks of every entry.

    Returns:
        the listing without bad images, what was found of each image in it, and what is wrong with
        the others by id.

    Raises:
        UserError: an image is bad and may not be left out; names the first, and how many there are.
            Or a split is left without one.
    """
    found, good, problems = [], [], {}
    with ThreadPoolExecutor(max(runtime.threads, runtime.workers, 1)) as pool:
        results = pool.map(
            partial(_probe, listing.mask_values, dataset.verify, contents), listing.entries
        )
        name = "verify images" if dataset.verify else "measure images"
        progress = Progress(
            zip(listing.entries, results, strict=True),
            name,
            runtime,
            unit="image",
            total=len(listing.entries),
        )
        for entry, result in progress:
            if isinstance(result, UserError):
                problems[entry.id] = result
            else:
                good.append(entry)
                found.append(result)
    kept = {split for entry in good for split in entry.splits}
    empty = [split for split in listing.splits if split not in kept]
    if problems and (empty or not dataset.skip_bad):
        first = next(iter(problems.values()))
        more = f" ({len(problems)} bad images in all)" if len(problems) > 1 else ""
        raise UserError(f"{first}{more}") from first
    return replace(listing, entries=tuple(good)), found, problems


def _probe(
    mask_values: Sequence[int], verify: bool, contents: Contents, entry: Entry
) -> _Probe | UserError:
    """Return an image's size and what its files hold, or what is wrong with it or its masks."""
    try:
        height, width = image_size(entry.image)
        if entry.size not in (None, (height, width)):
            raise UserError(
                f"{entry.image}: is {width}x{height} pixels, its annotations are of "
                f"{entry.size[1]}x{entry.size[0]}; restore it"
            )
        image = contents.look(entry.image)
        if verify and not image.decoded:
            read_image(entry.image)
            contents.decoded(entry.image)
        masks = []
        for path in (entry.mask, entry.context):
            if path is not None:
                mask = contents.look(path)
                if (verify and not mask.decoded) or _mask_size(path) != (height, width):
                    read_mask(path, mask_values, size=(height, width))
                    contents.decoded(path)
                masks.append(mask.digest)
    except UserError as error:
        contents.note(*filter(None, (entry.image, entry.mask, entry.context)))
        return error
    return _Probe(height, width, image.digest, "+".join(masks))


def _mask_size(path: Path) -> tuple[int, int] | None:
    """Return height and width from a mask's header, None where it has none to read."""
    try:
        return image_size(path)
    except UserError:
        return None


def _write(
    folder: Path, listing: Listing, found: Sequence[_Probe], drawn: Mapping[str, str], shards: int
) -> dict[str, Index]:
    """Write the lists of every split, and return its images; ``drawn`` are digests of what the
    masks of a split are drawn from.
    """
    number = {name: i for i, name in enumerate(listing.classes, 1)}
    splits = {}
    for split in listing.splits:
        images, masks = [], []
        for entry, probe in zip(listing.entries, found, strict=True):
            if split in entry.splits:
                labels = tuple(sorted(number[label] for label in entry.labels or ()))
                images.append(
                    ImageRecord(
                        entry.id, entry.image, probe.width, probe.height, labels, probe.image
                    )
                )
                masks.append(
                    MaskRecord(
                        entry.id, entry.mask, entry.context, probe.masks or drawn.get(split, "")
                    )
                )
        splits[split] = Index(listing.classes, listing.mask_values, tuple(images), listing.root)
        splits[split].write(folder, split, shards)
        write_masks(folder, split, masks, listing.root)
    return splits


def _summary(
    splits: Mapping[str, Index],
    listing: Listing,
    left_out: Counter[str],
    problems: Mapping[str, UserError],
    options: Options,
) -> str:
    """Describe the index on one page: images of each class in each split, masks, images left out,
    problems.
    """
    dataset, classes = options.dataset, listing.classes
    masked = {
        entry.id for entry in listing.entries if entry.mask is not None or dataset.kind == "coco"
    }
    titles = (
        "images",
        *classes,
        "without labels",
        "with a mask",
        "left out: no label",
        "left out: none of the classes",
    )
    rows: dict[str, list[str]] = {title: [] for title in titles}
    seen: set[int] = set()
    for split, index in splits.items():
        images = index.images
        count = Counter(label for image in images for label in image.labels)
        seen |= set(count)
        numbers = [len(images), *(count[i] for i in range(1, len(classes) + 1))]
        numbers += [
            sum(not image.labels for image in images),
            sum(image.id in masked for image in images),
        ]
        numbers += [listing.unlabelled.get(split, 0), left_out[split]]
        for cells, value in zip(rows.values(), numbers, strict=True):
            cells.append(str(value))
    lines = [
        f"# Image index ({dataset.kind})",
        "",
        f"| | {' | '.join(listing.splits)} |",
        "|---" * (len(listing.splits) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    checked = (
        "Every image and mask was decoded."
        if dataset.verify
        else "Only the headers were read (verify: false)."
    )
    result = (
        f"{len(problems)} bad images were left out (skip_bad: true):"
        if problems
        else "No problem found."
    )
    most = f"At most {dataset.limit} of each split (limit). " if dataset.limit else ""
    lines += [
        "",
        f"{len(listing.entries)} images, {len(classes)} classes, {options.shards} shards a split. "
        f"{most}{checked} {result}",
    ]
    if problems:
        lines += [
            "",
            *(f"- {name}: {problem}" for name, problem in list(problems.items())[:MOST_PROBLEMS]),
        ]
        lines += [f"- and {len(problems) - MOST_PROBLEMS} more"] * (len(problems) > MOST_PROBLEMS)
    never = [name for i, name in enumerate(classes, 1) if i not in seen]
    if never:
        lines += ["", f"Classes without any image: {', '.join(never)}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(run)
