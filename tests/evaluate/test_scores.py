"""The score histogram against brute-force thresholding and a hand-worked example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from brnf.evaluate.confusion import mean_iou
from brnf.evaluate.scores import ScoreHistogram

CLASSES = 3
STEPS = tuple(i / 100 for i in range(5, 61, 5))
Image = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random_images(seed: int, grid: bool) -> list[Image]:
    """Return (truth, labels, foreground, context); scores on the grid of bins, or float16."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(3):
        truth = random.choice([0, 1, 2, 3, 255], (7, 6)).astype(np.uint8)
        labels = np.sort(random.choice([1, 2, 3], random.integers(1, 4), replace=False)).astype(
            np.uint8
        )
        values = random.random((len(labels), 7, 6)).astype(np.float16).astype(np.float32)
        if grid:
            values = (random.integers(0, 21, values.shape) / 20).astype(np.float32)
        values[:, random.random((7, 6)) < 0.2] = 0
        images.append((truth, labels, values, random.integers(0, 4, (7, 6)).astype(np.uint8)))
    return images


def histogram_of(images: list[Image]) -> ScoreHistogram:
    histogram = ScoreHistogram(CLASSES)
    for truth, labels, values, context in images:
        histogram.add(truth, labels, values, context, tuple(labels.tolist()))
    return histogram


def seed_at(labels: np.ndarray, values: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(values.max(0).astype(np.float64) >= threshold, labels[values.argmax(0)], 0)


def hits_and_union(confusion: np.ndarray) -> np.ndarray:
    hits = np.diagonal(confusion)
    return np.array([hits, confusion.sum(0) + confusion.sum(1) - hits])


def miou_at(histogram: ScoreHistogram, threshold: float) -> float:
    hits, union = histogram.hits_and_union(threshold)
    return float(np.mean(hits[union > 0] / union[union > 0]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_every_threshold_equals_brute_force(seed: int, grid: bool) -> None:
    images = random_images(seed, grid)
    histogram = histogram_of(images)
    truth = np.concatenate([image[0].ravel() for image in images])
    known = truth != 255
    objects = known & (truth > 0)
    recall = histogram.recall()
    for threshold in (*STEPS, 0.001, 0.999, 1.0):
        prediction = np.concatenate(
            [seed_at(labels, values, threshold).ravel() for _, labels, values, _ in images]
        )
        expected = confusion_matrix(truth[known], prediction[known], labels=range(CLASSES + 1))
        found = np.array(histogram.hits_and_union(threshold))
        np.testing.assert_array_equal(found, hits_and_union(expected))
        assert recall[round(threshold * 1000)] == pytest.approx(
            (prediction == truth)[objects].mean()
        )
        inside, total = histogram.fire_of_class(threshold)
        for c in range(1, CLASSES + 1):
            places = [(context == c) & (c in labels) for _, labels, _, context in images]
            seeds = [seed_at(labels, values, threshold) == c for _, labels, values, _ in images]
            assert total[c - 1] == sum(place.sum() for place in places)
            assert inside[c - 1] == sum(
                (place & own).sum() for place, own in zip(places, seeds, strict=True)
            )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.7]))
def test_reading_is_the_highest_threshold_with_that_recall(seed: int, target: float) -> None:
    histogram = histogram_of(random_images(seed, grid=False))
    reading = histogram.at_recall(target)
    recall = histogram.recall()
    assert reading is not None
    at = round(reading.threshold * 1000)
    assert recall[at] == reading.recall
    assert reading.recall >= target or (reading.recall == recall[1:].max())
    assert at == 1000 or recall[at + 1] < min(target, recall[1])
    assert reading.miou == pytest.approx(miou_at(histogram, reading.threshold))


def miou_of(images: list[Image], thresholds: list[float]) -> float:
    """Return the mean IoU of scikit-learn's confusion matrix, each image with its threshold."""
    truth = np.concatenate([image[0].ravel() for image in images])
    prediction = np.concatenate(
        [
            seed_at(labels, values, threshold).ravel()
            for (_, labels, values, _), threshold in zip(images, thresholds, strict=True)
        ]
    )
    known = truth != 255
    return float(
        mean_iou(confusion_matrix(truth[known], prediction[known], labels=range(CLASSES + 1)))
    )


