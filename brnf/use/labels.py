"""Pseudo-labels of one model and seed in VOC's layout, for other programs to train on."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml
from PIL import Image

from brnf.data.images import ORIENTATION, read_image
from brnf.data.index import ImageRecord, Index
from brnf.data.masks import colour_map, restore_table, write_mask
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.evaluate.truth import MaskFolders
from brnf.store.files import MARK, atomic_directory, locked
from brnf.store.label_type import ignored_value

__all__ = ["write_labels"]

LAYOUT = Path("VOCdevkit", "VOC2012")
"""Where torchvision looks; mmsegmentation is told."""
WRITTEN = {MARK, "README.md", "classes.csv", "mmsegmentation.py", "VOCdevkit"}

README = """\
# Pseudo-labels of {source}

{count} photographs of the split `{split}`. A mask in `{layout}/SegmentationClass` holds 0 for
background, the values of `classes.csv` for the classes, and {ignored} where it does not say.
Photographs in `{layout}/JPEGImages` are links to the data set unless they had to be turned upright.

torchvision, with a network of {outputs} outputs and the loss's `ignore_index={ignored}`:

```python
from torchvision.datasets import VOCSegmentation

dataset = VOCSegmentation({out!r}, year="2012", image_set="train")
```

mmsegmentation: let your configuration inherit `mmsegmentation.py` after that of the network, and
set `num_classes` of its heads to {outputs}.
"""
MMSEGMENTATION = """\
# Pseudo-labels for mmsegmentation 1.x; num_classes of the heads is {outputs}.
data_root = {root!r}
metainfo = dict(
    classes={names},
    palette={palette},
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="ImageSets/Segmentation/train.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        img_suffix=".jpg",
        seg_map_suffix=".png",
        reduce_zero_label=False,
        pipeline=train_pipeline,
    ),
)
"""


def write_labels(run: Path, out: Path, split: str | None = None, overwrite: bool = False) -> str:
    """Write pseudo-labels, whole or not at all, and return what was written.

    Arguments:
        run: results of one model and seed, ``results/<name>/<model>/seed<k>``.
        out: folder to write: ``VOCdevkit/VOC2012`` with masks in the data set's own values,
            photographs and lists, ``classes.csv``, and the lines that other programs need.
        split: of the images; None takes the one that was trained on.
        overwrite: replace a folder that an earlier call wrote.

    Raises:
        UserError: there are no pseudo-labels, one cannot be read, or the folder may not be
            replaced.
    """
    results = run.resolve().parent.parent
    folders = run / "pseudo_labels"
    known = sorted(path.name for path in folders.glob("*") if path.is_dir())
    if not known:
        raise UserError(
            f"{folders}: no pseudo-labels here; name results/<name>/<model>/seed<k> of a finished "
            "run"
        )
    split = split or _trained_split(results, known)
    if split not in known:
        raise UserError(
            f"{folders}: no pseudo-labels of split '{split}'; there are those of {', '.join(known)}"
        )
    _check(out, overwrite)
    index = Index.of_split(results / "index", split)
    shards = tuple(path for path in sorted((folders / split).iterdir()) if path.is_dir())
    masks = MaskFolders(shards)
    values = restore_table(index.mask_values)
    with locked(out), atomic_directory(out) as folder:
        place = folder / LAYOUT
        for name in ("SegmentationClass", "JPEGImages", "ImageSets/Segmentation"):
            (place / name).mkdir(parents=True)
        for record in Progress(index.images, "write labels", Runtime(), unit="image"):
            mask = values[masks.read(record)]
            write_mask(place / "SegmentationClass" / f"{record.id}.png", mask)
            _place(record, results.parent.parent, place / "JPEGImages" / f"{record.id}.jpg")
        for name in {"train", split}:
            ids = "".join(f"{record.id}\n" for record in index.images)
            (place / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(ids)
        _describe(folder, run, out, split, index)
    return f"{out}: {len(index.images)} pseudo-labels of split {split}; see {out / 'README.md'}"


def _trained_split(results: Path, known: list[str]) -> str:
    """Return the split that the experiment is trained on, or the only one there is.

    Raises:
        UserError: neither is known.
    """
    with suppress(OSError, yaml.YAMLError, LookupError, TypeError):
        return str(yaml.safe_load((results / "config.yaml").read_text())["dataset"]["train"])
    if len(known) > 1:
        raise UserError(
            f"{results / 'config.yaml'}: does not tell the training split; give --split, one of "
            f"{', '.join(known)}"
        )
    return known[0]


def _check(out: Path, overwrite: bool) -> None:
    """Refuse to replace what an earlier call did not write, or was not asked to replace.

    Raises:
        UserError: the folder has to stay.
    """
    if not out.exists():
        return
    there = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if there - WRITTEN:
        raise UserError(
            f"{out}: holds {sorted(there - WRITTEN)[0]}, which is not of brnf labels, and stays; "
            "give another folder"
        )
    if there and not overwrite:
        raise UserError(f"{out}: is there already; give another folder, or --overwrite")


def _place(record: ImageRecord, base: Path, target: Path) -> None:
    """Link a photograph, or write it upright where other programs would see it turned or without
    its white ground.

    Arguments:
        record: of the photograph.
        base: that a relative path of the index starts from, the folder that Snakemake ran in.
        target: the link or file to make.
    """
    path = base / record.path
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) != 1
            plain = image.mode in ("RGB", "L") and "transparency" not in image.info
    except (OSError, ValueError):
        turned = plain = False  # read_image tells what is wrong
    if plain and not turned:
        target.symlink_to(path)
    else:
        Image.fromarray(read_image(path)).save(target, format="JPEG", quality=95)


def _describe(folder: Path, run: Path, out: Path, split: str, index: Index) -> None:
    """Write the list of classes, and the lines that other programs need."""
    rows = list(_values(index))
    with (folder / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("value", "name", "red", "green", "blue"))
        writer.writerows((value, name, *colour) for value, name, colour in rows if name)
    words = {
        "source": "/".join(run.resolve().parts[-3:]),
        "count": len(index.images),
        "split": split,
        "layout": LAYOUT,
        "out": str(out.absolute()),
        "root": str(out.absolute() / LAYOUT),
        "outputs": len(rows),
        "ignored": ignored_value(max(index.mask_values)),
        "names": tuple(name or f"unused {value}" for value, name, _ in rows),
        "palette": [list(colour) for _, _, colour in rows],
    }
    (folder / "README.md").write_text(README.format(**words))
    (folder / "mmsegmentation.py").write_text(MMSEGMENTATION.format(**words))


def _values(index: Index) -> Iterator[tuple[int, str, tuple[int, ...]]]:
    """Yield each value up to the largest of a mask, its class, "" for none, and its colour."""
    names = {0: "background", **dict(zip(index.mask_values, index.classes, strict=True))}
    for value, colour in enumerate(colour_map(max(names) + 1).tolist()):
        yield value, names.get(value, ""), tuple(colour)
