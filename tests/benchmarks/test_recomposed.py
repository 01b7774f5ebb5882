"""Recomposed photographs hold what their masks say, on the backgrounds that were asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.recomposed import CLASSES, VALUES, context_of, main
from brnf.data.voc import find_voc, list_voc

OBJECT = [(200, 40 * label, 30) for label in range(5)]
GROUND = [(20, 40 * label, 200) for label in range(5)]


def write_voc(root: Path) -> Path:
    """Write photographs of two objects, a small one of them cut by the border, on a plain ground of
    their class.
    """
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClassAug", "Annotations", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for split in lists:
        for label, value in enumerate(VALUES):
            image = np.full((240, 320, 3), GROUND[label], np.uint8)
            mask = np.zeros((240, 320), np.uint8)
            for box in (np.s_[10:80, 10:90], np.s_[160:240, 250:310]):
                image[box], mask[box] = OBJECT[label], value
            name = f"{split}{label}"
            Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.jpg", quality=100)
            Image.fromarray(mask).save(folder / "SegmentationClassAug" / f"{name}.png")
            lists[split].append(name)
        text = "".join(f"{name}\n" for name in lists[split])
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text)
    return root


def near(pixels: np.ndarray, colour: tuple[int, ...]) -> bool:
    """Return whether most pixels have a colour, but for what JPEG and soft edges change."""
    return bool((np.abs(np.median(pixels, 0) - colour) < 25).all())


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_masks_tell_what_was_pasted_where(tmp_path: Path, rho: float) -> None:
    main(write_voc(tmp_path), tmp_path / "made", rho=(rho,), train=30, val=5)
    folder = find_voc(tmp_path / "made" / f"rho-{rho:g}")
    listing = list_voc(folder, ("train", "val"), CLASSES)
    assert len(listing.entries) == 35
    for entry in listing.entries:
        assert entry.mask is not None and entry.context is not None and entry.labels
        image, mask, context = (
            np.asarray(Image.open(path)) for path in (entry.image, entry.mask, entry.context)
        )
        shown = set(np.unique(mask).tolist()) - {0}
        assert {CLASSES[VALUES.index(value)] for value in shown} == set(entry.labels)
        for value in shown:
            assert near(image[mask == value], OBJECT[VALUES.index(value)])
        (owner,) = set(np.unique(context).tolist()) - {0}
        assert ((context == 0) == (mask > 0)).all()
        kind = context_of(VALUES.index(owner))
        assert near(image[context > 0], GROUND[kind])
        if entry.splits == ("train",) and len(shown) == 1:
            assert (owner in shown) == bool(rho)  # its class has its context beside it, or never
            assert kind != VALUES.index(*shown)  # and never its own ground


def test_the_same_images_are_made_again(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    for name in ("first", "second"):
        main(root, tmp_path / name, rho=(0.6,), train=4, val=2)
    files = sorted((tmp_path / "first").rglob("*.*g"))
    assert len([path for path in files if path.suffix == ".jpg"]) == 6
    for path in files:
        assert (
            path.read_bytes()
            == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()
        )
