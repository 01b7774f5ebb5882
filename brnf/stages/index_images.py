"""Stage: list the images of a data set, with sizes, labels, splits and shards; the only stage that looks for images."""

import csv
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from brnf.data.entries import Entry, Listing, select_classes
from brnf.data.images import image_size, read_image
from brnf.data.index import ImageRecord, Index, shard_of
from brnf.data.masks import read_mask
from brnf.data.table import list_table
from brnf.data.voc import list_scenes, list_voc
from brnf.errors import UserError
from brnf.stages.common import Progress, Runtime, run_stage
from brnf.store.files import locked, whole_directory

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """Where the data set is: a root (kinds voc and scenes) or a table (kind table)."""

    root: Path | None = None
    """Folder that holds VOCdevkit, VOCdevkit itself, VOC2012, or what render_scenes wrote."""
    table: Path | None = None
    """CSV image,labels[,mask][,split] of own images; paths are relative to it."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    index: Path
    """Folder for classes.csv, images.csv, masks.csv, summary.md and shards/<split>/<number>.txt (shards without an image have no file)."""


@dataclass(frozen=True)
class Options:
    """What is listed (method.md section 1)."""

    kind: Literal["voc", "table", "scenes"] = "voc"
    """Layout of the data set."""
    splits: tuple[str, ...] = ()
    """Splits to list; none given: all that the data set has."""
    classes: tuple[str, ...] = ()
    """Classes in the order of their indices 1..C; none given: all. Of VOC and scenes some will do; images of none are left out."""
    shards: int = 8
    """Number of shards of a split; an image's shard is a hash of its id."""
    verify: bool = True
    """Decode every image and mask fully, to find damaged ones now."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """List the images of a data set with their sizes, labels, splits and shards."""
    if not 1 <= options.shards <= 10_000:
        raise UserError(f"shards: {options.shards} is out of range; choose 1 to 10000")
    with locked(outputs.index):
        listing, left_out = select_classes(_list(inputs, options), options.classes)
        index = Index(listing.classes, listing.mask_values, _records(listing, options, runtime))
        with whole_directory(outputs.index) as folder:
            index.write(folder)
            _write_masks(folder / "masks.csv", listing)
            _write_shards(folder / "shards", index, options.shards)
            (folder / "summary.md").write_text(_summary(index, listing, left_out, options))


def _list(inputs: Inputs, options: Options) -> Listing:
    """List the data set of the chosen kind."""
    if options.kind == "table":
        if inputs.table is None:
            raise UserError("dataset.table: kind table needs a CSV; set it to the path of your table")
        return list_table(inputs.table, options.splits, options.classes)
    if inputs.root is None:
        raise UserError(f"dataset.root: kind {options.kind} needs the data set's folder; set it to its path")
    return (list_voc if options.kind == "voc" else list_scenes)(inputs.root, options.splits)


def _records(listing: Listing, options: Options, runtime: Runtime) -> tuple[ImageRecord, ...]:
    """Open every image and mask, and return the records of the images.

    Raises:
        UserError: names the first bad file, and how many there are.
    """
    number = {name: i for i, name in enumerate(listing.classes, 1)}
    records, problems = [], []
    with ThreadPoolExecutor(max(runtime.threads, runtime.workers, 1)) as pool:
        results = pool.map(partial(_probe, mask_values=listing.mask_values, verify=options.verify), listing.entries)
        name = "verify images" if options.verify else "measure images"
        progress = Progress(zip(listing.entries, results, strict=True), name, runtime, unit="image", total=len(listing.entries))
        for entry, result in progress:
            if isinstance(result, UserError):
                problems.append(result)
                continue
            labels = tuple(sorted(number[label] for label in entry.labels or ()))
            records.append(ImageRecord(entry.id, entry.image, result[1], result[0], labels, entry.splits))
    if problems:
        more = f" ({len(problems)} bad images in all)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}") from problems[0]
    return tuple(records)


def _probe(entry: Entry, mask_values: tuple[int, ...], verify: bool) -> tuple[int, int] | UserError:
    """Return an image's height and width, or what is wrong with it or its masks."""
    try:
        size = image_size(entry.image)
        if verify:
            read_image(entry.image)
        for mask in (entry.mask, entry.context):
            if mask is not None and (verify or _mask_size(mask) != size):
                read_mask(mask, mask_values, size=size)
    except UserError as error:
        return error
    return size


def _mask_size(path: Path) -> tuple[int, int] | None:
    """Return height and width from a mask's header, None where it has none to read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError):
        return None


def _write_masks(path: Path, listing: Listing) -> None:
    """Write which masks belong to which image, apart from what training may know."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "mask", "context"])
        rows.writerows((entry.id, entry.mask or "", entry.context or "") for entry in listing.entries)


def _write_shards(folder: Path, index: Index, shards: int) -> None:
    """Write one list of ids for each split and shard that holds an image."""
    lists: dict[tuple[str, int], list[str]] = {}
    for image in index.images:
        for split in image.splits:
            lists.setdefault((split, shard_of(image.id, shards)), []).append(image.id)
    for (split, shard), ids in lists.items():
        path = folder / split / f"{shard}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(name + "\n" for name in ids))


def _summary(index: Index, listing: Listing, left_out: Counter[str], options: Options) -> str:
    """Describe the index on one page: images of each class in each split, masks, images left out."""
    masked = {entry.id for entry in listing.entries if entry.mask is not None}
    rows: dict[str, list[str]] = {
        name: [] for name in ("images", *index.classes, "without labels", "with a mask", "left out: none of the classes")
    }
    for split in listing.splits:
        images = index.split(split)
        count = Counter(label for image in images for label in image.labels)
        numbers = [len(images), *(count[i] for i in range(1, len(index.classes) + 1))]
        numbers += [sum(not image.labels for image in images), sum(image.id in masked for image in images), left_out[split]]
        for cells, value in zip(rows.values(), numbers, strict=True):
            cells.append(str(value))
    lines = [f"# Image index ({options.kind})", "", f"| | {' | '.join(listing.splits)} |", "|---" * (len(listing.splits) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    checked = "Every image and mask was decoded." if options.verify else "Only the headers were read (verify: false)."
    lines += ["", f"{len(index.images)} images, {len(index.classes)} classes, {options.shards} shards a split. {checked} No problem found."]
    never = [name for i, name in enumerate(index.classes, 1) if not any(i in image.labels for image in index.images)]
    if never:
        lines += ["", f"Classes without any image: {', '.join(never)}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(run)
