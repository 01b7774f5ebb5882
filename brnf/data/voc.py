"""PASCAL VOC 2012 as it is downloaded, and data sets in the same layout (``docs/method.md`` section
1).

Every file is named by a folder of the layout and an image id, and ids hold no separators: no list
can lead out of the root. Symbolic links in the root are followed, since who may place a link there
may place a file, and large data sets are often put together from links; what a link leads to must
be an ordinary file.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.parsers import expat

from brnf.data.entries import Entry, Listing, is_file, is_safe_id
from brnf.errors import UserError

__all__ = [
    "VOC_CLASSES",
    "derive_train_aug",
    "find_voc",
    "list_scenes",
    "list_voc",
    "read_object_names",
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


def list_voc(root: Path, splits: Sequence[str] = ()) -> Listing:
    """List VOC 2012; without ``splits``: train, train_aug if there are its masks, and val."""
    folder = find_voc(root)
    augmented = (folder / "SegmentationClassAug").is_dir()
    return _listing(
        folder,
        VOC_CLASSES,
        splits or (("train", "train_aug", "val") if augmented else ("train", "val")),
    )


def list_scenes(root: Path, splits: Sequence[str] = ()) -> Listing:
    """List rendered scenes: VOC's layout, with ``classes.txt`` and masks of the contexts."""
    folder = find_voc(root)
    try:
        classes = tuple((folder / "classes.txt").read_text().split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{folder / 'classes.txt'}: cannot be read ({error}); run render_scenes again"
        ) from error
    listing = _listing(folder, classes, splits or ("train", "val"))
    return replace(listing, sources=(folder / "classes.txt", *listing.sources))


def _listing(folder: Path, classes: tuple[str, ...], splits: Sequence[str]) -> Listing:
    """Collect the images of the splits with their labels and masks."""
    names = tuple(dict.fromkeys(splits))
    splits_of: dict[str, list[str]] = {}
    for split in names:
        for image in read_split(folder, split):
            splits_of.setdefault(image, []).append(split)
    files = {name: _stems(folder / name) for name in MASK_FOLDERS}
    entries = []
    annotations = []
    for image, own in sorted(splits_of.items()):
        masks = [
            folder / name / f"{image}.png"
            for name in ("SegmentationClass", "SegmentationClassAug")
            if image in files[name]
        ]
        context = (
            folder / "ContextClass" / f"{image}.png" if image in files["ContextClass"] else None
        )
        annotation = folder / "Annotations" / f"{image}.xml"
        labels = _labels(annotation, classes, set(own) <= set(UNLABELLED_SPLITS))
        annotations += [] if labels is None else [annotation]
        entries.append(
            Entry(
                image,
                folder / "JPEGImages" / f"{image}.jpg",
                labels,
                tuple(own),
                masks[0] if masks else None,
                context,
            )
        )
    sources = (
        *_lists(folder, names),
        *(folder / name for name in MASK_FOLDERS if (folder / name).is_dir()),
        *annotations,
    )
    return Listing(
        classes, tuple(range(1, len(classes) + 1)), names, tuple(entries), sources, folder
    )


def _lists(folder: Path, splits: Sequence[str]) -> list[Path]:
    """Return the lists that splits are read or derived from, and their folder, in which others may
    appear.
    """
    lists = folder / "ImageSets" / "Segmentation"
    made_of = {"train_aug": ("train", "val"), "trainval": ("trainval", "train", "val")}
    names = {name for split in splits for name in made_of.get(split, (split,))}
    return [
        lists,
        *(lists / f"{name}.txt" for name in sorted(names) if (lists / f"{name}.txt").exists()),
    ]


def _stems(folder: Path) -> frozenset[str]:
    """Return the ids with a mask in a folder, without files whose name is no id."""
    return frozenset(path.stem for path in folder.glob("*.png") if is_safe_id(path.stem))


def read_split(folder: Path, split: str) -> list[str]:
    """Return the image ids of a split, sorted.

    ``train_aug`` is derived, as the data set has no list of it, and so is ``trainval`` where its
    list is missing.

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
    path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if split == "train_aug":
        ids = derive_train_aug(folder)
    elif split == "trainval" and not path.exists():
        ids = sorted({*read_split(folder, "train"), *read_split(folder, "val")})
    else:
        ids = _read_list(path, split)
    if not ids:
        raise UserError(f"{path}: split '{split}' is empty; add image ids, one a line")
    return ids


def _read_list(path: Path, split: str) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(
            sorted({other.stem for other in path.parent.glob("*.txt")} | {"train_aug"})
        )
        raise UserError(
            f"{path}: split '{split}' cannot be read; choose one of: {known}"
        ) from error
    ids = [line.split()[0] for line in lines if line.strip()]
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
            f"{masks}: missing, and train_aug needs its masks' names; add the SBD masks or set the "
            "split to train"
        )
    return sorted(
        (_stems(masks) - set(read_split(folder, "val"))) | set(read_split(folder, "train"))
    )


def _labels(path: Path, classes: tuple[str, ...], may_lack: bool) -> frozenset[str] | None:
    if may_lack:  # whatever a test download carries, its labels are not used
        return None
    names = read_object_names(path)
    if unknown := sorted(names - set(classes)):
        raise UserError(
            f"{path}: unknown class '{unknown[0]}'; the data set has: {', '.join(classes)}"
        )
    if not names:
        raise UserError(
            f"{path}: names no object; an image-level label is needed, or take the image off the "
            "list"
        )
    return frozenset(names)


def read_object_names(path: Path) -> set[str]:
    """Return the names of the objects in a VOC annotation (not those of their parts).

    Document types and entities are refused: an annotation needs none, and they can blow up a
        parser.

    Raises:
        UserError: the file is missing or damaged.
    """
    names: set[str] = set()
    open_tags: list[str] = []
    text: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        open_tags.append(tag)
        text.clear()

    def end(_: str) -> None:
        if open_tags == ["annotation", "object", "name"]:
            names.add("".join(text).strip())
        open_tags.pop()

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}: an annotation with a document type is not read; remove its <!DOCTYPE ...>"
        )

    if not is_file(path):
        raise UserError(f"{path}: annotation is missing; restore it or take the image off the list")
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = (
        start,
        end,
        text.append,
    )
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        raise UserError(f"{path}: annotation cannot be read ({error}); restore the file") from error
    return names
