"""The stages evaluate and tabulate on files made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brnf.config.sections.evaluation import Scores
from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.data.masks import write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate import show
from brnf.evaluate.tables import SEED_COLUMNS, class_columns, markdown
from brnf.stages import compare_models, evaluate, tabulate
from brnf.store.maps import write_maps

QUIET = Runtime(workers=0, progress="none")
# Two images of 4x4 pixels, classes train (1) and boat (2).
TRUTH = {
    "a": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 255]], np.uint8),
    "b": np.array([[0, 0, 0, 0], [0, 2, 2, 0], [0, 2, 2, 0], [1, 0, 0, 0]], np.uint8),
}
CONTEXT = {
    "a": np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 0, 0, 0], [0, 0, 0, 0]], np.uint8),
    "b": np.zeros((4, 4), np.uint8),
}
TRAIN = np.array(
    [[0.9, 0.8, 0.7, 0.1], [0.8, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.9]],
    np.float32,
)
BOAT = np.array(
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.9, 0.9, 0.0], [0.0, 0.9, 0.9, 0.8], [0.0, 0.0, 0.0, 0.0]],
    np.float32,
)


def make_index(folder: Path, with_masks: tuple[str, ...] = ("a", "b")) -> Path:
    index = folder / "index"
    images = (
        ImageRecord("a", folder / "a.jpg", 4, 4, (1,)),
        ImageRecord("b", folder / "b.jpg", 4, 4, (1, 2)),
    )
    Index(("train", "boat"), (1, 2), images).write(index, "train")
    masks = []
    for name, truth in TRUTH.items():
        paths: list[Path | None] = [None, None]
        if name in with_masks:
            paths = [folder / f"{name}-{kind}.png" for kind in ("mask", "context")]
            for path, values in zip(paths, (truth, CONTEXT[name]), strict=True):
                write_palette_png(path, values)
        masks.append(MaskRecord(name, paths[0], paths[1]))
    write_masks(index, "train", masks)
    return index


def make_maps(
    path: Path,
    images: tuple[str, ...] = ("a", "b"),
    background: float | None = None,
    product: str = "classifier",
) -> Path:
    """Write maps; the background is 1 - max, or a constant."""
    with write_maps(path, 20) as writer:
        for image in images:
            foreground = TRAIN[None] if image == "a" else np.stack([np.zeros_like(BOAT), BOAT])
            own = (
                1 - foreground.max(0)
                if background is None
                else np.full((4, 4), background, np.float32)
            )
            classes = np.array([1] if image == "a" else [1, 2])
            writer.write(image, classes, {product: np.concatenate([own[None], foreground])})
    return path


def evaluated(tmp_path: Path, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    output = tmp_path / "evaluation.json"
    chosen = evaluate.Options(
        **{"split": "train", "product": "mask" if "masks" in inputs else "classifier", **options}
    )
    evaluate.run(evaluate.Inputs(**inputs), evaluate.Outputs(output), chosen, QUIET)
    return json.loads(output.read_text())


def test_maps_are_read_with_their_own_background(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    inputs = {"index": index, "maps": (make_maps(tmp_path / "maps.h5"),)}
    one = evaluated(tmp_path, inputs, model="brnf", product_name="cam_classifier", seed=3)
    # Train: of its pixels .9 .8 .8 win over 1 - max, .5 does not (a tie goes to the background); .7
    # beside it is a false one.
    assert one["confusion"] == [[20, 1, 1], [2, 3, 0], [0, 0, 4]]
    assert one["iou"] == pytest.approx([20 / 24, 3 / 6, 4 / 5])
    assert one["miou"] == pytest.approx(np.mean([20 / 24, 3 / 6, 4 / 5]))
    assert (one["model"], one["product"], one["seed"], one["images"]) == (
        "brnf",
        "cam_classifier",
        3,
        2,
    )
    assert one["classes"] == ["background", "train", "boat"]
    # A background channel of 0.85 leaves the train one pixel and lets the weaker boat go: it is the
    # map's own channel that decides.
    two = evaluated(
        tmp_path, {"index": index, "maps": (make_maps(tmp_path / "high.h5", background=0.85),)}
    )
    assert two["confusion"] == [[22, 0, 0], [4, 1, 0], [0, 0, 4]]
    assert two["sweep"] == one["sweep"], "the sweep reads foreground channels only"
    # At .8 in float16 (just below .8) the scores .9 of one train and four boat pixels reach 5 of 9;
    # the next step takes two more: 7 of 9. The train's context scores .7 at most, so none of it is
    # inside.
    assert one["at_recall"]["recall"] == pytest.approx(7 / 9)
    assert one["at_recall"]["fire"] == 0.0
    assert one["at_recall"]["target"] == 0.7
    lower = evaluated(tmp_path, inputs, scores=Scores(recall=0.8))["at_recall"]
    assert lower["threshold"] == 0.5
    assert lower["fire"] == 1 / 4, (
        "one of four context pixels of the train; the boat's context is in an image without boat"
    )
    assert lower["fire_of_class"] == [0.25, None]


def test_smaller_maps_are_enlarged(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    with write_maps(tmp_path / "small.h5", 20) as writer:
        for image in TRUTH:
            foreground = np.array([[[1.0, 0.0], [0.0, 0.0]]], np.float32)
            writer.write(
                image, np.array([1]), {"classifier": np.concatenate([1 - foreground, foreground])}
            )
    one = evaluated(tmp_path, {"index": index, "maps": (tmp_path / "small.h5",)})
    assert sum(map(sum, one["confusion"])) == 31
    assert one["confusion"][1] == [1, 4, 0], (
        "the enlarged corner reaches 1, .75, .75 and .5625 in image a: all but the far pixel of b"
    )


def test_masks_and_their_probabilities(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    for shard, image in enumerate(TRUTH):
        (tmp_path / f"{shard}").mkdir()
        write_palette_png(
            tmp_path / f"{shard}" / f"{image}.png",
            np.where(TRUTH[image] == 1, 255, TRUTH[image]).astype(np.uint8),
        )
    masks = (tmp_path / "0", tmp_path / "1")
    one = evaluated(tmp_path, {"index": index, "masks": masks})
    assert one["unlabelled_pixels"] == 5 and one["pixels"] == 31
    assert one["confusion"] == [[22, 0, 0], [0, 0, 0], [0, 0, 4]]
    assert one["no_class_pixels"] == [0, 5, 0] and one["no_class"] == 5 / 31
    assert one["iou"] == [1.0, 0.0, 1.0], "pixels that are left out are errors"
    assert one["coverage"] == 26 / 31
    assert one["sweep"] is None
    assert one["at_recall"] is None
    maps = make_maps(tmp_path / "probability.h5", product="probability")
    two = evaluated(tmp_path, {"index": index, "masks": masks, "probabilities": (maps,)})
    assert two["confusion"] == one["confusion"]
    assert two["at_recall"]["recall"] == pytest.approx(7 / 9)


@pytest.mark.parametrize("value", [3, 99, 254])
def test_predicted_values_of_no_class_are_errors(tmp_path: Path, value: int) -> None:
    index = make_index(tmp_path)
    (tmp_path / "masks").mkdir()
    for image, truth in TRUTH.items():
        predicted = np.where(truth == 2, value, truth % 255).astype(np.uint8)
        Image.fromarray(predicted).save(tmp_path / "masks" / f"{image}.png")
    one = evaluated(tmp_path, {"index": index, "masks": (tmp_path / "masks",)})
    assert one["iou"] == [1.0, 1.0, 0.0] and one["coverage"] == 1.0
    assert one["no_class"] == 4 / 31 and one["no_class_pixels"] == [0, 0, 4]


@pytest.mark.parametrize("value", [255, 7])
def test_predictions_without_any_class_are_blamed(tmp_path: Path, value: int) -> None:
    index = make_index(tmp_path)
    (tmp_path / "masks").mkdir()
    for image in TRUTH:
        write_palette_png(tmp_path / "masks" / f"{image}.png", np.full((4, 4), value, np.uint8))
    with pytest.raises(UserError, match=r"masks: these predictions hold no class at all"):
        evaluated(tmp_path, {"index": index, "masks": (tmp_path / "masks",)})


def test_an_image_in_two_folders_is_refused(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_palette_png(tmp_path / folder / "a.png", TRUTH["a"])
    write_palette_png(tmp_path / "one" / "b.png", TRUTH["b"])
    both = {"index": index, "masks": (tmp_path / "one", tmp_path / "two")}
    with pytest.raises(UserError, match=r"two/a\.png: \S+one/a\.png is a mask of the same image; "):
        evaluated(tmp_path, both)
    with pytest.raises(UserError, match="is a mask of the same image"):
        evaluated(
            tmp_path, {"index": index, "maps": (), "masks": (), **both, "truth": both["masks"]}
        )
    same = (tmp_path / "one", tmp_path / "one")
    assert evaluated(tmp_path, {"index": index, "masks": same})["miou"] == 1.0


def test_maps_of_another_index_are_refused(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    with write_maps(tmp_path / "maps.h5", 20) as writer:
        for image in TRUTH:
            writer.write(image, np.array([3]), {"classifier": np.full((2, 4, 4), 0.5, np.float32)})
    with pytest.raises(UserError, match="a: its maps are of class 3, and there are 2; "):
        evaluated(tmp_path, {"index": index, "maps": (tmp_path / "maps.h5",)})


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    with pytest.raises(UserError, match=r"^b: no maps"):
        evaluated(
            tmp_path, {"index": index, "maps": (make_maps(tmp_path / "maps.h5", images=("a",)),)}
        )
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match=r"^a: no mask"):
        evaluated(tmp_path, {"index": index, "masks": (tmp_path / "masks",)})
    with pytest.raises(UserError, match="either"):
        evaluated(tmp_path, {"index": index})
    assert not (tmp_path / "evaluation.json").exists()
    without = make_index(tmp_path / "without", with_masks=())
    with pytest.raises(UserError, match="none of its 2 images"):
        evaluated(tmp_path, {"index": without, "maps": (make_maps(tmp_path / "maps.h5"),)})
    partly = make_index(tmp_path / "partly", with_masks=("b",))
    one = evaluated(tmp_path, {"index": partly, "maps": (make_maps(tmp_path / "maps.h5"),)})
    assert (one["images"], one["images_without_mask"]) == (1, 1)


def write_evaluation(
    path: Path,
    model: str,
    product: str,
    seed: int,
    miou: float,
    fire: float | None,
    scores: bool = True,
    **more: Any,
) -> Path:
    sweep = {
        "thresholds": [0.3],
        "miou": [miou + 0.1],
        "best_miou": miou + 0.1,
        "best_threshold": 0.3,
    }
    reading = {
        "target": 0.7,
        "threshold": 0.45,
        "recall": 0.7,
        "miou": miou - 0.1,
        "fire": fire,
        "fire_of_class": None,
    }
    path.write_text(
        json.dumps(
            {
                **{
                    "model": model,
                    "product": product,
                    "split": "train",
                    "protocol": "scenes",
                    "seed": seed,
                },
                **{
                    "classes": ["background", "train"],
                    "images": 2,
                    "miou": miou,
                    "iou": [miou, None],
                },
                "sweep": sweep if scores else None,
                "at_recall": reading if scores else None,
                **more,
            }
        )
    )
    return path


def tabulated(tmp_path: Path, evaluations: list[Path]) -> dict[str, pd.DataFrame]:
    names = ("results.csv", "results.md", "by_seed.csv", "seeds.csv", "seeds.md")
    outputs = tabulate.Outputs(*(tmp_path / "demo" / "tables" / name for name in names))
    options = tabulate.Options(
        models=("base", "control", "brnf"), products=("cam_classifier", "segmentation")
    )
    tabulate.run(tabulate.Inputs(tuple(evaluations)), outputs, options, QUIET)
    return {
        name: pd.read_csv(tmp_path / "demo" / "tables" / name)
        for name in names
        if name.endswith("csv")
    }


def test_tables_average_seeds_and_keep_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tabulated(
        tmp_path,
        [
            write_evaluation(tmp_path / "1", "brnf", "segmentation", 0, 0.5, None, scores=False),
            write_evaluation(tmp_path / "2", "brnf", "cam_classifier", 1, 0.4, 0.2),
            write_evaluation(tmp_path / "3", "brnf", "cam_classifier", 0, 0.3, 0.1),
            write_evaluation(tmp_path / "4", "base", "cam_classifier", 0, 1 / 3, 0.6),
        ],
    )
    results = tables["results.csv"]
    assert list(results.columns) == [
        "model",
        "product",
        "split",
        "protocol",
        "seeds",
        "miou",
        "bias",
        "recall",
        "background",
        "train",
    ]
    assert results.seeds.tolist() == [1, 2, 1]
    rows = [("base", "cam_classifier"), ("brnf", "cam_classifier"), ("brnf", "segmentation")]
    assert list(results[["model", "product"]].itertuples(index=False, name=None)) == rows
    assert results.miou.tolist() == [33.3333, 35.0, 50.0]
    np.testing.assert_allclose(results.bias, [60.0, 15.0, np.nan])
    assert results.train.isna().all()
    assert tables["by_seed.csv"].seed.tolist() == [0, 0, 1, 0]
    seeds = tables["seeds.csv"]
    assert list(seeds.columns[4:12]) == [
        "seeds",
        "own",
        "best",
        "threshold",
        "fire70",
        "miou70",
        "threshold70",
        "recall",
    ]
    assert list(seeds.columns[12:]) == ["own_std", "best_std", "fire70_std", "miou70_std"]
    brnf = seeds[seeds.model == "brnf"].iloc[0]
    assert len(seeds) == 2
    assert (brnf.own, brnf.best, brnf.threshold, brnf.fire70, brnf.miou70, brnf.recall) == (
        35.0,
        45.0,
        0.3,
        15.0,
        25.0,
        70.0,
    )
    assert brnf.own_std == pytest.approx(10 / np.sqrt(2), abs=1e-4)
    text = (tmp_path / "demo" / "tables" / "results.md").read_text().splitlines()
    assert (
        text[2] == "| base | cam_classifier | train | scenes | 1 | 33.3 | 60.0 | 70.0 | 33.3 |  |"
    )
    assert "rows rest on different seeds" in text[-1] and "not on 0: brnf cam_class" in text[-1]
    assert show.main([str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert "brnf   segmentation    train  scenes        1  50.0" in printed
    assert "tables/results.csv" in printed


def test_what_a_number_was_measured_on_stands_beside_it(tmp_path: Path) -> None:
    def one(product: str, seed: int, fire: float | None, **more: Any) -> Path:
        path = tmp_path / f"{product}{seed}"
        return write_evaluation(path, "base", product, seed, 0.5, fire, **more)

    def table(*files: Path) -> tuple[pd.DataFrame, str]:
        results = tabulated(tmp_path, list(files))["results.csv"]
        return results, (tmp_path / "demo" / "tables" / "results.md").read_text()

    cam = one("cam_classifier", 0, 0.2, labels="given")
    results, text = table(cam, one("segmentation", 0, None, labels="none", no_class=0.25))
    assert results.labels.tolist() == ["given", "none"]
    assert results.no_class.tolist() == [0, 25] and "coverage" not in results
    assert results.recall.fillna(-1).tolist() == [70, -1], "no bias, no recall of it"
    assert text.splitlines()[0].startswith("| model | product | split | protocol | labels | miou |")
    results, text = table(cam, one("pseudo_labels", 0, None, labels="given", coverage=0.9))
    assert results.coverage.tolist() == [100, 90]
    assert "| labels |" not in text and text.endswith("\nlabels of every row: given\n")
    # What one seed lacks is not the mean of the others.
    results, text = table(cam, one("cam_classifier", 1, None, labels="given"))
    assert results.seeds.tolist() == [2] and results.bias.isna().all()
    assert "| bias |" not in text
    assert "not every seed has a value: bias of base cam_classifier train" in text
    assert "seeds of every row: 2" in text


NAMES = (
    *("product", "seed", "seeds", "model", "split", "protocol", "bias", "miou", "background"),
    *("recall", "labels", "coverage", "no_class", "own", "best", "threshold", "fire70", "xi"),
)


@pytest.mark.parametrize(
    "name", [*NAMES, "tauros", "disk", "model.1", "class seed", "a|b", '"x,y"']
)
def test_classes_called_like_columns_stand_apart(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ["background", name, "other"]
    files = [
        write_evaluation(
            *(tmp_path / f"{seed}", "brnf", "cam_classifier", seed, 0.8, 0.1),
            classes=classes,
            iou=[0.9, 0.52345, 1.0],
        )
        for seed in (0, 1)
    ]
    tables = tabulated(tmp_path, files)
    column = f"class {name}" if name in NAMES else name
    for table in (tables["results.csv"], tables["by_seed.csv"]):
        row = table.iloc[0]
        assert list(table.columns[-3:]) == ["background", column, "other"]
        assert row[["background", column, "other"]].tolist() == [90.0, 52.345, 100.0]
        assert (row.model, row["product"], row.split, row.miou, row.bias) == (
            *("brnf", "cam_classifier", "train", 80.0, 10.0),
        )
    assert tables["results.csv"].seeds.tolist() == [2]
    assert show.main([str(tmp_path / "demo")]) == 0
    head, _, line = capsys.readouterr().out.splitlines()[1:4]
    assert head.split()[-1] == "other" and line.endswith("  100.0") and "  52.3  " in line


def test_class_columns_are_never_one() -> None:
    assert class_columns(["seed", "class seed"]) == ["background", "class class seed", "class seed"]
    assert class_columns(["class seed", "seed"])[1:] == ["class seed", "class class seed"]
    assert class_columns(["miou", "dog"]) == ["background", "class miou", "dog"]


def test_a_seed_given_twice_counts_once(tmp_path: Path) -> None:
    files = [
        write_evaluation(tmp_path / f"{seed}", "base", "cam_classifier", seed, miou, 0.1)
        for seed, miou in ((0, 0.3), (1, 0.6))
    ]
    copy = tmp_path / "copy"
    copy.write_bytes(files[0].read_bytes())
    results = tabulated(tmp_path, [*files, files[0], copy])["results.csv"]
    assert results.miou.tolist() == [45.0] and results.seeds.tolist() == [2]
    write_evaluation(copy, "base", "cam_classifier", 0, 0.4, 0.1)
    with pytest.raises(UserError, match=r"copy: is of the same model, [^\n]+/0, with other"):
        tabulated(tmp_path, [*files, copy])


def test_products_without_scores_leave_the_table_of_seeds_empty(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "1", "brnf", "segmentation", 0, 0.5, None, scores=False)
    tables = tabulated(tmp_path, [one])
    assert tables["results.csv"].miou.tolist() == [50.0]
    assert tables["seeds.csv"].empty
    assert list(tables["seeds.csv"].columns) == [
        "model",
        "product",
        "split",
        "protocol",
        *SEED_COLUMNS,
    ]
    assert show.main([str(tmp_path / "demo")]) == 0


def test_evaluations_of_other_classes_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    good = write_evaluation(tmp_path / "good.json", "base", "segmentation", 0, 0.5, None)
    other = write_evaluation(tmp_path / "other.json", "brnf", "segmentation", 0, 0.5, None)
    other.write_text(other.read_text().replace('"train"]', '"boat"]'))
    with pytest.raises(UserError, match=r"other\.json: its classes differ"):
        tabulated(tmp_path, [good, other])
    other.write_text("{")
    with pytest.raises(UserError, match=r"other\.json: damaged"):
        tabulated(tmp_path, [good, other])
    with pytest.raises(UserError, match="no evaluation"):
        tabulated(tmp_path, [])


def test_wide_tables_are_cut_where_they_do_not_fit() -> None:
    table = pd.DataFrame({"model": ["base"], "miou": [50.04], "threshold": [0.3]})
    assert show.aligned(table, 80) == [
        "model  miou  threshold",
        "----------------------",
        "base   50.0        0.3",
    ]
    assert show.aligned(table, 12) == [
        "model  miou",
        "-----------",
        "base   50.0",
        "(1 more columns in the table's file)",
    ]
    assert markdown(table).splitlines()[1] == "| --- | ---: | ---: |"


def test_show_names_an_experiment_without_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show.main([str(tmp_path)]) == 2
    assert "results.csv: no such file" in capsys.readouterr().err


def test_models_are_compared_seed_by_seed(tmp_path: Path) -> None:
    scores = {("brnf", 0): 0.5, ("brnf", 1): 0.7, ("base", 0): 0.4, ("base", 1): 0.3}
    files = tuple(
        write_evaluation(tmp_path / f"{model}{seed}", model, "cam_classifier", seed, miou, None)
        for (model, seed), miou in scores.items()
    )
    lonely = write_evaluation(tmp_path / "lonely", "brnf", "seeds_bsdnf", 0, 0.6, None)
    outputs = compare_models.Outputs(tmp_path / "ablation.csv", tmp_path / "ablation.md")
    compare_models.run(
        compare_models.Inputs((*files, lonely)),
        outputs,
        compare_models.Options(models=("base", "brnf"), references=("base",)),
        QUIET,
    )
    table = pd.read_csv(outputs.csv)
    assert list(table.columns) == [
        *["model", "product", "split", "protocol", "seeds", "miou", "miou_std"],
        "over_base",
        "over_base_std",
    ]
    base, brnf, alone = table.itertuples(index=False)
    assert (base.model, base.seeds, base.miou, base.over_base) == ("base", 2, 35.0, 0.0)
    # Seed by seed the gains are 10 and 40 points.
    assert (brnf.miou, brnf.over_base) == (60.0, 25.0)
    assert brnf.over_base_std == pytest.approx(30 / np.sqrt(2), abs=1e-4)
    assert brnf.miou_std == pytest.approx(20 / np.sqrt(2), abs=1e-4)
    assert alone.product == "seeds_bsdnf" and np.isnan(alone.over_base) and np.isnan(alone.miou_std)
    beside = compare_models.Options(
        models=("base", "brnf"), references=("base",), paper=("brnf=72.1",)
    )
    compare_models.run(compare_models.Inputs(files), outputs, beside, QUIET)
    assert pd.read_csv(outputs.csv).paper.fillna(-1).tolist() == [-1, 72.1]
    with pytest.raises(UserError, match="no evaluation of the model 'control'"):
        compare_models.run(
            compare_models.Inputs(files),
            outputs,
            compare_models.Options(references=("control",)),
            QUIET,
        )
