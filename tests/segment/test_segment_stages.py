"""The three stages one after the other on four images."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brnf.config.sections.segmentation import (
    Crf,
    CrfLabels,
    PredictionCrf,
    SegmentationTest,
    SegmentationTraining,
)
from brnf.data.index import ImageRecord, Index
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages import make_pseudo_labels, predict_segmentation, train_segmentation
from brnf.store.confidences import read_confidences
from brnf.store.maps import MapReader, write_maps

NO_CRF = Crf(iterations=0)
QUIET = Runtime(device="cpu", threads=1, workers=0, progress="none")
COLOURS = np.array([(100, 100, 100), (220, 30, 30), (30, 200, 40)], np.uint8)
CLASSES = ("red", "green")
TRAINING = train_segmentation.Options(
    split="train",
    segmentation=SegmentationTraining(
        backbone="test_resnet",
        weights="none",
        rates=(1, 2),
        head="aspp_sum",
        frozen_batch_norm=False,
        iterations=30,
        batch_size=4,
        crop=56,
        scale_low=0.8,
        scale_high=1.2,
        learning_rate=0.01,
    ),
)
PREDICTION = predict_segmentation.Options(test=SegmentationTest(scales=(1.0, 1.25)))


def trained_with(**changes: float) -> train_segmentation.Options:
    """Return TRAINING with other settings of its section."""
    return replace(TRAINING, segmentation=replace(TRAINING.segmentation, **changes))


class Scenes:
    """Four images of one coloured square each, their index, their true labels and coarse maps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index, self.maps = folder, folder / "index", folder / "maps.h5"
        self.images = self.index / "shards" / "train" / "0.csv"
        self.truth: dict[str, np.ndarray] = {}
        rng = np.random.default_rng(0)
        records = []
        with write_maps(self.maps, 20) as maps:
            for number in range(4):
                name, label = f"image{number}", 1 + number % 2
                truth = np.zeros((56, 64), np.uint8)
                top, left = rng.integers(3, 20, 2)
                truth[top : top + 33, left : left + 37] = label
                Image.fromarray(
                    COLOURS[truth] + rng.integers(0, 3, (56, 64, 3), dtype=np.uint8)
                ).save(folder / f"{name}.png")
                coarse = (truth == label).reshape(14, 4, 16, 4).mean((1, 3)).astype(np.float32)
                maps.write(name, np.array([label]), {"seeds": np.stack([1 - coarse, coarse])})
                records.append(ImageRecord(name, folder / f"{name}.png", 64, 56, (label,)))
                self.truth[name] = truth
        Index(CLASSES, (1, 2), tuple(records)).write(self.index, "train")

    def accuracy(self, masks: Path) -> float:
        assert sorted(path.stem for path in masks.glob("*.png")) == sorted(self.truth)
        return float(
            np.mean([(read(masks, name) == truth).mean() for name, truth in self.truth.items()])
        )

    @property
    def background(self) -> float:
        return float(np.mean([(truth == 0).mean() for truth in self.truth.values()]))

    def pseudo_labels(
        self, name: str, options: make_pseudo_labels.Options, runtime: Runtime = QUIET
    ) -> make_pseudo_labels.Outputs:
        outputs = make_pseudo_labels.Outputs(self.folder / name, self.folder / f"{name}.h5")
        make_pseudo_labels.run(
            make_pseudo_labels.Inputs(self.index, self.images, self.maps), outputs, options, runtime
        )
        return outputs

    def train(
        self, name: str, masks: Path, options: train_segmentation.Options, runtime: Runtime = QUIET
    ) -> train_segmentation.Outputs:
        outputs = train_segmentation.Outputs(
            self.folder / f"{name}.pt", self.folder / f"{name}.csv"
        )
        train_segmentation.run(
            train_segmentation.Inputs(self.index, (masks,)), outputs, options, runtime
        )
        return outputs

    def predict(
        self,
        name: str,
        network: Path,
        options: predict_segmentation.Options,
        runtime: Runtime = QUIET,
    ) -> predict_segmentation.Outputs:
        outputs = predict_segmentation.Outputs(
            self.folder / name, self.folder / f"{name}.h5", self.folder / f"{name}.csv"
        )
        predict_segmentation.run(
            predict_segmentation.Inputs(self.index, network, self.images), outputs, options, runtime
        )
        return outputs


