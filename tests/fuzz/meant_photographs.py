"""Photographs that must be turned, or have more than 8 bits."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data.images import read_image
from brnf.data.index import Index
from brnf.evaluate.truth import GroundTruth
from brnf.stages.index_images import Inputs
from tests.fuzz.meant import drawn_coco, indexed, meant_kind, png, warned
from tests.fuzz.runner import Kind

__all__ = ["photograph_kinds"]

UPRIGHT_TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
SIZES = ((20, 24), (24, 24), (30, 16))
TURNED = ("upright mask", "upright outline", "unturned mask", "unturned outline", "tagged mask")


def stored(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels as a camera stores them that was held in a certain way."""
    method = UPRIGHT_TO_STORED[orientation]
    image = Image.fromarray(values)
    return np.array(image if method is None else image.transpose(method))


def read_turned(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Index a photograph with an EXIF orientation, and compare its pixels and its truth."""
    size = SIZES[int(random.integers(len(SIZES)))]
    orientation = 1 if change == "plain" else int(random.integers(1, 9))
    picture, mask = np.full((*size, 3), 40, np.uint8), np.zeros(size, np.uint8)
    picture[:8, :10], picture[:8, 10:], mask[2:9, 1:6] = (220, 30, 30), (30, 220, 30), 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    form = str(random.choice(["JPEG", "PNG", "TIFF", "WEBP"]))
    root = folder / "coco" / "train2014" if "outline" in change else folder
    root.mkdir(parents=True, exist_ok=True)
    settings = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    settings |= {"lossless": True} if form == "WEBP" else {}
    Image.fromarray(stored(picture, orientation)).save(
        root / "a.photo", form, exif=exif, **settings
    )
    drawn = stored(mask, orientation) if "unturned" in change else mask
    if "outline" in change:
        truth, index_folder = outlined(folder, drawn)
    else:
        tag = exif if change == "tagged mask" else Image.Exif()
        Image.fromarray(drawn).save(folder / "a.png", exif=tag)
        (folder / "table.csv").write_text("image,labels,mask\na.photo,cat,a.png\n")
        inputs = Inputs(table=folder / "table.csv")
        index_folder = indexed(folder, IndexedImages(kind="table"), inputs)
        truth = GroundTruth(Index.of_split(index_folder, "train"), index_folder, "train")
    image = Index.of_split(index_folder, "train").images[0]
    assert (image.height, image.width) == size
    found = read_image(image.path)
    assert found.shape[:2] == size and np.abs(found.astype(int) - picture).mean() < 10
    right = np.array_equal(truth.objects(image), mask)
    assert right or warned(index_folder, "look at them"), "wrong without a word"
    assert change in ("plain", "tagged mask") or "upright" not in change or right
    return warned(index_folder, "turned upright")


def outlined(folder: Path, mask: np.ndarray) -> tuple[GroundTruth, Path]:
    """Index the photograph by an outline in COCO's file, and draw its truth."""
    flat = mask.T.ravel().tolist()
    steps = [0, *np.flatnonzero(np.diff([0, *flat, -1])).tolist()]
    annotation = {
        **{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0},
        "segmentation": {"size": list(mask.shape), "counts": np.diff(steps).tolist()},
    }
    listed = {"id": 1, "file_name": "a.photo", "height": mask.shape[0], "width": mask.shape[1]}
    content = {
        "images": [listed],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "coco" / "annotations").mkdir()
    (folder / "coco" / "annotations" / "instances_train2014.json").write_text(json.dumps(content))
    _, truth, index = drawn_coco(folder)
    return truth, index


DEEP = (
    *("10 bits", "12 bits", "14 bits", "16 bits", "16 bits colour", "0 to 1", "0 to 255"),
    *("12 bits colour", "0 to 2550", "negative", "not a number", "32 bits", "dark"),
)


def deep_file(change: str, values: np.ndarray, random: np.random.Generator) -> bytes:
    """Return gray values 0..255 as a picture of more bits."""
    fine = random.integers(0, 256, values.shape)
    if change in ("plain", "16 bits colour", "12 bits colour"):
        if change == "plain":
            return png(values, 8)
        bits = int(change[:2])
        whole = (values.astype(int) << (bits - 8)) + (fine >> (16 - bits))
        return png(np.repeat(whole[..., None], 3, axis=2), 16)
    scaled = {
        "0 to 1": values / 255,
        "0 to 255": values * 1.0,
        "0 to 2550": values * 10.0,
        "negative": values - 128.0,
        "not a number": np.where(values > 250, np.nan, values / 255),
    }
    if change in scaled:
        image = Image.fromarray(scaled[change].astype(np.float32))
    elif change == "32 bits":
        image = Image.fromarray(values.astype(np.int32) << 20)
    else:
        bits = 16 if change == "dark" else int(change[:2])
        whole = (values.astype(int) << (bits - 8)) + (fine >> (16 - bits))
        if random.integers(2):
            return png(whole, 16)
        image = Image.fromarray(whole.astype(np.uint16))
    file = io.BytesIO()
    image.save(file, "TIFF")
    return file.getvalue()


def read_deep(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Index a photograph of more than 8 bits, and compare what is left of it."""
    values = random.integers(0, 256, (20, 24)).astype(np.uint8)
    values[0, 0] = 255
    if change == "dark":
        values //= np.uint8(random.integers(5, 30))
    (folder / "a.photo").write_bytes(deep_file(change, values, random))
    (folder / "table.csv").write_text("image,labels\na.photo,cat\n")
    index = indexed(folder, IndexedImages(kind="table"), Inputs(table=folder / "table.csv"))
    found = read_image(folder / "a.photo").astype(int)
    told = warned(index, "more than 8 bits")
    off = np.abs(found - values[..., None])
    assert off.max() <= 1 if change != "dark" else told and found.max() > 63, "another picture"
    return told


def photograph_kinds() -> list[Kind]:
    """Return the kinds of turned and of deep photographs."""
    return [
        meant_kind("meant turning", 350, TURNED[:2], TURNED[2:], read_turned),
        meant_kind("meant depth", 250, DEEP[:7], DEEP[7:], read_deep),
    ]
