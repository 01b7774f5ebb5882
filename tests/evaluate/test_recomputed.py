"""Tables of a tiny run, computed again by scikit-learn from its products alone: HDF5 files of maps,
PNG masks and the files of the data set.
"""

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score, recall_score

from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.engine.runtime import Runtime
from brnf.stages import evaluate, tabulate
from brnf.store.maps import write_maps

QUIET = Runtime(workers=0, progress="none")
CLASSES = ("cat", "dog", "seed")
SIZE = (9, 7)
IMAGES = [f"image{number}" for number in range(6)]
LABELS = [(1,), (2,), (1, 2), (3,), (1, 3), (2, 3)]
SEEDS = (0, 1)


def write_png(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write data and products of a run of two seeds, and let the stages make its tables."""
    folder, random = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    masks, records = [], []
    for image, labels in zip(IMAGES, LABELS, strict=True):
        truth = random.choice(
            [0, *labels, 255], SIZE, p=[0.4, *[0.5 / len(labels)] * len(labels), 0.1]
        )
        context = np.where(truth == 0, random.choice([0, *labels], SIZE), 0)
        paths = (
            write_png(folder / f"{kind}/{image}.png", values)
            for kind, values in (("truth", truth), ("context", context))
        )
        masks.append(MaskRecord(image, *paths))
        records.append(ImageRecord(image, folder / f"{image}.jpg", SIZE[1], SIZE[0], labels))
    Index(CLASSES, (1, 2, 3), tuple(records)).write(folder / "index", "train")
    write_masks(folder / "index", "train", masks)
    files = []
    for seed in SEEDS:
        with write_maps(folder / f"{seed}.h5", 20) as writer:
            for image, labels in zip(IMAGES, LABELS, strict=True):
                values = random.random((len(labels) + 1, *SIZE)).astype(np.float32)
                writer.write(image, np.array(labels), {"classifier": values})
        for image in IMAGES:
            # 77 and 255 are no class; both are errors.
            write_png(folder / f"{seed}/{image}.png", random.choice([0, 1, 2, 3, 77, 255], SIZE))
        for product, inputs, labels in (
            ("cam_classifier", {"maps": (folder / f"{seed}.h5",)}, "given"),
            ("segmentation", {"masks": (folder / f"{seed}",)}, "none"),
        ):
            files.append(folder / f"{product}{seed}.json")
            evaluate.run(
                evaluate.Inputs(folder / "index", **inputs),  # type: ignore[arg-type]
                evaluate.Outputs(files[-1]),
                evaluate.Options(
                    split="train",
                    product="classifier" if "maps" in inputs else "mask",
                    product_name=product,
                    seed=seed,
                    labels=labels,  # type: ignore[arg-type]
                ),
                QUIET,
            )
    names = ("results.csv", "results.md", "by_seed.csv", "seeds.csv", "seeds.md")
    tabulate.run(
        tabulate.Inputs(tuple(files)),
        tabulate.Outputs(*(folder / n for n in names)),
        tabulate.Options(),
        QUIET,
    )
    return folder


def flat(folder: Path, pattern: str) -> np.ndarray:
    """Return the pixels of all images, one image after the other."""
    return np.concatenate(
        [np.array(Image.open(folder / pattern.format(image))).ravel() for image in IMAGES]
    )


def maps_of(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of all pixels the arg max, the winning foreground class and its score."""
    found = []
    with h5py.File(folder / f"{seed}.h5") as file:
        for image in IMAGES:
            values = file[image]["classifier"][()].astype(np.float64).reshape(-1, SIZE[0] * SIZE[1])
            classes = np.array([0, *file[image].attrs["classes"]])
            winner = classes[1:][values[1:].argmax(0)]
            found.append((classes[values.argmax(0)], winner, values[1:].max(0)))
    labels, winner, score = (np.concatenate(part) for part in zip(*found, strict=True))
    return labels, winner, score


def percent(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    """Return mIoU and IoU of background and classes in percent, by scikit-learn."""
    known = truth != 255
    predicted = np.where(predicted > len(CLASSES), len(CLASSES) + 1, predicted)
    iou = jaccard_score(
        truth[known], predicted[known], labels=range(len(CLASSES) + 1), average=None
    )
    return [100 * iou.mean(), *(100 * iou)]


def at_recall(folder: Path, seed: int) -> dict[str, float]:
    """Return bias and recall at the highest threshold with 70 % object recall, in percent."""
    truth, context = flat(folder, "truth/{}.png"), flat(folder, "context/{}.png")
    _, winner, score = maps_of(folder, seed)
    objects = (truth > 0) & (truth != 255)
    for threshold in np.arange(1000, 0, -1) / 1000:
        seen = np.where(score >= threshold, winner, 0)
        recall = recall_score(truth[objects], seen[objects], labels=[1, 2, 3], average="micro")
        if recall >= 0.7 or threshold == 0.001:
            break
    carried = np.concatenate(
        [
            np.isin(context[i:j], labels) & (context[i:j] > 0)
            for (i, j), labels in zip(
                pairwise(range(0, len(context) + 1, SIZE[0] * SIZE[1])), LABELS, strict=True
            )
        ]
    )
    return {"bias": 100 * (seen == context)[carried].mean(), "recall": 100 * recall}


def test_every_cell_of_the_tables(run: Path) -> None:
    truth = flat(run, "truth/{}.png")
    by_seed = pd.read_csv(run / "by_seed.csv").set_index(["product", "seed"])
    results = pd.read_csv(run / "results.csv").set_index("product")
    columns = ["miou", "background", "cat", "dog", "class seed"]
    for seed in SEEDS:
        expected = percent(truth, maps_of(run, seed)[0])
        np.testing.assert_allclose(
            by_seed.loc["cam_classifier", seed][columns].tolist(), expected, atol=1e-4
        )
        for name, value in at_recall(run, seed).items():
            assert by_seed.loc["cam_classifier", seed][name] == pytest.approx(value, abs=1e-4)
        masks = flat(run, f"{seed}/{{}}.png")
        expected = percent(truth, masks)
        np.testing.assert_allclose(
            by_seed.loc["segmentation", seed][columns].tolist(), expected, atol=1e-4
        )
        known = truth != 255
        assert by_seed.loc["segmentation", seed]["no_class"] == pytest.approx(
            100 * (masks[known] > 3).mean(), abs=1e-4
        )
        assert by_seed.loc["segmentation", seed]["coverage"] == pytest.approx(
            100 * (masks[known] != 255).mean(), abs=1e-4
        )
    numbers = by_seed.select_dtypes("number").columns
    for product in ("cam_classifier", "segmentation"):
        mean = by_seed.loc[product][numbers].mean(skipna=False)
        np.testing.assert_allclose(results.loc[product][numbers].astype(float), mean, atol=2e-4)
    assert results.labels.tolist() == ["given", "none"] and results.seeds.tolist() == [2, 2]


def test_the_best_threshold_of_each_half_is_read_on_the_other(run: Path) -> None:
    seeds = pd.read_csv(run / "seeds.csv")
    assert seeds["product"].tolist() == ["cam_classifier"]
    truth = flat(run, "truth/{}.png")
    half = np.repeat([evaluate.halves([*IMAGES])[image] for image in IMAGES], SIZE[0] * SIZE[1])
    assert sorted(half.tolist()).count(0) == len(half) // 2
    best, own = [], []
    for seed in SEEDS:
        labels, winner, score = maps_of(run, seed)
        own.append(percent(truth, labels)[0])
        chosen = []
        for part in (0, 1):
            at = half == part
            miou = [
                percent(truth[at], np.where(score >= step / 1000, winner, 0)[at])[0]
                for step in range(1, 1001)
            ]
            chosen.append((1 + int(np.argmax(miou))) / 1000)
        other = np.where(half == 0, chosen[1], chosen[0])
        best.append(percent(truth, np.where(score >= other, winner, 0))[0])
    assert seeds.own[0] == pytest.approx(np.mean(own), abs=1e-4)
    assert seeds.best[0] == pytest.approx(np.mean(best), abs=1e-4)
    assert seeds.best_std[0] == pytest.approx(np.std(best, ddof=1), abs=1e-4)
