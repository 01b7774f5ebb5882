"""The stream of training crops."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from brnf.config.sections.segmentation import Augmentation
from brnf.data.images import read_image
from brnf.data.index import ImageRecord
from brnf.data.masks import write_palette_png
from brnf.errors import UserError
from brnf.segment.dataset import (
    LabelledImage,
    SegmentationDraws,
    endless_batches,
    pair_with_masks,
)

PLAIN = Augmentation(crop=24, scale_low=1.0, scale_high=1.0, flip=False, hsv=0.0)
FILL = (124, 116, 104)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """Write five images whose red channel is 50 times the label, so that the two can be compared
    after any geometry.
    """
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    found = []
    for number in range(5):
        label = np.kron(rng.integers(0, 4, (4, 5)), np.ones((8, 8))).astype(np.uint8)
        pixels = np.stack([label * 50, np.full_like(label, number * 40), label], -1)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        write_palette_png(folder / f"mask{number}.png", label)
        found.append(LabelledImage(folder / f"{number}.png", folder / f"mask{number}.png"))
    return found


def stream(
    images: list[LabelledImage], options: Augmentation, draws: int = 20, seed: int = 3
) -> SegmentationDraws:
    return SegmentationDraws(images, 3, draws, options, FILL, seed)


def test_labels_move_with_their_image(images: list[LabelledImage]) -> None:
    options = Augmentation(crop=24, scale_low=2.0, scale_high=2.0, hsv=0.0)
    for image, label in stream(images, replace(options, interpolation="bilinear")):
        assert image.shape == (3, 24, 24) and label.shape == (24, 24)
        red = image[0].float() / 50
        # Away from borders between labels the enlarged image is still pure.
        pure = (red - red.round()).abs() < 1e-6
        assert pure.float().mean() > 0.5
        assert (red[pure] == label[pure]).float().mean() > 0.97


def test_padding_is_ignored_and_has_the_mean_colour(images: list[LabelledImage]) -> None:
    image, label = stream(images, Augmentation(crop=60, scale_low=1.0, scale_high=1.0))[0]
    assert (label == 255).sum() == 60 * 60 - 32 * 40
    assert torch.equal(
        image[:, label == 255].unique(dim=1).flatten(), torch.tensor(FILL, dtype=torch.uint8)
    )


def test_padding_lies_after_the_image_and_is_mirrored_with_it(images: list[LabelledImage]) -> None:
    options = Augmentation(crop=60, scale_low=1.0, scale_high=1.0, padding="after", flip=False)
    assert places(images, options) == {(0, 0)}
    assert places(images, replace(options, flip=True)) == {(0, 0), (0, 20)}
    assert len(places(images, replace(options, padding="random"))) > 10


def places(images: list[LabelledImage], options: Augmentation) -> set[tuple[int, ...]]:
    """Return the corners above and left of where images lie in their crops."""
    labelled = (label != 255 for _, label in stream(images, options))
    return {tuple(label.nonzero().min(0).values.tolist()) for label in labelled}


def test_images_are_scaled_as_chosen_and_masks_by_the_nearest_pixel(
    images: list[LabelledImage],
) -> None:
    whole, label = read_image(images[0].image), np.asarray(Image.open(images[0].mask))
    flags = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
    for name, flag in flags.items():
        chosen = {"crop": 24, "scales": (0.6,), "interpolation": name, "padding": "after"}
        options = replace(PLAIN, **chosen)
        found, mask = stream(images[:1], options)[0]
        size = (19, 24)
        expected = cv2.resize(whole, (size[1], size[0]), interpolation=flag)
        np.testing.assert_array_equal(found[:, : size[0]].permute(1, 2, 0), expected)
        nearest = Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(mask[: size[0]], np.asarray(nearest))


def test_scales_are_drawn_from_the_list_or_the_range(images: list[LabelledImage]) -> None:
    def areas(options: Augmentation) -> list[int]:
        return [int((label != 255).sum()) for _, label in stream(images, options, 30)]

    chosen = areas(Augmentation(crop=80, scales=(0.5, 1.0)))
    assert set(chosen) == {16 * 20, 32 * 40}
    drawn = areas(Augmentation(crop=80, scale_low=0.5, scale_high=1.5))
    assert len(set(drawn)) > 15 and min(drawn) >= 16 * 20 and max(drawn) <= 48 * 60


def test_every_epoch_shows_every_image_once_in_another_order(images: list[LabelledImage]) -> None:
    numbers = [int(image[1].float().max()) // 40 for image, _ in stream(images, PLAIN)]
    epochs = [tuple(numbers[start : start + 5]) for start in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 1


def test_options_switch_flip_and_colours(images: list[LabelledImage]) -> None:
    whole = Augmentation(crop=40, scale_low=1.0, scale_high=1.0, flip=False, hsv=0.0)

    def labels(options: Augmentation) -> set[bytes]:
        valid = (label[label != 255].numpy().tobytes() for _, label in stream(images, options, 40))
        return set(valid)

    assert len(labels(whole)) == 5
    assert (
        len(labels(Augmentation(crop=40, scale_low=1.0, scale_high=1.0, flip=True, hsv=0.0))) == 10
    )
    reds = {
        int(image[0][label == 2].float().median())
        for image, label in stream(images, replace(whole, hsv=10.0))
    }
    assert len(reds) > 5


def test_the_stream_is_the_same_for_any_number_of_loading_processes(
    images: list[LabelledImage],
) -> None:
    here = list(endless_batches(stream(images, Augmentation(crop=24)), 3, workers=0))
    others = list(endless_batches(stream(images, Augmentation(crop=24)), 3, workers=2))
    assert len(here) == len(others) == 7 and here[0][0].shape == (3, 3, 24, 24)
    for one, other in zip(here, others, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    rest = list(endless_batches(stream(images, Augmentation(crop=24)), 3, workers=0, done=5))
    assert len(rest) == 2 and all(
        torch.equal(one[0], other[0]) for one, other in zip(rest, here[5:], strict=True)
    )
    again = stream(images, Augmentation(crop=24))
    steps = list(endless_batches(again, 3, 0, accumulate=2, done=1))
    assert [len(step[0]) for step in steps] == [6, 6, 2]
    expected = torch.cat([batch[0] for batch in here[2:]])
    assert torch.equal(torch.cat([step[0] for step in steps]), expected)
    another_seed = next(
        endless_batches(stream(images, Augmentation(crop=24), seed=4), 3, workers=0)
    )
    assert not torch.equal(here[0][0], another_seed[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_one_line_from_any_process(
    images: list[LabelledImage], tmp_path: Path, workers: int
) -> None:
    (tmp_path / "cut.png").write_bytes(images[0].image.read_bytes()[:60])
    write_palette_png(tmp_path / "other.png", np.zeros((5, 5), np.uint8))
    for bad in (
        LabelledImage(tmp_path / "cut.png", images[0].mask),
        LabelledImage(images[0].image, tmp_path / "other.png"),
    ):
        named = "cut.png" if bad.image.name == "cut.png" else "other.png"
        with pytest.raises(UserError, match=named) as caught:
            list(endless_batches(stream([bad], PLAIN, 2), 1, workers))
        assert "\n" not in str(caught.value)


def test_images_find_their_masks_in_several_folders(tmp_path: Path) -> None:
    records = [
        ImageRecord(name, Path(f"{name}.jpg"), 8, 8, (1,), ("train",)) for name in ("a", "b")
    ]
    for folder, name in (("0", "b"), ("1", "a"), ("1", "unused")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_palette_png(tmp_path / folder / f"{name}.png", np.zeros((8, 8), np.uint8))
    found = pair_with_masks(records, [tmp_path / "0", tmp_path / "1"])
    assert [pair.mask for pair in found] == [tmp_path / "1" / "a.png", tmp_path / "0" / "b.png"]
    with pytest.raises(UserError, match=r"^a: .*make_pseudo_labels"):
        pair_with_masks(records, [tmp_path / "0"])
    with pytest.raises(UserError, match="missing"):
        pair_with_masks(records, [tmp_path / "missing"])
