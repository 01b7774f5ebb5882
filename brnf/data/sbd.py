"""SBD's segmentations of VOC's photographs (Hariharan et al., ICCV 2011), a MATLAB file an image,
brought to VOC's layout.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from brnf.data.masks import write_palette_png
from brnf.data.voc import VOC_CLASSES, find_voc, read_list, read_split
from brnf.errors import UserError
from brnf.store.files import atomic_directory, atomic_file

__all__ = ["convert_sbd", "read_segmentation"]

PLACE = Path("benchmark_RELEASE/dataset")
"""Where the archive has its lists and ``cls``."""
MASKS = "SegmentationClassAug"


def convert_sbd(
    folder: Path, root: Path, watch: Callable[[Sequence[str]], Iterable[str]] = iter
) -> tuple[int, int]:
    """Write SBD's masks into ``SegmentationClassAug``, and the list ``train_aug.txt``: SBD's images
    and those of VOC's train, without VOC's val.

    Arguments:
        folder: into which the archive was unpacked.
        root: of VOC 2012, see :func:`brnf.data.voc.find_voc`.
        watch: goes through the images, such as to show progress.

    Returns:
        The number of masks, and that of the images in the list.

    Raises:
        UserError: a file is missing or damaged, or masks or a list of somebody else stand there.
    """
    voc, sbd = find_voc(root), folder / PLACE
    val = set(read_split(voc, "val"))
    listed = {image for name in ("train", "val") for image in read_list(sbd / f"{name}.txt", name)}
    images = sorted(listed - val)
    masks, train_aug = voc / MASKS, voc / "ImageSets" / "Segmentation" / "train_aug.txt"
    content = "".join(f"{image}\n" for image in sorted({*images, *read_split(voc, "train")}))
    if train_aug.exists() and train_aug.read_bytes() != content.encode():
        raise UserError(f"{train_aug}: is another list than SBD's; move it away to replace it")
    if others := {path.name for path in masks.glob("[!.]*")} - {f"{image}.png" for image in images}:
        problem = f"holds {min(others)}, which is none of SBD's masks"
        raise UserError(f"{masks}: {problem}; move the folder away to replace it")
    with atomic_directory(masks) as temporary:
        for image in watch(images):
            mask = read_segmentation(sbd / "cls" / f"{image}.mat")
            write_palette_png(temporary / f"{image}.png", mask)
    with atomic_file(train_aug) as temporary:
        temporary.write_text(content)
    return len(images), content.count("\n")


def read_segmentation(path: Path) -> NDArray[np.uint8]:
    """Read the classes of one image, [H, W] uint8: 0 background, 1..20 VOC's classes.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    try:
        found = np.asarray(scipy.io.loadmat(path)["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # the reader meets damaged bytes with whatever they happen to cause
        reason = str(error)[:120] or type(error).__name__
        problem = f"SBD's segmentation cannot be read ({reason})"
        raise UserError(f"{path}: {problem}; unpack the archive again") from error
    if found.ndim != 2 or found.dtype.kind not in "uif" or not found.size:
        raise UserError(f"{path}: holds no segmentation; unpack the archive again")
    if not np.isin(found, range(len(VOC_CLASSES) + 1)).all():
        problem = f"its values are not 0 to {len(VOC_CLASSES)}"
        raise UserError(f"{path}: {problem}; unpack the archive again")
    return found.astype(np.uint8)