def read(masks: Path, name: str) -> np.ndarray:
    with Image.open(masks / f"{name}.png") as image:
        assert image.mode == "P"
        return np.array(image)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    torch.set_num_threads(1)
    return Scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def masks(scenes: Scenes) -> Path:
    return scenes.pseudo_labels("masks", make_pseudo_labels.Options()).masks


def test_epochs_end_a_training_of_few_images_as_fewer_iterations_do(
    scenes: Scenes, masks: Path
) -> None:
    bounded = scenes.train("bounded", masks, trained_with(epochs=3))
    short = scenes.train("short", masks, trained_with(iterations=3))
    assert bounded.history.read_bytes() == short.history.read_bytes()
    assert bounded.history.read_text().count("\n") == 1 + 3, "4 images are one step"


@pytest.fixture(scope="module")
def trained(scenes: Scenes, masks: Path) -> train_segmentation.Outputs:
    return scenes.train("network", masks, TRAINING)


def test_pseudo_labels_follow_the_colours_better_than_their_maps(
    scenes: Scenes, masks: Path
) -> None:
    without = make_pseudo_labels.Options(pseudo_labels=CrfLabels(crf=NO_CRF))
    plain = scenes.pseudo_labels("plain", without)
    assert scenes.accuracy(plain.masks) < scenes.accuracy(masks)
    assert scenes.accuracy(masks) > 0.99
    assert MapReader([plain.probabilities], "probability").images == []


def test_confidence_and_probabilities_are_written(scenes: Scenes) -> None:
    labels = CrfLabels(crf=NO_CRF, confidence=0.95, save_probabilities=True)
    outputs = scenes.pseudo_labels("doubt", make_pseudo_labels.Options(pseudo_labels=labels))
    maps = MapReader([outputs.probabilities], "probability")
    for name in scenes.truth:
        label, found = read(outputs.masks, name), maps[name]
        assert found.values.shape == (2, 56, 64)
        assert 0 < (label == 255).mean() < 0.3
        clear = np.abs(found.values.max(0) - 0.95) > 1e-3
        np.testing.assert_array_equal((label == 255)[clear], (found.values.max(0) < 0.95)[clear])


def test_training_lowers_the_loss_and_prediction_beats_the_background(
    scenes: Scenes, trained: train_segmentation.Outputs
) -> None:
    with trained.history.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    losses = [float(row["loss"]) for row in rows]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    predicted = scenes.predict("predictions", trained.network, PREDICTION)
    assert scenes.accuracy(predicted.masks) > scenes.background + 0.15
    assert MapReader([predicted.probabilities], "probability").images == []


def test_saved_probabilities_are_those_of_the_masks(
    scenes: Scenes, trained: train_segmentation.Outputs
) -> None:
    test = SegmentationTest(scales=(1.0,), flip=False, long_side=48, save_probabilities=True)
    options = predict_segmentation.Options(test=test)
    outputs = scenes.predict("probable", trained.network, options)
    maps = MapReader([outputs.probabilities], "probability")
    assert maps.images == sorted(scenes.truth)
    for name in scenes.truth:
        found = maps[name]
        assert found.classes.tolist() == [1, 2]
        np.testing.assert_allclose(found.values.sum(0), 1, atol=2e-3)
        assert (found.labels() == read(outputs.masks, name)).mean() > 0.99


def test_confidence_is_that_of_the_network_before_the_crf(
    scenes: Scenes, trained: train_segmentation.Outputs
) -> None:
    found = {}
    for iterations in (0, 3):
        crf = PredictionCrf(iterations=iterations)
        test = SegmentationTest(scales=(1.0,), flip=False, save_probabilities=True, crf=crf)
        options = predict_segmentation.Options(test=test)
        outputs = scenes.predict(f"sure{iterations}", trained.network, options)
        found[iterations] = read_confidences([outputs.confidences])
        if not iterations:
            maps = MapReader([outputs.probabilities], "probability")
            means = {name: maps[name].values.max(0).mean() for name in scenes.truth}
            assert found[0] == pytest.approx(means, abs=1e-3)
    assert found[3] == pytest.approx(found[0], abs=1e-3)