@pytest.mark.parametrize("grid", [False, True])
def test_the_best_of_a_sweep_is_the_best_and_chosen_on_the_other_half(grid: bool) -> None:
    images = random_images(4, grid)
    if not grid:  # a map whose scores all lie below the first thousandths, but for rounding
        images = [
            (truth, labels, values / 20, context) for truth, labels, values, context in images
        ]
    histogram = ScoreHistogram(CLASSES)
    for half, (truth, labels, values, _) in zip((0, 1, 0), images, strict=True):
        histogram.add(truth, labels, values, half=half)
    sweep = histogram.sweep()
    steps = [step / 1000 for step in range(1, 1001)]
    everywhere = [miou_of(images, [step] * 3) for step in steps]
    assert sweep.same_images_miou == pytest.approx(max(everywhere))
    assert sweep.best_threshold == steps[int(np.argmax(everywhere))]
    np.testing.assert_allclose(
        sweep.miou, [everywhere[round(step * 1000) - 1] for step in sweep.thresholds]
    )
    halves = [images[::2], images[1::2]]
    first, second = (
        steps[int(np.argmax([miou_of(half, [step] * len(half)) for step in steps]))]
        for half in halves
    )
    assert sweep.best_miou == pytest.approx(miou_of(images, [second, first, second]))
    assert sweep.best_miou <= sweep.same_images_miou
    scores = np.concatenate([image[2].max(0)[image[0] != 255] for image in images])
    low, high = np.quantile(scores[scores > 0], [0.05, 0.95])
    assert sweep.thresholds[0] == pytest.approx(low, abs=0.06)
    assert sweep.thresholds[-1] == pytest.approx(high, abs=0.06)


def test_one_half_alone_is_read_at_its_own_best() -> None:
    histogram = histogram_of(random_images(4, grid=True))
    sweep = histogram.sweep()
    assert (
        sweep.best_miou
        == sweep.same_images_miou
        == pytest.approx(miou_at(histogram, sweep.best_threshold))
    )


def test_a_map_without_scores_has_one_threshold() -> None:
    histogram = ScoreHistogram(2)
    histogram.add(TRAIN, np.array([1]), np.zeros((1, 4, 4), np.float32))
    sweep = histogram.sweep()
    assert sweep.thresholds == (0.001,) and sweep.miou == (sweep.best_miou,)


# Rails (context of class 1) lie under a train (class 1) of ten pixels; a second image shows rails
# without a train.
TRAIN = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
RAILS = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.uint8)
SCORES = np.array(
    [[0.9, 0.9, 0.8, 0.8], [0.7, 0.7, 0.6, 0.3], [0.2, 0.1, 0.7, 0.5], [0.6, 0.4, 0.0, 0.9]],
    np.float32,
)


def test_fire_by_hand() -> None:
    histogram = ScoreHistogram(2)
    histogram.add(TRAIN, np.array([1]), SCORES[None], RAILS, (1,))
    histogram.add(
        np.full((4, 4), 255, np.uint8), np.array([2]), np.ones((1, 4, 4), np.float32), RAILS, (2,)
    )
    reading = histogram.at_recall(0.7)
    assert reading is not None
    # Seven of ten object pixels score >= 0.6; of the four context pixels, with scores .7 .5 .6 .4,
    # two do. At 0.6 the seed also holds the corner with 0.9: IoU of the train 7 / (10 + 3), of the
    # background 3 / (6 + 3); class 2 is never seen.
    assert (reading.threshold, reading.recall, reading.fire) == (0.6, 0.7, 0.5)
    assert reading.fire_of_class == (0.5, None)
    assert reading.miou == pytest.approx((7 / 13 + 3 / 9) / 2)


def test_context_inside_the_seed_of_another_class_is_no_fire() -> None:
    histogram = ScoreHistogram(2)
    stronger = np.where(RAILS == 1, 0.95, 0.0).astype(np.float32)
    histogram.add(TRAIN, np.array([1, 2]), np.stack([SCORES, stronger]), RAILS, (1, 2))
    reading = histogram.at_recall(0.7)
    assert reading is not None
    assert reading.fire == 0.0


def test_depressed_pixels_stay_outside_and_the_missed_recall_is_told() -> None:
    suppressed = np.where(SCORES < 0.75, 0, SCORES).astype(np.float32)
    histogram = ScoreHistogram(2)
    histogram.add(TRAIN, np.array([1]), suppressed[None], RAILS, (1,))
    reading = histogram.at_recall(0.7)
    assert reading is not None
    # Four object pixels are left, whatever the threshold up to 0.8 (0.8 in float32 lies just above
    # 0.8).
    assert (reading.threshold, reading.recall, reading.fire) == (0.8, 0.4, 0.0)


def test_without_context_masks_fire_is_not_defined() -> None:
    histogram = ScoreHistogram(2)
    histogram.add(TRAIN, np.array([1]), SCORES[None])
    reading = histogram.at_recall(0.7)
    assert reading is not None
    assert reading.fire is None
    assert reading.fire_of_class is None
    assert reading.threshold == 0.6


def test_without_objects_there_is_no_reading() -> None:
    histogram = ScoreHistogram(2)
    histogram.add(
        np.zeros((2, 2), np.uint8), np.zeros(0, np.uint8), np.zeros((0, 2, 2), np.float32)
    )
    assert histogram.at_recall(0.7) is None
    assert np.array(histogram.hits_and_union(0.05)).tolist() == [[4, 0, 0], [4, 0, 0]]


def test_threshold_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        ScoreHistogram(2).hits_and_union(0.12345)
