"""What the CAM networks are trained on: order, cached backbone outputs, the fitted classifier,
aligned seeds.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from brnf.backbones import build_backbone
from brnf.cam.batch import Batch
from brnf.cam.classifier_fit import fit_classifier
from brnf.cam.crops import TrainingSource
from brnf.cam.network import CamNetwork
from brnf.config.sections.cam import BackboneOptions, Training
from brnf.data.index import ImageRecord, Index
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.store.maps import MapReader, write_maps

RUNTIME = Runtime(workers=0, progress="none")
CPU = torch.device("cpu")
BACKBONE = BackboneOptions(name="tf_efficientnet_lite0", weights="none", trainable_stages=0)
STRIDES = ((16, False), (16, True), (8, False))
WHOLE = Training(batch_size=2, resize_low=64, resize_high=64, crop=64, cache=True)
SEED = 3


@pytest.fixture(scope="module")
def network() -> CamNetwork:
    torch.manual_seed(0)
    return CamNetwork(build_backbone(BACKBONE), 2, (8, 8, 8, 8))


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Return five images, each with a bright left or right half; the half is the class."""
    generator = np.random.default_rng(0)
    records = []
    for number in range(5):
        pixels = generator.integers(0, 40, (48, 64, 3), dtype=np.uint8)
        left = number % 2 == 0
        pixels[:, slice(0, 32) if left else slice(32, 64)] += 200
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        records.append(ImageRecord(str(number), path, 64, 48, (1,) if left else (2,)))
    return Index(("left", "right"), (1, 2), tuple(records))


def seed_maps(index: Index, path: Path) -> MapReader:
    """Write maps that mark the bright half of each image."""
    with write_maps(path, 20) as writer:
        for record in index.images:
            inside = np.zeros((48, 64), np.float32)
            inside[:, slice(0, 32) if record.labels == (1,) else slice(32, 64)] = 1
            writer.write(
                record.id, np.array(record.labels), {"seeds": np.stack([1 - inside, inside])}
            )
    return MapReader([path], "seeds")


def make_source(
    network: CamNetwork,
    index: Index,
    seeds: MapReader | None,
    options: Training,
    folder: Path,
    workers: int = 0,
    seed: int = SEED,
):
    return TrainingSource(
        network, index, seeds, options, seed, folder, CPU, Runtime(progress="none", workers=workers)
    )


def test_cached_outputs_are_those_of_the_whole_image(
    network: CamNetwork, index: Index, tmp_path: Path
) -> None:
    seeds = seed_maps(index, tmp_path / "seeds.h5")
    with make_source(network, index, seeds, WHOLE, tmp_path / "network") as source:
        cached = list(source.whole_images())
    loose = replace(WHOLE, cache=False)
    with make_source(network, index, seeds, loose, tmp_path) as source, torch.inference_mode():
        fresh = list(source.whole_images())
        stages = [network.stages(batch.pixels) for batch in fresh]
    assert sum(len(batch.labels) for batch in cached) == 10  # each image and its mirror
    for batch, other, outputs in zip(cached, fresh, stages, strict=True):
        expected = (*outputs, other.labels, other.valid, other.seeds)
        for ours, theirs in zip(
            (*batch.pixels, batch.labels, batch.valid, batch.seeds), expected, strict=True
        ):
            assert torch.equal(ours, theirs)
    assert not list((tmp_path / "network").iterdir())  # the temporary file is gone