def test_without_iterations_no_label_is_left_out(
    scenes: Scenes, trained: train_segmentation.Outputs
) -> None:
    """Nowhere does the colour that an image lacks have probability 1; where there is a CRF, it is
    left out.
    """
    left_out = {}
    for iterations in (0, 1):
        crf = PredictionCrf(iterations=iterations, minimum=1.0)
        test = SegmentationTest(scales=(1.0,), flip=False, save_probabilities=True, crf=crf)
        options = predict_segmentation.Options(test=test)
        outputs = scenes.predict(f"minimum{iterations}", trained.network, options)
        maps = MapReader([outputs.probabilities], "probability")
        largest = [maps[name].values.max((1, 2)).min() for name in scenes.truth]
        left_out[iterations] = [value == 0 for value in largest]
    assert not any(left_out[0]) and all(left_out[1])


def test_equal_seeds_give_equal_bytes_for_any_number_of_workers(
    scenes: Scenes, masks: Path
) -> None:
    short = trained_with(iterations=3)
    one = scenes.train("one", masks, short)
    two = scenes.train(
        "two", masks, short, Runtime(device="cpu", threads=1, workers=2, progress="none")
    )
    other = scenes.train("other", masks, replace(short, seed=1))
    assert one.network.read_bytes() == two.network.read_bytes() != other.network.read_bytes()
    assert one.history.read_bytes() == two.history.read_bytes()


def test_processes_of_the_crf_give_equal_bytes(
    scenes: Scenes, masks: Path, trained: train_segmentation.Outputs
) -> None:
    several = Runtime(device="cpu", threads=1, workers=2, progress="none")
    once = predict_segmentation.Options(test=SegmentationTest(scales=(1.0,), flip=False))
    pairs = [
        (masks, scenes.pseudo_labels("several", make_pseudo_labels.Options(), several).masks),
        (
            scenes.predict("alone", trained.network, once).masks,
            scenes.predict("together", trained.network, once, several).masks,
        ),
    ]
    for one, other in pairs:
        names = sorted(path.name for path in one.glob("[!.]*"))
        assert names and names == sorted(path.name for path in other.glob("[!.]*"))
        assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_bad_input_is_one_line_and_leaves_nothing_behind(
    scenes: Scenes, masks: Path, trained: train_segmentation.Outputs
) -> None:
    def refused(pattern: str, call: object, *arguments: object) -> None:
        with pytest.raises(UserError, match=pattern) as caught:
            call(*arguments)  # type: ignore[operator]
        assert "\n" not in str(caught.value)

    few = scenes.folder / "few"
    few.mkdir()
    (few / "image0.png").write_bytes((masks / "image0.png").read_bytes())
    refused("image1.*no mask", scenes.train, "bad", few, TRAINING)
    refused(
        "split 'nowhere'",
        scenes.train,
        "bad",
        masks,
        replace(TRAINING, split="nowhere"),
    )
    diverging = trained_with(learning_rate=1e30)
    refused("learning_rate", scenes.train, "bad", masks, diverging)
    cut = scenes.folder / "cut.pt"
    cut.write_bytes(trained.network.read_bytes()[:5000])
    refused(r"cut\.pt: damaged", scenes.predict, "bad", cut, PREDICTION)
    refused(
        "no prototype map",
        scenes.pseudo_labels,
        "bad",
        make_pseudo_labels.Options(product="prototype"),
    )
    content = torch.load(trained.network, weights_only=True)
    torch.save({**content, "classes": ["red", "blue"]}, scenes.folder / "renamed.pt")
    refused(
        r"renamed\.pt.*red, blue", scenes.predict, "bad", scenes.folder / "renamed.pt", PREDICTION
    )
    assert not [
        path
        for path in scenes.folder.iterdir()
        if "bad" in path.name and not path.name.endswith(".lock")
    ]
