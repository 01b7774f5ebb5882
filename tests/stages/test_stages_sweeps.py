"""The sweep over rules and thresholds equals the stages that it stands for, and its tables are
right by hand.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from brnf.config.sections.flow import Denoising, Flow, ScalingFlow
from brnf.data.index import ImageRecord, Index, MaskRecord, read_masks, write_masks
from brnf.data.masks import write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.confusion import halves, mean_iou
from brnf.stages import (
    denoise_seeds,
    draw_studies,
    evaluate,
    measure_scaling,
    sweep_denoising,
    tabulate_sweeps,
    train_flow,
)
from brnf.store.maps import write_maps
from brnf.store.pixels import PixelRows, write_pixels

QUIET = Runtime(device="cpu", workers=0, progress="none")
GRID, SIDE, DIMENSION = 6, 24, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write five images of two classes whose features tell the object from a false part of the
    seed, and fit a density.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sweep")
    generator = np.random.default_rng(0)
    records = []
    masks = []
    paths = {name: folder / f"{name}.h5" for name in ("maps", "pixels")}
    with (
        write_maps(paths["maps"], 2) as maps,
        write_pixels(paths["pixels"], DIMENSION, 3) as pixels,
    ):
        for number in range(5):
            name, label = f"i{number}", number % 2 + 1
            truth = np.zeros((GRID, GRID), np.uint8)
            truth[1:4, 1:4] = label
            score = np.where(truth > 0, 0.9, 0.1).astype(np.float32)
            score[4, 1:5] = 0.8  # the seed fires beside the object
            score += generator.normal(0, 0.02, score.shape).astype(np.float32)
            feature = (
                generator.normal(0, 0.5, (GRID * GRID, DIMENSION))
                + 2 * np.eye(DIMENSION)[truth.ravel()]
            )
            values = np.stack([1 - score, score]).clip(0, 1)
            maps.write(
                name,
                np.array([label]),
                {"prototype": np.kron(values, np.ones((1, SIDE // GRID, SIDE // GRID)))},
            )
            pixels.append(
                PixelRows(
                    image=name,
                    grid=(GRID, GRID),
                    present=np.isin(np.arange(3), [0, label]),
                    feature=feature.astype(np.float32),
                    score=score.ravel(),
                    background=1 - score.ravel(),
                    label=np.full(GRID * GRID, label),
                    position=np.arange(GRID * GRID),
                )
            )
            mask = folder / f"{name}-mask.png"
            write_palette_png(mask, np.kron(truth, np.ones((SIDE // GRID, SIDE // GRID), np.uint8)))
            masks.append(MaskRecord(name, mask, None))
            records.append(ImageRecord(name, folder / f"{name}.jpg", SIDE, SIDE, (label,)))
    Index(("one", "two"), (1, 2), tuple(records)).write(folder, "train")
    write_masks(folder, "train", masks)
    paths |= {"index": folder, "flow": folder / "flow.pt", "history": folder / "history.csv"}
    train_flow.run(
        train_flow.Inputs((paths["pixels"],)),
        train_flow.Outputs(paths["flow"], paths["history"]),
        train_flow.Options(Flow(density="gaussian_diagonal", held_out=0.2)),
        QUIET,
    )
    return paths


def swept(files: dict[str, Path], folder: Path, **options: object) -> Path:
    inputs = sweep_denoising.Inputs(
        files["index"], (files["pixels"],), (files["maps"],), files["flow"], files["history"]
    )
    outputs = sweep_denoising.Outputs(folder / "sweep.json")
    sweep_denoising.run(
        inputs, outputs, sweep_denoising.Options(**({"split": "train"} | options)), QUIET
    )  # type: ignore[arg-type]
    return outputs.sweep


@pytest.mark.parametrize(
    ("rule", "xi"), [("quantile", 0.8), ("likelihood", 0.5), ("posterior", 0.5), ("ratio", 0.7)]
)
def test_every_point_is_what_denoising_and_evaluation_give(
    files: dict[str, Path], tmp_path: Path, rule: str, xi: float
) -> None:
    sweep = json.loads(swept(files, tmp_path).read_text())
    denoise_seeds.run(
        denoise_seeds.Inputs(files["pixels"], files["maps"], files["flow"]),
        denoise_seeds.Outputs(tmp_path / "denoised.h5"),
        denoise_seeds.Options(bsdnf=Denoising(rule=rule, xi=xi)),  # type: ignore[arg-type]
        QUIET,
    )
    for product, maps in (("seeds", tmp_path / "denoised.h5"), ("prototype", files["maps"])):
        outputs = evaluate.Outputs(tmp_path / f"{product}.json")
        evaluate.run(
            evaluate.Inputs(files["index"], maps=(maps,)),
            outputs,
            evaluate.Options(split="train", product=product),
            QUIET,
        )
    point = next(one for one in sweep["points"] if (one["rule"], one["xi"]) == (rule, xi))
    assert point["miou"] == pytest.approx(
        json.loads((tmp_path / "seeds.json").read_text())["miou"], abs=1e-9
    )
    assert sweep["raw_miou"] == pytest.approx(
        json.loads((tmp_path / "prototype.json").read_text())["miou"], abs=1e-9
    )
    assert point["miou"] != sweep["raw_miou"]


def test_a_threshold_is_chosen_on_one_half_and_read_on_the_other(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """What each half alone gives at each threshold says which is chosen for the other half."""
    xis, rule = (0.0, 0.5, 0.95), "quantile"
    sweep = json.loads(swept(files, tmp_path, xis=xis, rules=(rule,)).read_text())
    whole = Index.of_split(files["index"], "train")
    half_of = halves(image.id for image in whole.images)
    counts = np.zeros((2, len(xis), 3, 3), np.int64)
    for at, xi in enumerate(xis):
        maps, json_file = tmp_path / f"{xi}.h5", tmp_path / f"{xi}.json"
        denoise_seeds.run(
            denoise_seeds.Inputs(files["pixels"], files["maps"], files["flow"]),
            denoise_seeds.Outputs(maps),
            denoise_seeds.Options(bsdnf=Denoising(rule=rule, xi=xi)),
            QUIET,
        )
        for half in (0, 1):
            part = tmp_path / f"index{half}"
            images = tuple(image for image in whole.images if half_of[image.id] == half)
            replace(whole, images=images).write(part, "train")
            write_masks(part, "train", list(read_masks(files["index"], "train").values()))
            evaluate.run(
                evaluate.Inputs(part, maps=(maps,)),
                evaluate.Outputs(json_file),
                evaluate.Options(split="train", product="seeds"),
                QUIET,
            )
            counts[half, at] = json.loads(json_file.read_text())["confusion"]
    first, second = mean_iou(counts).argmax(1)
    expected = mean_iou(counts[0, second] + counts[1, first])
    assert sweep["cross_validated"][rule] == pytest.approx(float(expected))
    found = [point["miou_of_halves"] for point in sweep["points"]]
    np.testing.assert_allclose(found, mean_iou(counts).T)


def test_the_density_is_the_better_classifier_where_seeds_fire_beside_the_object(
    files: dict[str, Path], tmp_path: Path
) -> None:
    sweep = json.loads(swept(files, tmp_path).read_text())
    # 9 positions of the object, 4 false ones, 23 of the background in each image.
    assert sweep["labelled"] == 5 * 36
    assert sweep["seed_accuracy"] == pytest.approx(32 / 36)
    assert sweep["density_accuracy"] > sweep["seed_accuracy"]
    assert sweep["held_out"] == pytest.approx(pd.read_csv(files["history"]).held_out.min())


def test_a_split_without_masks_is_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "index"
    Index.of_split(files["index"], "train").write(other, "train")
    write_masks(other, "train", [])
    with pytest.raises(UserError, match="none of its images has a ground-truth mask"):
        swept(files | {"index": other}, tmp_path)
    assert not (tmp_path / "sweep.json").exists()


def write_sweep(
    path: Path, seed: int, miou: float, density: str = "flow", tau: tuple[float, float] = (0.3, 0.7)
) -> Path:
    points = [
        {"rule": rule, "xi": xi, "miou": miou + gain}
        for rule, xi, gain in (("posterior", 0.9, 0), ("posterior", 0.8, 0.1), ("ratio", 0.9, 0))
    ]
    shared = {
        "model": "brnf",
        "split": "train",
        "protocol": "bench",
        "density": density,
        "tau_low": tau[0],
        "tau_high": tau[1],
        "seed": seed,
    }
    measured = {"raw_miou": 0.5, "held_out": None, "density_accuracy": 0.8, "seed_accuracy": None}
    chosen = {"posterior": miou + 0.05, "ratio": miou}
    path.write_text(json.dumps({**shared, **measured, "points": points, "cross_validated": chosen}))
    return path


def tabulated(folder: Path, sweeps: list[Path], **options: object) -> pd.DataFrame:
    outputs = tabulate_sweeps.Outputs(folder / "table.csv", folder / "table.md")
    tabulate_sweeps.run(
        tabulate_sweeps.Inputs(tuple(sweeps)), outputs, tabulate_sweeps.Options(**options), QUIET
    )  # type: ignore[arg-type]
    return pd.read_csv(outputs.csv)


def test_sensitivity_varies_one_thing_at_a_time_beside_the_paper(tmp_path: Path) -> None:
    own = [write_sweep(tmp_path / f"own{seed}", seed, miou) for seed, miou in ((0, 0.6), (1, 0.7))]
    other = [write_sweep(tmp_path / f"tau{seed}", seed, 0.4, tau=(0.3, 0.9)) for seed in (0, 1)]
    table = tabulated(tmp_path, own + other)
    tau = table[table.varied == "tau"]
    assert tau[["tau_low", "tau_high", "miou", "over_raw", "paper"]].to_numpy().tolist() == [
        [0.3, 0.7, 65.0, 15.0, 72.1],
        [0.3, 0.9, 40.0, -10.0, 69.9],
    ]
    np.testing.assert_allclose(tau.miou_std, [10 / np.sqrt(2), 0], atol=1e-3)
    xi = table[table.varied == "xi"]
    assert list(xi[["rule", "xi", "miou", "paper"]].itertuples(index=False, name=None)) == [
        ("posterior", 0.8, 75.0, 69.9),
        ("posterior", 0.9, 65.0, 72.1),
        ("ratio", 0.9, 65.0, 72.1),
    ]
    fine = write_sweep(tmp_path / "fine", 0, 0.6)
    fine.write_text(fine.read_text().replace('"xi": 0.8', '"xi": 0.85'))
    tabulated(tmp_path, [fine])
    assert "| posterior | 0.85 | 1 | 70.0 |" in (tmp_path / "table.md").read_text()
    with pytest.raises(UserError, match=r"no point with rule posterior at xi 0\.33"):
        tabulated(tmp_path, own, xi=0.33)


def test_density_says_what_a_threshold_chosen_on_other_images_gives(tmp_path: Path) -> None:
    sweeps = [
        write_sweep(tmp_path / f"{density}{seed}", seed, 0.5 + seed / 10, density)
        for density in ("flow", "gmm")
        for seed in (0, 1)
    ]
    table = tabulated(tmp_path, sweeps, study="density")
    assert list(
        table[["density", "rule", "xi", "seeds", "miou"]].itertuples(index=False, name=None)
    ) == [
        ("flow", "posterior", 0.8, 2, 60.0),
        ("flow", "ratio", 0.9, 2, 55.0),
        ("gmm", "posterior", 0.8, 2, 60.0),
        ("gmm", "ratio", 0.9, 2, 55.0),
    ]
    assert table.over_raw.tolist() == [10.0, 5.0, 10.0, 5.0]
    with pytest.raises(UserError, match="damaged measurements"):
        (tmp_path / "flow0").write_text("{}")
        tabulated(tmp_path, sweeps)


def test_margins_losses_and_densities_are_those_of_the_images(
    files: dict[str, Path], tmp_path: Path
) -> None:
    sweep = json.loads(swept(files, tmp_path, shown_rule="posterior", shown_xi=0.5).read_text())
    margins = sweep["margins"]
    # Foreground of the seeds: 9 true and 4 false positions in each of 5 images; posterior margins
    # tell them apart.
    assert (sum(margins["true"]), sum(margins["false"])) == (45, 20)
    centre = (np.array(margins["edges"])[1:] + np.array(margins["edges"])[:-1]) / 2
    assert np.average(centre, weights=margins["true"]) > np.average(
        centre, weights=margins["false"]
    )
    assert sweep["class_pixels"] == [5 * 27, 3 * 9, 2 * 9]
    assert all(np.isfinite(sweep["class_log_density"]))
    gains = [image["after"] - image["before"] for image in sweep["worst"]]
    assert len(gains) == 5 and gains == sorted(gains) and gains[-1] > 0


def test_figures_of_the_studies_are_drawn(files: dict[str, Path], tmp_path: Path) -> None:
    sweep = swept(files, tmp_path)
    tabulated(tmp_path, [write_sweep(tmp_path / f"own{seed}", seed, 0.6) for seed in (0, 1)])
    outputs = draw_studies.Outputs(
        *(tmp_path / f"{name}.png" for name in ("sensitivity", "margins", "failures"))
    )
    draw_studies.run(
        draw_studies.Inputs(tmp_path / "table.csv", (sweep, sweep)),
        outputs,
        draw_studies.Options(),
        QUIET,
    )
    for path in (outputs.sensitivity, outputs.margins, outputs.failures):
        with Image.open(path) as picture:
            assert picture.size[0] > 1000 and len(np.unique(np.asarray(picture.convert("L")))) > 20
    with pytest.raises(UserError, match="no figure asked for"):
        draw_studies.run(
            draw_studies.Inputs(), draw_studies.Outputs(), draw_studies.Options(), QUIET
        )
    with pytest.raises(UserError, match="damaged measurements"):
        draw_studies.run(
            draw_studies.Inputs(sweeps=(files["history"],)),
            draw_studies.Outputs(margins=tmp_path / "no.png"),
            draw_studies.Options(),
            QUIET,
        )


def test_scaling_counts_the_rows_it_fits(files: dict[str, Path], tmp_path: Path) -> None:
    outputs = measure_scaling.Outputs(tmp_path / "scaling.csv", tmp_path / "scaling.md")
    flow = ScalingFlow(blocks=1, hidden=4, batch_rows=16, components=2)
    options = measure_scaling.Options(shares=(1.0,), repeats=1, flow=flow)
    measure_scaling.run(measure_scaling.Inputs((files["pixels"],)), outputs, options, QUIET)
    table = pd.read_csv(outputs.csv)
    pixels = GRID * GRID
    assert list(zip(table.density, table.rows, strict=True)) == [
        ("flow", 5 * pixels),
        ("gmm", 5 * pixels),
    ]
    assert (table.seconds_per_1000_rows > 0).all()
    assert (table.seconds >= 0).all() and (table.peak_mb >= 0).all()
    # Both are written with four digits after the point, of which a fast machine's fit fills few.
    rounded = 0.51e-4 * (1 + 1000 / table.rows)
    expected = 1000 * table.seconds / table.rows
    assert ((table.seconds_per_1000_rows - expected).abs() <= rounded).all()
    figure = draw_studies.Outputs(scaling=tmp_path / "scaling.png")
    draw_studies.run(draw_studies.Inputs(outputs.csv), figure, draw_studies.Options(), QUIET)
    with Image.open(tmp_path / "scaling.png") as picture:
        assert picture.size[0] > 1000
