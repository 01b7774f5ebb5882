"""The dense CRF against what it must and must not change."""

import numpy as np
import pytest

from brnf.config.sections.segmentation import Crf
from brnf.segment.crf import dense_crf, likely_labels, over_all_labels

OPTIONS = Crf()


def two_colours(height: int = 40, width: int = 60, edge: int = 30) -> np.ndarray:
    """Return an image, dark red on the left of column ``edge`` and light blue on its right, with a
    little noise.
    """
    image = np.empty((height, width, 3), np.int16)
    image[:, :edge] = (120, 30, 30)
    image[:, edge:] = (160, 180, 230)
    return (image + np.random.default_rng(0).integers(-2, 3, image.shape)).astype(np.uint8)


def certain(labels: np.ndarray, count: int, certainty: float) -> np.ndarray:
    """Return [count, H, W] probabilities, ``certainty`` for the given label at every pixel."""
    hot = labels[None] == np.arange(count)[:, None, None]
    return np.where(hot, certainty, (1 - certainty) / (count - 1)).astype(np.float32)


def test_a_confident_map_that_follows_the_colours_is_left_alone() -> None:
    labels = np.zeros((40, 60), int)
    labels[:, 30:] = 1
    refined = dense_crf(two_colours(), certain(labels, 2, 0.99), OPTIONS)
    np.testing.assert_array_equal(refined.argmax(0), labels)
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-4)


def test_a_very_confident_map_survives_even_against_the_colours() -> None:
    labels = np.zeros((40, 60), int)
    labels[10:30, 10:50] = 1
    refined = dense_crf(two_colours(), certain(labels, 2, 1.0), OPTIONS)
    assert (refined.argmax(0) == labels).mean() > 0.99


def test_a_noisy_label_is_pulled_to_the_colour_edge() -> None:
    truth = np.zeros((40, 60), int)
    truth[:, 30:] = 1
    shifted = np.zeros_like(truth)
    shifted[:, 36:] = 1
    noisy = np.where(np.random.default_rng(1).random(truth.shape) < 0.15, 1 - shifted, shifted)
    refined = dense_crf(two_colours(), certain(noisy, 2, 0.6), OPTIONS).argmax(0)
    assert (noisy == truth).mean() < 0.8
    assert (refined == truth).mean() > 0.99


@pytest.mark.parametrize("weight", ["bilateral_weight", "gaussian_weight"])
def test_both_terms_take_part(weight: str) -> None:
    noisy = np.random.default_rng(2).random((2, 40, 60)).astype(np.float32)
    noisy /= noisy.sum(0)
    without = dense_crf(two_colours(), noisy, Crf(**{weight: 0.0}))
    assert np.abs(without - dense_crf(two_colours(), noisy, OPTIONS)).max() > 0.1


def test_no_pairwise_term_returns_the_unary_distribution() -> None:
    noisy = np.random.default_rng(3).random((3, 20, 30)).astype(np.float32) + 0.1
    noisy /= noisy.sum(0)
    refined = dense_crf(
        two_colours(20, 30, 15), noisy, Crf(gaussian_weight=0.0, bilateral_weight=0.0)
    )
    np.testing.assert_allclose(refined, noisy, atol=1e-5)


def test_views_in_other_memory_orders_give_the_same_answer() -> None:
    image = two_colours(30, 30, 15)
    noisy = np.random.default_rng(4).random((2, 30, 30)).astype(np.float32)
    noisy /= noisy.sum(0)
    expected = dense_crf(image, noisy, OPTIONS)
    transposed_image = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)
    transposed_maps = np.asfortranarray(noisy)
    assert not transposed_image.flags.c_contiguous
    np.testing.assert_array_equal(dense_crf(transposed_image, transposed_maps, OPTIONS), expected)
    mirrored = dense_crf(image[:, ::-1], noisy[:, :, ::-1], OPTIONS)[:, :, ::-1]
    assert (mirrored.argmax(0) == expected.argmax(0)).mean() > 0.99


def test_one_label_and_no_iteration_change_nothing() -> None:
    one = np.full((1, 20, 30), 0.25, np.float32)
    np.testing.assert_array_equal(dense_crf(two_colours(20, 30, 15), one, OPTIONS), one)
    two = np.random.default_rng(5).random((2, 20, 30)).astype(np.float32)
    np.testing.assert_array_equal(dense_crf(two_colours(20, 30, 15), two, Crf(iterations=0)), two)


def test_a_probability_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        dense_crf(two_colours(20, 30, 15), np.ones((2, 30, 20), np.float32), OPTIONS)


def test_leaving_out_hopeless_labels_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    labels = np.zeros((40, 60), int)
    labels[:, 33:] = 4
    scores = certain(labels, 21, 0.6)
    scores[[0, 4]] += rng.random((2, 40, 60)).astype(np.float32) * 0.5
    others = [k for k in range(21) if k not in (0, 4)]
    scores[others] = 1e-6
    scores /= scores.sum(0)
    full = dense_crf(two_colours(), scores, OPTIONS)
    classes, likely = likely_labels(scores, minimum=1e-3)
    assert classes.tolist() == [4] and classes.dtype == np.uint8
    sparse = over_all_labels(dense_crf(two_colours(), likely, OPTIONS), classes, 20)
    assert (full.argmax(0) == sparse.argmax(0)).mean() >= 0.999
    assert not sparse[others].any()
    np.testing.assert_allclose(sparse.sum(0), 1, atol=1e-4)


def test_the_background_always_takes_part() -> None:
    scores = np.zeros((3, 20, 30), np.float32)
    scores[2] = 1
    classes, likely = likely_labels(scores)
    np.testing.assert_array_equal(likely, scores[[0, 2]])
    refined = over_all_labels(dense_crf(two_colours(20, 30, 15), likely, OPTIONS), classes, 2)
    assert (refined.argmax(0) == 2).all() and (refined[0] > 0).any() and not refined[1].any()


def test_likely_labels_are_a_distribution_even_where_they_have_no_share() -> None:
    scores = np.zeros((4, 2, 2), np.float32)
    scores[1, 0], scores[2, 1] = 1, 0.005
    scores[0, 1, 0] = 0.015
    classes, likely = likely_labels(scores)
    assert classes.tolist() == [1]
    np.testing.assert_allclose(likely, [[[0, 0], [1, 0.5]], [[1, 1], [0, 0.5]]])
    np.testing.assert_array_equal(over_all_labels(likely, classes, 3)[[0, 1]], likely)
