"""PASCAL VOC 2012 as it is downloaded, and data sets in the same layout (``docs/method.md`` section
1).

Every file is named by a folder of the layout and an image id, and ids hold no separators: no list
can lead out of the root. Symbolic links in the root are followed, since who may place a link there
may place a file, and large data sets are often put together from links; what a link leads to must
be an ordinary file.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from brnf.data.entries import (
    Entry,
    Fault,
    Listing,
    is_safe_id,
    told,
)
from brnf.data.labels import spelling
from brnf.data.voc_annotations import read_labels
from brnf.errors import UserError

__all__ = [
    "VOC_CLASSES",
    "derive_train_aug",
    "find_voc",
    "has_voc",
    "list_scenes",
    "list_voc",
    "read_list",
    "read_split",
]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
UNLABELLED_SPLITS = ("test",)
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug", "ContextClass")
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm")
"""Endings, in any capitals; the first that is there counts."""
PATH_OF_PHOTOGRAPH = re.compile(r"/?JPEGImages/([^/]+)\.(?:jpe?g|png)", re.IGNORECASE)
"""How the lists of other code bases name an image."""


def has_voc(root: Path) -> bool:
    """Return whether :func:`find_voc` finds VOC 2012 in a folder."""
    try:
        find_voc(root)
    except UserError:
        return False
    return True


def find_voc(root: Path) -> Path:
    """Return the folder with JPEGImages in ``root``, which may be it, VOCdevkit, or the folder that
    holds VOCdevkit.

    Raises:
        UserError: there is no such folder.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir() and (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    raise UserError(
        f"{root}: no VOC 2012 here; expected [VOCdevkit/]VOC2012/ with JPEGImages, Annotations, "
        "ImageSets/Segmentation, SegmentationClass"
    )


def list_voc(
    root: Path, splits: Sequence[str] = (), classes: Sequence[str] = (), skip_bad: bool = False
) -> Listing:
    """List VOC 2012, or a data set in its layout.

    Arguments:
        root: see :func:`find_voc`.
        splits: to list; empty lists train, train_aug if it can be told, and val.
        classes: where one of them is none of VOC's, those of the data set, in the order of their
            mask values 1..C.
        skip_bad: whether images whose annotation has a fault are left out.

    Raises:
        UserError: a list or an annotation is missing or damaged, or names an unknown class.
    """
    folder = find_voc(root)
    augmented = (folder / "SegmentationClassAug").is_dir() or _list(folder, "train_aug").exists()
    of_voc = {spelling(name) for name in VOC_CLASSES}
    own = any(spelling(name) not in of_voc for name in classes)
    return _listing(
        folder,
        tuple(classes) if own else VOC_CLASSES,
        splits or (("train", "train_aug", "val") if augmented else ("train", "val")),
        skip_bad,
    )


def list_scenes(root: Path, splits: Sequence[str] = ()) -> Listing:
    """List rendered scenes: VOC's layout, with ``classes.txt`` and masks of the contexts."""
    folder = find_voc(root)
    try:
        classes = tuple((folder / "classes.txt").read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{folder / 'classes.txt'}: cannot be read ({error}); run render_scenes again"
        ) from error
    listing = _listing(folder, classes, splits or ("train", "val"))
    return replace(listing, sources=(folder / "classes.txt", *listing.sources))


def _listing(
    folder: Path, classes: tuple[str, ...], splits: Sequence[str], skip_bad: bool = False
) -> Listing:
    """Collect the images of the splits with their labels and masks."""
    names = tuple(dict.fromkeys(splits))
    splits_of: dict[str, list[str]] = {}
    for split in names:
        for image in read_split(folder, split):
            splits_of.setdefault(image, []).append(split)
    photographs = _photographs(folder / "JPEGImages")
    files = {name: _stems(folder / name) for name in MASK_FOLDERS}
    entries, annotations, faults = [], [], []
    written = Counter[str]()
    for image, own in sorted(splits_of.items()):
        labels = None  # whatever a test download carries, its labels are not used
        if not set(own) <= set(UNLABELLED_SPLITS):
            annotation = folder / "Annotations" / f"{image}.xml"
            try:
                labels = read_labels(annotation, classes, written)
            except UserError as error:
                faults.append(Fault(image, error, (annotation,)))
                continue
            annotations.append(annotation)
        masks = (folder / name / f"{image}.png" for name in MASK_FOLDERS if image in files[name])
        of = {mask.parent.name: str(mask) for mask in masks}
        entries.append(
            Entry(
                image,
                str(photographs.get(image, folder / "JPEGImages" / f"{image}.jpg")),
                labels,
                tuple(own),
                of.get("SegmentationClass", of.get("SegmentationClassAug")),
                of.get("ContextClass"),
            )
        )
    if faults and not (skip_bad and entries):
        raise told(faults)
    sources = (
        *_lists(folder, names),
        *(folder / name for name in MASK_FOLDERS if (folder / name).is_dir()),
        *annotations,
    )
    spelled = ", ".join(f"{count} of {name}" for name, count in sorted(written.items()))
    return Listing(
        classes,
        tuple(range(1, len(classes) + 1)),
        names,
        tuple(entries),
        sources,
        folder,
        faults=tuple(faults),
        notes=(f"{folder / 'Annotations'}: names in another spelling: {spelled}",) * bool(written),
    )


def _lists(folder: Path, splits: Sequence[str]) -> list[Path]:
    """Return the lists that splits are read or derived from, and their folder, in which others may
    appear.
    """
    made_of = {
        "train_aug": ("train_aug", "train", "val"),
        "trainval": ("trainval", "train", "val"),
    }
    names = {name for split in splits for name in made_of.get(split, (split,))}
    lists = (_list(folder, name) for name in sorted(names))
    return [folder / "ImageSets" / "Segmentation", *(path for path in lists if path.exists())]


def _list(folder: Path, split: str) -> Path:
    return folder / "ImageSets" / "Segmentation" / f"{split}.txt"


def _photographs(folder: Path) -> Mapping[str, Path]:
    """Return the photographs in a folder by id."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PHOTOGRAPHS:
            other = found.setdefault(path.stem, path)
            found[path.stem] = min(other, path, key=_preference)
    return found


def _preference(photograph: Path) -> tuple[bool, int]:
    return photograph.suffix != ".jpg", PHOTOGRAPHS.index(photograph.suffix.lower())


def _stems(folder: Path) -> frozenset[str]:
    """Return the ids with a mask in a folder, without files whose name is no id."""
    return frozenset(path.stem for path in folder.glob("*.png") if is_safe_id(path.stem))


def read_split(folder: Path, split: str) -> list[str]:
    """Return the image ids of a split, sorted.

    Where their lists are missing, as in the data set itself, ``train_aug`` and ``trainval`` are
    derived.

    Arguments:
        folder: that of :func:`find_voc`.
        split: train, val, trainval, train_aug, test, or another list in ImageSets/Segmentation.

    Raises:
        UserError: there is no such split, or it is empty.
    """
    if not is_safe_id(split):
        raise UserError(
            f"split '{split}': is no name of a list; use letters, digits, _ - and . only"
        )
    path = _list(folder, split)
    if split == "train_aug" and not path.exists():
        ids = derive_train_aug(folder)
    elif split == "trainval" and not path.exists():
        ids = sorted({*read_split(folder, "train"), *read_split(folder, "val")})
    else:
        ids = read_list(path, split)
    if not ids:
        raise UserError(f"{path}: split '{split}' is empty; add image ids, one a line")
    return ids


def read_list(path: Path, split: str) -> list[str]:
    """Return the image ids of a list, sorted.

    Arguments:
        path: of the list, an id or a photograph's path a line.
        split: what it lists, for messages.

    Raises:
        UserError: it cannot be read, or a line begins with no id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(
            sorted({other.stem for other in path.parent.glob("*.txt")} | {"train_aug"})
        )
        raise UserError(
            f"{path}: split '{split}' cannot be read; choose one of: {known}"
        ) from error
    words = [line.split()[0] for line in lines if line.strip()]
    ids = [PATH_OF_PHOTOGRAPH.sub(r"\1", word) for word in words]
    if unsafe := [name for name in ids if not is_safe_id(name)]:
        raise UserError(
            f"{path}: '{unsafe[0]}' is no image id; use letters, digits, _ - and . only"
        )
    return sorted(set(ids))


def derive_train_aug(folder: Path) -> list[str]:
    """Return train_aug (10,582 images): those with a mask in SegmentationClassAug that are not in
    val, and train.

    Raises:
        UserError: there is no SegmentationClassAug.
    """
    masks = folder / "SegmentationClassAug"
    if not masks.is_dir():
        raise UserError(
            f"{masks}: missing, and train_aug needs its masks' names; add them, or the list "
            f"{_list(folder, 'train_aug')}, or set the split to train"
        )
    return sorted(
        (_stems(masks) - set(read_split(folder, "val"))) | set(read_split(folder, "train"))
    )
