"""The CAM stages end to end on a few images: what they write, that it is the same each time, and
that it is learnt.
"""

import csv
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from brnf.config.sections.cam import (
    BackboneOptions,
    BaseTraining,
    BrnfTraining,
    CamMaps,
    CamTraining,
)
from brnf.config.sections.flow import FlowInTraining
from brnf.data.index import ImageRecord, Index
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages import compute_cams, store_pixels, train_base, train_brnf
from brnf.store.maps import MapReader
from brnf.store.pixels import PixelStore

RUNTIME = Runtime(device="cpu", workers=0, progress="none")
NETWORK = {
    "split": "train",
    "backbone": BackboneOptions(
        name="tf_efficientnet_lite0", weights="efficientnet_lite0", trainable_stages=0
    ),
    "cam": CamTraining(side_widths=(8, 8, 16, 16)),
}
TRAINING = {
    "fit_classifier": True,
    "batch_size": 3,
    "resize_low": 64,
    "resize_high": 64,
    "crop": 64,
    "cache": True,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six images with a striped or a checked patch, and their index."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:24, :24]
    patches = [np.where(x // 3 % 2, 250, 20), np.where((x // 6 + y // 6) % 2, 250, 20)]
    records = []
    for number in range(6):
        pixels = generator.integers(90, 130, (48, 64, 3)).astype(np.uint8)
        top, left = generator.integers(0, 24), generator.integers(0, 40)
        pixels[top : top + 24, left : left + 24] = patches[number % 2][..., None]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        records.append(
            ImageRecord(str(number), folder / f"{number}.png", 64, 48, (number % 2 + 1,))
        )
    Index(("stripes", "checks"), (1, 2), tuple(records)).write(folder, "train")
    return folder


def run_chain(data: Path, folder: Path, seed: int = 0) -> dict[str, Path]:
    """Run base training, CAMs, pixel store and BRNF training; return the files."""
    files = {
        name: folder / name
        for name in ("base.pt", "base.csv", "cams.h5", "pixels.h5", "brnf.pt", "brnf.csv")
    }
    train_base.run(
        train_base.Inputs(data),
        train_base.Outputs(files["base.pt"], files["base.csv"]),
        train_base.Options(**NETWORK, base=BaseTraining(**TRAINING, steps=3)),  # type: ignore[arg-type]
        RUNTIME,
    )
    images = data / "shards" / "train" / "0.csv"
    compute_cams.run(
        compute_cams.Inputs(data, files["base.pt"], images),
        compute_cams.Outputs(files["cams.h5"]),
        compute_cams.Options(CamMaps(scales=(0.5, 1.0))),
        RUNTIME,
    )
    store_pixels.run(
        store_pixels.Inputs(data, files["base.pt"], files["cams.h5"], images),
        store_pixels.Outputs(files["pixels.h5"]),
        store_pixels.Options(product="classifier"),
        RUNTIME,
    )
    options = train_brnf.Options(
        **NETWORK,  # type: ignore[arg-type]
        seed_product="classifier",
        brnf=BrnfTraining(**TRAINING, steps=6, online_warmup=1, labels_from="seed"),  # type: ignore[arg-type]
        flow=FlowInTraining(blocks=2, hidden=16),
        seed=seed,
    )
    train_brnf.run(
        train_brnf.Inputs(data, files["base.pt"], (files["cams.h5"],)),
        train_brnf.Outputs(files["brnf.pt"], files["brnf.csv"]),
        options,
        RUNTIME,
    )
    return files


@pytest.fixture(scope="module")
def chain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    return run_chain(data, tmp_path_factory.mktemp("chain"))


def test_the_same_seed_gives_the_same_bytes(
    data: Path, chain: dict[str, Path], tmp_path: Path
) -> None:
    again = run_chain(data, tmp_path)
    for name, path in chain.items():
        assert path.read_bytes() == again[name].read_bytes(), name
    other = run_chain(data, tmp_path / "other", seed=1)
    assert other["brnf.pt"].read_bytes() != chain["brnf.pt"].read_bytes()


def test_maps_have_the_size_of_the_image_and_its_labels_only(chain: dict[str, Path]) -> None:
    maps = MapReader([chain["cams.h5"]], "classifier")
    assert maps.images == [str(number) for number in range(6)]
    assert maps["0"].values.shape == (2, 48, 64) and maps["1"].classes.tolist() == [2]
    assert maps["0"].values[1].max() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(maps["0"].values[0], 1 - maps["0"].values[1], atol=1e-3)


def test_the_store_has_one_row_a_grid_position_with_the_score_of_its_area(
    chain: dict[str, Path],
) -> None:
    store, maps = PixelStore([chain["pixels.h5"]]), MapReader([chain["cams.h5"]], "classifier")
    rows = store.image_rows("3")
    assert (
        rows.grid == (3, 4) and rows.feature.shape == (12, 48) and set(rows.label.tolist()) == {2}
    )
    area = maps["3"].values[1].reshape(3, 16, 4, 16).mean((1, 3)).ravel()
    np.testing.assert_allclose(rows.score, area, atol=2e-3)
    blocks = rows.feature.astype(np.float32).reshape(12, -1)
    assert np.isfinite(blocks).all() and np.abs(blocks).max() <= 1.001  # means of unit vectors


def test_the_flow_waits_for_its_second_epoch(chain: dict[str, Path]) -> None:
    with chain["brnf.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [bool(row["calibration"]) for row in rows] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]  # two steps an epoch
    assert all(row["flow_nll"] for row in rows)


def test_a_network_of_other_classes_is_refused(
    data: Path, chain: dict[str, Path], tmp_path: Path
) -> None:
    index = Index.of_split(data, "train")
    Index(("stripes", "dots"), index.mask_values, index.images).write(tmp_path, "train")
    inputs = compute_cams.Inputs(tmp_path, chain["base.pt"], data / "shards" / "train" / "0.csv")
    with pytest.raises(UserError, match=r"base\.pt: trained for the classes stripes, checks"):
        compute_cams.run(
            inputs, compute_cams.Outputs(tmp_path / "maps.h5"), compute_cams.Options(), RUNTIME
        )
    assert not (tmp_path / "maps.h5").exists()


def test_a_damaged_network_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "base.pt").write_bytes(b"no network")
    inputs = compute_cams.Inputs(data, tmp_path / "base.pt", data / "shards" / "train" / "0.csv")
    with pytest.raises(UserError, match=r"base\.pt: damaged"):
        compute_cams.run(
            inputs, compute_cams.Outputs(tmp_path / "maps.h5"), compute_cams.Options(), RUNTIME
        )


def test_a_diverging_training_names_its_step(data: Path, tmp_path: Path) -> None:
    diverging = TRAINING | {"head_learning_rate": 1e30, "clip_norm": 1e30, "steps": 20}
    options = train_base.Options(**NETWORK, base=BaseTraining(**diverging))  # type: ignore[arg-type]
    outputs = train_base.Outputs(tmp_path / "base.pt", tmp_path / "base.csv")
    with pytest.raises(UserError, match=r"training step \d+: the loss is"):
        train_base.run(train_base.Inputs(data), outputs, options, RUNTIME)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_change_no_byte(
    data: Path, chain: dict[str, Path], tmp_path: Path, workers: int
) -> None:
    runtime, images = replace(RUNTIME, workers=workers), data / "shards" / "train" / "0.csv"
    maps, pixels = tmp_path / "cams.h5", tmp_path / "pixels.h5"
    compute_cams.run(
        compute_cams.Inputs(data, chain["base.pt"], images),
        compute_cams.Outputs(maps),
        compute_cams.Options(CamMaps(scales=(0.5, 1.0))),
        runtime,
    )
    store_pixels.run(
        store_pixels.Inputs(data, chain["base.pt"], maps, images),
        store_pixels.Outputs(pixels),
        store_pixels.Options(product="classifier"),
        runtime,
    )
    assert maps.read_bytes() == chain["cams.h5"].read_bytes()
    assert pixels.read_bytes() == chain["pixels.h5"].read_bytes()


def test_a_device_is_told_of_the_next_image_before_the_last_has_arrived(
    data: Path, chain: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features of an image but the last arrive when those of the next were asked for."""
    count = len(Index.of_split(data, "train").images)
    asked = [threading.Event() for _ in range(count)]
    numbers, copies = iter(range(count)), iter(range(1, count + 1))
    features_of = store_pixels.pixel_features

    def features(*given: Any) -> Tensor:
        asked[next(numbers)].set()
        return features_of(*given)

    def begin_copy(values: Tensor) -> Callable[[], Tensor]:
        following = next(copies)

        def wait() -> Tensor:
            assert following == count or asked[following].wait(60)
            return values

        return wait

    monkeypatch.setattr(store_pixels, "pixel_features", features)
    monkeypatch.setattr(store_pixels, "begin_copy", begin_copy)
    pixels, images = tmp_path / "pixels.h5", data / "shards" / "train" / "0.csv"
    store_pixels.run(
        store_pixels.Inputs(data, chain["base.pt"], chain["cams.h5"], images),
        store_pixels.Outputs(pixels),
        store_pixels.Options(product="classifier"),
        replace(RUNTIME, workers=1),
    )
    assert pixels.read_bytes() == chain["pixels.h5"].read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_photograph_is_one_line_and_nothing_is_left(
    data: Path, chain: dict[str, Path], tmp_path: Path, workers: int
) -> None:
    index = Index.of_split(data, "train")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(index.images[3].path.read_bytes()[:300])
    images = [replace(one, path=damaged) if one.id == "3" else one for one in index.images]
    Index(index.classes, index.mask_values, tuple(images)).write(tmp_path / "index", "train")
    place = tmp_path / "index", chain["base.pt"]
    shard, runtime = place[0] / "shards" / "train" / "0.csv", replace(RUNTIME, workers=workers)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"^[^\n]+damaged\.png: [^\n]+$"):
        compute_cams.run(
            compute_cams.Inputs(*place, shard),
            compute_cams.Outputs(tmp_path / "maps.h5"),
            compute_cams.Options(CamMaps(scales=(1.0,))),
            runtime,
        )
    with pytest.raises(UserError, match=r"^[^\n]+damaged\.png: [^\n]+$"):
        store_pixels.run(
            store_pixels.Inputs(*place, chain["cams.h5"], shard),
            store_pixels.Outputs(tmp_path / "pixels.h5"),
            store_pixels.Options(product="classifier"),
            runtime,
        )
    left = [one for one in tmp_path.iterdir() if not one.name.endswith(".lock")]
    assert sorted(left) == before