def test_trainings_that_see_the_same_ask_the_backbone_once(
    network: CamNetwork, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(workers=0, progress="none", feature_cache=tmp_path / "cache")
    asked: list[int] = []
    stages = network.stages
    monkeypatch.setattr(
        network, "stages", lambda images: (asked.append(len(images)), stages(images))[1]
    )

    def labels(
        seeds: MapReader | None = None, seed: int = SEED, **changes: int
    ) -> list[list[float]]:
        options = replace(WHOLE, **changes)
        with TrainingSource(
            network, index, seeds, options, seed, tmp_path / "network", CPU, runtime
        ) as source:
            return [first_values(batch) for batch in source.batches(4)]

    first = labels()
    assert sum(asked) == 10
    assert labels(seed_maps(index, tmp_path / "seeds.h5")) == first and sum(asked) == 10
    assert labels(seed=4) != first and sum(asked) == 10, (
        "the seed decides the order, not the features"
    )
    labels(crop=48, resize_low=48, resize_high=48)
    assert sum(asked) == 20
    assert len(list((tmp_path / "cache").iterdir())) == 2 and not list(
        (tmp_path / "network").iterdir()
    )
    with torch.no_grad():
        next(network.backbone.parameters()).add_(1)
    labels()
    assert sum(asked) == 30, "other weights, other features"
    with torch.no_grad():
        next(network.backbone.parameters()).sub_(1)


def test_seed_maps_lie_on_features_that_a_training_of_another_seed_has_cached(
    network: CamNetwork, index: Index, tmp_path: Path
) -> None:
    runtime = Runtime(workers=0, progress="none", feature_cache=tmp_path / "cache")
    seeds = seed_maps(index, tmp_path / "seeds.h5")  # of any pixel they sum to 1
    for seed in range(3):
        with TrainingSource(
            network, index, seeds, WHOLE, seed, tmp_path / "network", CPU, runtime
        ) as source:
            for batch in source.whole_images():
                assert batch.seeds is not None and not batch.valid.all(), (
                    "an image that fills its square shows nothing"
                )
                # Sums in float32; many are one half, which may be rounded, and none is near it.
                shown = batch.seeds.sum(1, keepdim=True)
                assert torch.equal(shown > 0.5 - 1e-4, batch.valid)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_stride_or_number_of_classes_keeps_other_outputs(
    network: CamNetwork, index: Index, tmp_path: Path
) -> None:
    runtime = Runtime(workers=0, progress="none", feature_cache=tmp_path / "cache")
    more = replace(index, classes=(*index.classes, "another"))
    others = [replace(BACKBONE, stride=stride, dilated=dilated) for stride, dilated in STRIDES]
    strides = [CamNetwork(build_backbone(other), 2, (8, 8, 8, 8)) for other in others]
    for source_network, source_index in [*((one, index) for one in strides), (network, more)]:
        source_network.backbone.load_state_dict(
            network.backbone.state_dict()
        )  # strides are no weights
        with TrainingSource(
            source_network, source_index, None, WHOLE, SEED, tmp_path / "network", CPU, runtime
        ) as source:
            batch = next(source.whole_images())
            with torch.inference_mode():
                pixels = next(iter(source._whole_loader())).pixels
                assert isinstance(pixels, torch.Tensor)
                expected = source_network.stages(pixels)
        assert batch.labels.shape[1] == len(source_index.classes)
        assert all(
            torch.equal(ours, theirs) for ours, theirs in zip(batch.pixels, expected, strict=True)
        )
    assert len(list((tmp_path / "cache").iterdir())) == len(STRIDES) + 1


def test_every_image_comes_once_an_epoch_in_a_new_order(
    network: CamNetwork, index: Index, tmp_path: Path
) -> None:
    options = replace(WHOLE, batch_size=5)
    with make_source(network, index, None, options, tmp_path / "a", seed=0) as source:
        epochs = [batch.labels[:, 0].tolist() for batch in source.batches(4)]
        again = [batch.labels[:, 0].tolist() for batch in source.batches(4)]
    assert all(sum(epoch) == 3 for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) > 1
    assert again == epochs


@pytest.mark.parametrize("cache", [True, False])
def test_batches_that_are_done_are_left_out(
    network: CamNetwork, index: Index, tmp_path: Path, cache: bool
) -> None:
    options = replace(WHOLE, cache=cache)
    with make_source(network, index, None, options, tmp_path / "d") as source:
        whole = [first_values(batch) for batch in source.batches(7)]  # two an epoch
        for done in range(8):
            assert [first_values(batch) for batch in source.batches(7, done)] == whole[done:]


def first_values(batch: Batch) -> list[float]:
    pixels = batch.pixels if isinstance(batch.pixels, torch.Tensor) else batch.pixels[0]
    return [*batch.labels.flatten().tolist(), *pixels.double().mean((1, 2, 3)).tolist()]


@pytest.mark.parametrize("cache", [True, False])
def test_seeds_move_with_the_image(
    network: CamNetwork, index: Index, tmp_path: Path, cache: bool
) -> None:
    options = replace(WHOLE, batch_size=5, cache=False)
    with make_source(
        network, index, seed_maps(index, tmp_path / "seeds.h5"), options, tmp_path / "b", seed=1
    ) as source:
        batches = list(source.whole_images()) if cache else list(source.batches(6))
    for batch in batches:
        bright = batch.pixels.float().mean(1)
        for n in range(len(batch.labels)):
            label = int(batch.labels[n].argmax()) + 1
            inside = torch.nn.functional.avg_pool2d((bright[n] > 190).float()[None], 16)[0]
            assert batch.valid[n, 0].any()
            torch.testing.assert_close(
                batch.seeds[n, label][batch.valid[n, 0]],
                inside[batch.valid[n, 0]],
                atol=0.3,
                rtol=0,
            )
            assert not batch.seeds[n, 3 - label].any()  # the other class is not of this image


def test_workers_change_nothing(network: CamNetwork, index: Index, tmp_path: Path) -> None:
    options = Training(batch_size=2, resize_low=40, resize_high=90, crop=48)
    runs = []
    for workers in (0, 2):
        with make_source(network, index, None, options, tmp_path, workers, seed=7) as source:
            runs.append([batch.pixels for batch in source.batches(5)])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_fitted_classifier_is_the_optimum_that_scikit_learn_finds(
    network: CamNetwork, index: Index, tmp_path: Path
) -> None:
    weight_decay = 0.01
    with make_source(network, index, None, WHOLE, tmp_path / "c") as source:
        fit_classifier(network, source, weight_decay)
        batches = list(source.whole_images())
    pooled = (
        torch.cat([(b.pixels[3] * b.valid).sum((2, 3)) / b.valid.sum((2, 3)) for b in batches])
        .double()
        .numpy()
    )
    labels = torch.cat([b.labels for b in batches]).numpy()
    # Our loss averages over images and classes: sum / (n * C) + weight_decay |w|^2,
    # scikit-learn's is sum + |w|^2 / (2 c).
    for k in range(2):
        reference = LogisticRegression(
            C=1 / (2 * weight_decay * labels.size), fit_intercept=False, tol=1e-8, max_iter=10_000
        )
        reference.fit(pooled, labels[:, k])
        np.testing.assert_allclose(
            network.classifier.weight[k, :, 0, 0].detach().numpy(), reference.coef_[0], atol=2e-3
        )


@pytest.mark.parametrize("size", [(3000, 60), (60, 3000), (3000, 1), (640, 96), (640, 100)])
@pytest.mark.parametrize("options", [WHOLE, replace(WHOLE, resize_high=96, cache=False)])
def test_a_strip_is_never_without_a_valid_cell(
    network: CamNetwork, tmp_path: Path, options: Training, size: tuple[int, int]
) -> None:
    """Dividing by the number of its cells made the fitted classifier NaN."""
    width, height = size
    path = tmp_path / "strip.png"
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    index = Index(("a", "b"), (1, 2), (ImageRecord("strip", path, width, height, (1,)),))
    with make_source(network, index, None, options, tmp_path / "c") as source:
        for batch in (*source.whole_images(), *source.batches(4)):
            assert batch.valid.flatten(1).any(1).all()
        fit_classifier(network, source, 0.01)
    assert network.classifier.weight.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"crop": 60}, "multiple of 16"), ({"resize_low": 48}, "must be equal")],
)
def test_contradictions_are_one_line(
    network: CamNetwork, index: Index, tmp_path: Path, changes: dict[str, int], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        make_source(network, index, None, replace(WHOLE, **changes), tmp_path)


def test_only_a_frozen_backbone_is_cached(index: Index, tmp_path: Path) -> None:
    learning = CamNetwork(
        build_backbone(
            BackboneOptions(name="tf_efficientnet_lite0", weights="none", trainable_stages=1)
        ),
        2,
        (8, 8, 8, 8),
    )
    with pytest.raises(UserError, match="frozen"):
        make_source(learning, index, None, WHOLE, tmp_path)
