"""Annotations of COCO and lists of VOC as programs write them."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data.index import Index
from brnf.data.voc import VOC_CLASSES
from brnf.evaluate.truth import GroundTruth
from brnf.stages.index_images import Inputs
from tests.fuzz.meant import NAMES, chosen, drawn_coco, indexed, meant_kind, warned
from tests.fuzz.pictures import HEIGHT, JPEG, WIDTH
from tests.fuzz.runner import Kind

__all__ = ["layout_kinds"]

SAME = (
    *("crowds", "text ids", "text categories", "points", "text sizes", "no area", "null area"),
    *("NaN area", "text area", "zero area", "byte-order mark", "root", "shuffled", "more keys"),
    *("folders", "blanks", "accents", "2017", "no year", "run lengths", "negative"),
)
"""What tools write: these must be read as the numbers they mean."""
DOUBTFUL = (
    *("UTF-16", "boxes", "null outline", "pairs", "flat", "no sizes", "unknown category"),
    *("unknown image", "mixed categories", "points in text", "repeated image", "outside"),
)


def rectangle(box: tuple[int, int, int, int]) -> list[int]:
    top, left, bottom, right = box
    return [left, top, right, top, right, bottom, left, bottom]


def coco(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return annotations of three images as they should be, and their true masks by file name; the
    smaller of two objects is on top.
    """
    names = chosen(random, NAMES, int(random.integers(2, 5)))
    ids = sorted(random.choice(90, len(names), replace=False).tolist())
    images, annotations, truth = [], [], {}
    for number in random.permutation(50)[:3].tolist():
        file = f"{number}.jpg"
        images.append({"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT})
        shapes = []
        for _ in range(int(random.integers(1, 5))):
            top, left = int(random.integers(0, 10)), int(random.integers(0, 12))
            box = (top, left, top + int(random.integers(2, 10)), left + int(random.integers(2, 12)))
            area = (box[2] - box[0]) * (box[3] - box[1])
            if area not in [other for other, *_ in shapes]:  # which of two equals is on top is free
                shapes.append((area, int(random.integers(len(names))), box))
        for area, rank, box in shapes:
            annotations.append(
                {
                    **{"id": len(annotations), "image_id": number, "category_id": ids[rank]},
                    **{"iscrowd": 0, "area": area, "segmentation": [rectangle(box)]},
                    "bbox": [box[1], box[0], box[3] - box[1], box[2] - box[0]],
                }
            )
        truth[file] = np.zeros((HEIGHT, WIDTH), np.uint8)
        for _, rank, (top, left, bottom, right) in sorted(shapes, reverse=True):
            truth[file][top:bottom, left:right] = rank + 1
    categories = [{"id": one, "name": name} for one, name in zip(ids, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}, truth


def told_otherwise(change: str, content: dict[str, Any], random: np.random.Generator) -> None:
    """Write the annotations in the way of a tool."""
    images, annotations, categories = content.values()
    for one in annotations:
        if change == "crowds":
            values = (False, None, "0", "false", 0.0)
            one["iscrowd"] = values[int(random.integers(len(values)))]
        elif change == "text ids":
            one["image_id"] = str(one["image_id"])
        elif change == "text categories":
            one["category_id"] = str(one["category_id"])
        elif change == "points":
            one["image_id"], one["category_id"] = map(float, (one["image_id"], one["category_id"]))
        elif change == "points in text":
            one["image_id"] = f"{one['image_id']}.0"
        elif change == "no area":
            del one["area"]
        elif "area" in change:
            one["area"] = {"null": None, "NaN": np.nan, "text": f"{one['area']}", "zero": 0}[
                change.split()[0]
            ]
        elif change in ("boxes", "null outline"):
            one["segmentation"] = [] if change == "boxes" else None
        elif change == "pairs":
            flat = one["segmentation"][0]
            one["segmentation"] = [flat[at : at + 2] for at in range(0, len(flat), 2)]
        elif change == "flat":
            one["segmentation"] = one["segmentation"][0]
        elif change == "run lengths":
            left, top, width, height = one["bbox"]
            mask = np.zeros((WIDTH, HEIGHT), int)
            mask[left : left + width, top : top + height] = 1
            steps = [0, *np.flatnonzero(np.diff([0, *mask.ravel(), -1])).tolist()]
            one["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": np.diff(steps).tolist()}
        elif change == "outside":
            one["segmentation"] = [[1000 * value for value in one["segmentation"][0]]]
    for image in images:
        if change == "text ids":
            image["id"] = str(image["id"])
        elif change in ("points", "text sizes"):
            kind = float if change == "points" else str
            image["width"], image["height"] = kind(image["width"]), kind(image["height"])
        elif change == "no sizes":
            del image["width"]
        elif change in ("folders", "blanks", "accents"):
            place = {"folders": "a/b/", "blanks": "a (1) ", "accents": "Zürich-"}[change]
            image["file_name"] = place + image["file_name"]
    if change == "root":
        categories.insert(0, {"id": 0 if categories[0]["id"] else -1, "name": "all"})
        for category in categories[1:]:
            category["supercategory"] = "all"
    elif change == "shuffled":
        for part in (images, categories):
            random.shuffle(part)
    elif change == "more keys":
        content["info"], content["licenses"] = {"year": 2014}, []
    elif change == "negative":
        images.append({"id": 99, "file_name": "99.jpg", "width": WIDTH, "height": HEIGHT})
    elif change == "unknown category":
        annotations[0]["category_id"] = 91
    elif change == "unknown image":
        annotations[0]["image_id"] = 91
    elif change == "mixed categories":
        categories[0]["id"] = f"x{categories[0]['id']}"
    elif change == "repeated image":
        images.append({**images[0], "id": 99})


def read_coco(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Index annotations, draw their masks, and compare labels and every pixel."""
    content, truth = coco(random)
    names = [category["name"] for category in content["categories"]]
    told_otherwise(change, content, random)
    if change == "negative":
        truth["99.jpg"] = np.zeros((HEIGHT, WIDTH), np.uint8)
    year = {"2017": "2017", "no year": ""}.get(change, "2014")
    root = folder / "coco"
    for image in content["images"]:
        photograph = root / f"train{year}" / image["file_name"]
        photograph.parent.mkdir(parents=True, exist_ok=True)
        photograph.write_bytes(JPEG)
    (root / "annotations").mkdir()
    encoding = {"byte-order mark": "utf-8-sig", "UTF-16": "utf-16"}.get(change, "utf-8")
    (root / "annotations" / f"instances_train{year}.json").write_text(
        json.dumps(content), encoding=encoding
    )
    images, drawn, index = drawn_coco(folder)
    assert [*images.classes] == names and len(images.images) == len(truth), "other classes"
    for image in images.images:
        name = re.sub(r".*[ -]", "", image.path.name)
        assert np.array_equal(drawn.objects(image), truth[name]), "other pixels"
        assert set(image.labels) == set(np.unique(truth[name])) - {0}, "other labels"
    assert change in ("plain", *SAME), "doubtful annotations are read without a word"
    return warned(index)


LISTS = (
    *("numbers", "paths", "byte-order mark", "CRLF", "empty lines", "twice", "blanks", "JPG"),
    *("png", "tif", "several", "own classes", "spelling", "ignored objects", "no object"),
    *("train_aug", "unknown name", "own without names", "with ending", "other masks"),
    *("UTF-16", "missing", "empty"),
)


def annotated(objects: list[str]) -> str:
    written = "".join(
        f"<object><name>{name}</name><part><name>head</name></part></object>" for name in objects
    )
    return f"<annotation><filename>?</filename>{written}</annotation>"


def as_line(change: str, image: str, random: np.random.Generator) -> str:
    """Return a line of a list that names an image."""
    words = {
        "numbers": f"{image}  {random.choice([1, 0, -1])}",
        "paths": f"/JPEGImages/{image}.jpg /SegmentationClassAug/{image}.png",
        "empty lines": f"{image}\n",
        "twice": f"{image}\n{image}",
        "blanks": f"  {image} ",
        "with ending": f"{image}.jpg",
    }
    return words.get(change, image)


def read_voc(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Index a data set in VOC's layout, and compare images, labels and every pixel."""
    root, own = folder / "VOC2012", change in ("own classes", "own without names")
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    known = ("raccoon", "Zürich", "dog", "background noise") if own else VOC_CLASSES
    labels: dict[str, list[int]] = {}
    for place in range(int(random.integers(2, 6))):
        count = int(random.integers(1, 4))
        labels[f"2007_{place}"] = (1 + random.permutation(len(known))[:count]).tolist()
    if change == "no object":
        labels["2007_9"] = []
    if change == "own without names":
        labels["2007_0"] = [1]
    truth = {}
    for image, numbers in labels.items():
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for place, number in enumerate(numbers):
            mask[2:9, 4 * place : 4 * place + 3] = number
        truth[image] = mask
        written = np.where(mask > 0, mask + 30, 0).astype(np.uint8) if "other" in change else mask
        Image.fromarray(written).save(root / "SegmentationClass" / f"{image}.png")
        objects = [known[number - 1] for number in numbers]
        if change == "spelling":
            ways = (str.upper, str.title, lambda name: f" {name} ")
            objects = [ways[int(random.integers(len(ways)))](name) for name in objects]
        objects += {
            "ignored objects": ["_background_", "__ignore__"],
            "unknown name": ["raccoon"],
        }.get(change, [])
        (root / "Annotations" / f"{image}.xml").write_text(annotated(objects), encoding="utf-8")
        for name, content in photographs(change, image).items():
            (root / "JPEGImages" / name).write_bytes(content)
    split = "train_aug" if change == "train_aug" else "train"
    ends = "\r\n" if change == "CRLF" else "\n"
    lines = (
        "" if change == "empty" else "".join(as_line(change, one, random) + ends for one in labels)
    )
    lines += "2007_77\n" if change == "missing" else ""
    encoding = {"byte-order mark": "utf-8-sig", "UTF-16": "utf-16"}.get(change, "utf-8")
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(lines, encoding=encoding)
    dataset = IndexedImages(classes=known if change == "own classes" else ())
    index = indexed(folder, dataset, Inputs(root=root), (split,))
    images = Index.of_split(index, split)
    masks = GroundTruth(images, index, split)
    assert images.classes == tuple(known)
    assert {image.id: [*image.labels] for image in images.images} == {
        image: sorted(numbers) for image, numbers in labels.items()
    }
    for image in images.images:
        assert np.array_equal(masks.objects(image), truth[image.id]), "other classes"
    return warned(index)


def photographs(change: str, image: str) -> Mapping[str, bytes]:
    """Return the files of a photograph."""
    if change in ("JPG", "png", "tif"):
        file = io.BytesIO()
        form = {"JPG": "JPEG", "png": "PNG", "tif": "TIFF"}[change]
        Image.new("RGB", (WIDTH, HEIGHT)).save(file, form)
        return {f"{image}.{change}": file.getvalue()}
    other = {f"{image}.png": b"no photograph"} if change == "several" else {}
    return {f"{image}.jpg": JPEG, **other}


def layout_kinds() -> list[Kind]:
    """Return the kinds of COCO's fields and VOC's lists."""
    return [
        meant_kind("meant coco", 500, SAME, DOUBTFUL, read_coco),
        meant_kind("meant voc", 300, LISTS[:16], LISTS[16:], read_voc),
    ]
