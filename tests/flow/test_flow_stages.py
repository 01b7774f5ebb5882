"""train_flow and denoise_seeds, end to end on a made-up store whose noise is known."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from brnf.config.sections.flow import Denoising, Flow, Tau
from brnf.engine.controller import MINIATURE
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.flow.saved import load_density
from brnf.stages import denoise_seeds, train_flow
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelRows, PixelStore, write_pixels

QUIET = Runtime(device="cpu", threads=1, workers=0, progress="none")
GRID, STRIDE, DIMENSION, CLASSES = (6, 8), 4, 16, 3
SMALL = Flow(blocks=4, hidden=32, steps=150, batch_rows=512, learning_rate=5e-3, held_out=0.1)


def make_shards(folder: Path, shards: int, images: int = 24) -> list[tuple[Path, Path]]:
    """Write pixel stores and maps of scenes: left half object, right half background, of which one
    column fires falsely.

    The false column's features are those of background, so a density knows better than its score of
    0.6.
    """
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, DIMENSION)) * 2
    scenes = []
    for number in range(images):
        label = 1 + number % 2
        truth = np.zeros(GRID, np.int64)
        truth[:, : GRID[1] // 2] = label
        score = np.where(truth > 0, 0.8, 0.1) + 0.05 * random.random(GRID)
        score[:, GRID[1] // 2] = 0.6
        feature = centres[truth.ravel()] + 0.5 * random.normal(size=(truth.size, DIMENSION))
        scenes.append((f"scene_{number:02d}", label, score, feature))
    pairs = []
    for shard in range(shards):
        pixels, maps = folder / f"pixels_{shards}_{shard}.h5", folder / f"maps_{shards}_{shard}.h5"
        with (
            write_pixels(pixels, DIMENSION, CLASSES) as pixel_writer,
            write_maps(maps, 20) as map_writer,
        ):
            for name, label, score, feature in scenes[shard::shards]:
                present = np.array([True, label == 1, label == 2])
                flat, rows = score.ravel(), np.arange(score.size)
                pixel_writer.append(
                    PixelRows(
                        name,
                        GRID,
                        present,
                        feature,
                        flat,
                        1 - flat,
                        np.full(flat.size, label),
                        rows,
                    )
                )
                large = np.kron(score, np.ones((STRIDE, STRIDE)))
                map_writer.write(
                    name, np.array([label]), {"classifier": np.stack([1 - large, large])}
                )
        pairs.append((pixels, maps))
    return pairs


def train(folder: Path, pixels: list[Path], settings: Flow, name: str = "flow") -> Path:
    flow = folder / f"{name}.pt"
    train_flow.run(
        train_flow.Inputs(tuple(pixels)),
        train_flow.Outputs(flow, folder / f"{name}.csv"),
        train_flow.Options(settings),
        QUIET,
    )
    return flow


def denoise(folder: Path, pair: tuple[Path, Path], flow: Path, **changes: object) -> MapReader:
    product = str(changes.pop("product", "classifier"))
    chosen: Any = {"rule": "posterior", **changes}
    options = denoise_seeds.Options(product=product, bsdnf=Denoising(**chosen))
    denoise_seeds.run(
        denoise_seeds.Inputs(pair[0], pair[1], flow),
        denoise_seeds.Outputs(folder / "out.h5"),
        options,
        QUIET,
    )
    return MapReader([folder / "out.h5"], "seeds")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Path, Path]], Path]:
    folder = tmp_path_factory.mktemp("stages")
    pairs = make_shards(folder, 2)
    return folder, pairs, train(folder, [pixels for pixels, _ in pairs], SMALL)


@pytest.mark.parametrize(("rule", "xi"), [("posterior", 0.5), ("ratio", 0.8)])
def test_rules_that_know_the_background_remove_the_false_column(
    fitted: tuple[Path, list[tuple[Path, Path]], Path], tmp_path: Path, rule: str, xi: float
) -> None:
    _, pairs, flow = fitted
    seeds = denoise(tmp_path, pairs[0], flow, rule=rule, xi=xi, upsample="nearest")
    raw = MapReader([pairs[0][1]], "classifier")
    assert len(seeds.images) == 12
    half = GRID[1] // 2 * STRIDE
    kept, removed, cleaned = [], [], []
    for name in seeds.images:
        before, after = raw[name].labels() > 0, seeds[name].labels() > 0
        kept.append(after[:, :half].mean())
        removed.append(1 - after[:, half : half + STRIDE].mean())
        cleaned.append(before[:, half : half + STRIDE].mean())
        changed = seeds[name].values != raw[name].values
        gone = seeds[name].values[0] == 1
        assert not changed[:, ~gone].any()
        assert (seeds[name].values[1:, gone] == 0).all()
    assert np.mean(cleaned) == 1
    assert np.mean(kept) > 0.93
    assert np.mean(removed) > 0.9


def test_temperature_and_tables_are_kept_with_the_flow(
    fitted: tuple[Path, list[tuple[Path, Path]], Path],
) -> None:
    folder, pairs, flow = fitted
    density, calibration = load_density(flow)
    assert calibration is not None and calibration.temperature > 0
    store = PixelStore([pixels for pixels, _ in pairs])
    own = []
    for batch in store.blocks():
        chosen = (batch.label == 1) & (batch.score > batch.background)
        own.append(density.log_prob(torch.from_numpy(batch.feature[chosen]))[:, 1].numpy())
    expected = np.quantile(np.concatenate(own), np.linspace(0, 1, 1001))
    np.testing.assert_allclose(
        calibration.likelihood["predicted"][1].numpy(), expected, rtol=1e-3, atol=1e-3
    )
    with (folder / "flow.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SMALL.steps and float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert rows[-1]["held_out"] and not rows[0]["held_out"]


def test_number_of_shards_and_repetition_change_no_byte(
    fitted: tuple[Path, list[tuple[Path, Path]], Path], tmp_path: Path
) -> None:
    _, pairs, _ = fitted
    options = replace(SMALL, steps=30)
    other = [pixels for pixels, _ in make_shards(tmp_path, 3)]
    contents = {
        train(tmp_path, paths, options, name).read_bytes()
        for name, paths in [("a", [p for p, _ in pairs]), ("b", other), ("c", other)]
    }
    assert len(contents) == 1


@pytest.mark.parametrize("density", ["gaussian_diagonal", "gaussian_full", "gmm"])
def test_baselines_go_the_same_way(
    fitted: tuple[Path, list[tuple[Path, Path]], Path], tmp_path: Path, density: str
) -> None:
    _, pairs, _ = fitted
    flow = train(
        tmp_path, [pixels for pixels, _ in pairs], replace(SMALL, density=density, components=2)
    )
    seeds = denoise(tmp_path, pairs[1], flow, rule="posterior", xi=0.5)
    half = GRID[1] // 2 * STRIDE
    assert np.mean([seeds[name].labels()[:, half + 2 :].max() for name in seeds.images]) < 0.2
    assert load_density(flow)[0].kind == density


def test_options_of_the_training(
    fitted: tuple[Path, list[tuple[Path, Path]], Path], tmp_path: Path
) -> None:
    _, pairs, _ = fitted
    options = replace(
        SMALL,
        steps=30,
        held_out=0.0,
        balanced=True,
        temperature=40,
        coupling="glow",
        learn_means=False,
    )
    _, calibration = load_density(train(tmp_path, [pixels for pixels, _ in pairs], options))
    assert calibration is not None and calibration.temperature == 40


def test_command_line_ends_a_mistake_with_status_2(
    fitted: tuple[Path, list[tuple[Path, Path]], Path], tmp_path: Path
) -> None:
    _, pairs, _ = fitted
    places = {
        "--pixels": pairs[0][0],
        "--maps": pairs[0][1],
        "--flow": tmp_path / "gone.pt",
        "--denoised": tmp_path / "out.h5",
    }
    words = [str(word) for place in places.items() for word in place]
    command = [
        sys.executable,
        "-m",
        "brnf.stages.denoise_seeds",
        *words,
        "--bsdnf.rule",
        "ratio",
        "--bsdnf.xi",
        "0.7",
        "--progress",
        "none",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(denoise_seeds.__file__).parents[2]
    )
    assert done.returncode == 2
    device, *told = done.stderr.splitlines()
    assert device.startswith("device: ")
    assert told == [f"error: {tmp_path / 'gone.pt'}: no such file; run train_flow first"]
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("border", [0.0, 1.0])
@pytest.mark.parametrize("density", ["flow", "gmm"])
def test_a_miniature_goes_on_with_labels_of_one_kind(
    fitted: tuple[Path, list[tuple[Path, Path]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    density: Literal["flow", "gmm"],
    border: float,
) -> None:
    """A network that has hardly learned gives all pixels scores near 0, or all near 1."""
    monkeypatch.setenv(MINIATURE, "1")
    options = replace(SMALL, steps=2, density=density, tau=Tau(low=border, high=border))
    train(tmp_path, [pixels for pixels, _ in fitted[1]], options)
    denoise(tmp_path, fitted[1][0], tmp_path / "flow.pt")
    assert (tmp_path / "out.h5").exists()


def test_mistakes_end_in_one_line(
    fitted: tuple[Path, list[tuple[Path, Path]], Path], tmp_path: Path
) -> None:
    _, pairs, flow = fitted
    pixels = [pixels for pixels, _ in pairs]
    for options, words in [
        (replace(SMALL, tau=Tau(high=0.99)), "no row is labelled foreground"),
        (replace(SMALL, tau=Tau(low=0.0)), "no row is labelled background"),
        (replace(SMALL, tau=Tau(low=0.8)), r"flow\.tau"),
        (replace(SMALL, learning_rate=1e30), "training step"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            train(tmp_path, pixels, options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "flow.pt").exists() and not (tmp_path / "flow.csv").exists()
    assert load_density(tmp_path / "flow.last_good.pt")[1] is None
    with pytest.raises(UserError, match="holds no calibration"):
        denoise(tmp_path, pairs[0], tmp_path / "flow.last_good.pt")
    with pytest.raises(UserError, match="has no other map"):
        denoise(tmp_path, pairs[0], flow, product="other")
    with pytest.raises(UserError, match="no pixels of this image"):
        denoise(tmp_path, (pairs[0][0], pairs[1][1]), flow)
    assert not (tmp_path / "out.h5").exists()
    with write_pixels(tmp_path / "narrow.h5", 4, CLASSES):
        pass
    with pytest.raises(UserError, match="do not fit"):
        denoise(tmp_path, (tmp_path / "narrow.h5", pairs[0][1]), flow)
    with pytest.raises(UserError, match="hold no row"):
        train(tmp_path, [tmp_path / "narrow.h5"], SMALL)
