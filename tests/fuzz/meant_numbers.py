"""Class names like those of columns, and predictions with values that are no class."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.evaluate.tables import class_columns
from brnf.stages import evaluate, tabulate
from tests.fuzz.meant import chosen, meant_kind
from tests.fuzz.runner import Kind
from tests.fuzz.sources import QUIET
from tests.fuzz.texts import EVALUATION

__all__ = ["number_kinds"]

COLUMNS = (
    *("model", "product", "split", "protocol", "labels", "seed", "seeds", "miou", "no_class"),
    *("coverage", "bias", "recall", "background", "own", "best", "threshold", "fire70"),
    *("miou70", "threshold70", "miou_std", "best_std", "class", "class seed", "class class seed"),
    *("cat", "a,b", 'the "cat"', "nan", "1", "Unnamed: 0", "index", " bias", "Bias", "a|b", "=1"),
)
"""Names that classes have: those of columns, and what a CSV could take for something else."""


def read_columns(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Tabulate two seeds of classes with such names, and compare every cell."""
    count = 2 if change == "plain" else int(random.integers(2, 12))
    names = ["cat", "dog"] if change == "plain" else chosen(random, COLUMNS, count)
    files, known = [], []
    for seed in (0, 1):
        iou = [round(value, 3) for value in random.random(count + 1).tolist()]
        classes = [*names[::-1]] if change == "other order" and seed else names
        one = {**EVALUATION, "seed": seed, "classes": ["background", *classes], "iou": iou}
        one |= {"miou": round(float(random.random()), 3)}
        known.append(one)
        files.append(folder / f"{seed}.json")
        files[-1].write_text(json.dumps(one))
    paths = ("results.csv", "results.md", "by_seed.csv", "seeds.csv", "seeds.md")
    outputs = tabulate.Outputs(*(folder / "out" / name for name in paths))
    tabulate.run(tabulate.Inputs(tuple(files)), outputs, tabulate.Options(), QUIET)
    columns = class_columns(names)
    for path, factor in ((outputs.by_seed_csv, 1), (outputs.results_csv, 2)):
        with path.open(newline="") as file:
            header, *lines = list(csv.reader(file))
        assert len(set(header)) == len(header) and len(lines) * factor == 2, header
        assert header[-count - 1 :] == columns, "the order of the classes"
        for column, name in zip(columns[1:], names, strict=True):
            assert column == name or column.endswith(f"class {name}")
        for place, line in enumerate(lines):
            row = dict(zip(header, line, strict=True))
            of = known if factor == 2 else known[place : place + 1]
            assert row["model"] == "base" and row["split"] == "train"
            wanted = [np.mean([one["miou"] for one in of])]
            wanted += np.mean([one["iou"] for one in of], axis=0).tolist()
            cells = [float(row[name]) for name in ("miou", *columns)]
            assert np.allclose(cells, 100 * np.array(wanted), atol=1e-3), path
    return False


SIZE = (12, 15)
FOREIGN = (
    *("some foreign", "some 255", "both", "palette", "255 in the truth", "all foreign", "all 255"),
    *("other size", "colours", "no file", "one more image"),
)


def read_predictions(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Evaluate masks, and compare every number with those of the pixels."""
    classes = int(random.integers(1, 5))
    names = tuple(f"class {number}" for number in range(1, classes + 1))
    images, masks, truths, predictions = [], [], [], []
    for place in range(int(random.integers(1, 5))):
        truth = random.integers(0, classes + 1, SIZE).astype(np.uint8)
        found = np.where(random.random(SIZE) < 0.7, truth, random.integers(0, classes + 1, SIZE))
        if change == "255 in the truth":
            truth[random.random(SIZE) < 0.3] = 255
        hit = random.random(SIZE) < (1 if "all" in change else random.random())
        if change in ("some foreign", "all foreign", "both"):
            found = np.where(hit, random.integers(classes + 1, 255, SIZE), found)
        elif change in ("some 255", "all 255"):
            found = np.where(hit, 255, found)
        if change == "both":
            found = np.where(random.random(SIZE) < 0.2, 255, found)
        for kind, values in (("truth", truth), ("found", found)):
            (folder / kind).mkdir(exist_ok=True)
            save(folder / kind / f"{place}.png", values.astype(np.uint8), kind + change)
        images.append(ImageRecord(f"{place}", folder / f"{place}.jpg", SIZE[1], SIZE[0], (1,)))
        masks.append(MaskRecord(f"{place}", folder / "truth" / f"{place}.png", None))
        truths.append(truth)
        predictions.append(found)
    if change == "no file":
        (folder / "found" / "0.png").unlink()
    if change == "one more image":
        Image.new("L", SIZE[::-1]).save(folder / "found" / "another.png")
    Index(names, tuple(range(1, classes + 1)), tuple(images)).write(folder / "index", "val")
    write_masks(folder / "index", "val", masks)
    evaluate.run(
        evaluate.Inputs(folder / "index", masks=(folder / "found",)),
        evaluate.Outputs(folder / "out" / "evaluation.json"),
        evaluate.Options("val", "mask"),
        QUIET,
    )
    said = json.loads((folder / "out" / "evaluation.json").read_text())
    truth, found = (np.concatenate([one.ravel() for one in part]) for part in (truths, predictions))
    found, truth = found[truth != 255], truth[truth != 255]
    iou = []
    for number in range(classes + 1):
        both, either = (truth == number) & (found == number), (truth == number) | (found == number)
        iou.append(both.sum() / either.sum() if either.any() else None)
    known = [value for value in iou if value is not None]
    assert np.allclose([value or 0 for value in said["iou"]], [value or 0 for value in iou])
    assert np.isclose(said["miou"], np.mean(known)) and said["pixels"] == len(truth)
    outside = float((found > classes).mean())
    assert np.isclose(said["no_class"], outside)
    assert np.isclose(said["coverage"], (found != 255).mean())
    return outside > 0


def save(path: Path, values: np.ndarray, change: str) -> None:
    """Write a mask; a prediction in another way, if that is the change."""
    image = Image.fromarray(values)
    if change == "foundpalette":
        image.putpalette(list(range(256)) * 3)
    elif change == "foundcolours":
        image = image.convert("RGB")
    elif change == "foundother size":
        image = image.resize((SIZE[1] + 1, SIZE[0]), Image.Resampling.NEAREST)
    image.save(path)


def number_kinds() -> list[Kind]:
    """Return the kinds of columns and of predictions."""
    return [
        meant_kind("meant columns", 250, ("names", "names"), ("other order",), read_columns),
        meant_kind("meant predicted", 350, FOREIGN[:5], FOREIGN[5:], read_predictions),
    ]
