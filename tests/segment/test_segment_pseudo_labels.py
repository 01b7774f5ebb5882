"""From maps to labels, on examples worked out by hand."""

import numpy as np
import pytest

from brnf.config.sections.segmentation import Crf, CrfLabels
from brnf.segment.pseudo_labels import label_image, map_probability, pseudo_label

NO_CRF = Crf(iterations=0)
IMAGE = np.zeros((2, 2, 3), np.uint8)
CLASSES = np.array([3, 7], np.uint8)
# One pixel a column: background wins, class 3 wins narrowly, class 7 wins, nothing is known.
MAPS = np.array(
    [[[0.9, 0.4], [0.1, 0.0]], [[0.1, 0.5], [0.2, 0.0]], [[0.0, 0.1], [0.7, 0.0]]], np.float32
)


def test_scores_become_distributions_with_the_same_ratios() -> None:
    probability = map_probability(MAPS)
    np.testing.assert_allclose(probability.sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(probability[:, 0, 1], [0.4, 0.5, 0.1], rtol=1e-6)
    np.testing.assert_allclose(probability[:, 1, 1], 1 / 3, rtol=1e-6)


def test_labels_as_unary_keep_the_winner_only() -> None:
    probability = map_probability(MAPS, "labels")
    np.testing.assert_allclose(probability[:, 0, 1], [0.15, 0.7, 0.15], rtol=1e-6)
    np.testing.assert_allclose(probability[:, 1, 0], [0.15, 0.15, 0.7], rtol=1e-6)


def test_arg_max_names_classes_and_doubt_becomes_255() -> None:
    probability = map_probability(MAPS)
    np.testing.assert_array_equal(label_image(probability, CLASSES), [[0, 3], [7, 0]])
    np.testing.assert_array_equal(
        label_image(probability, CLASSES, confidence=0.6), [[0, 255], [7, 255]]
    )
    np.testing.assert_array_equal(
        label_image(probability, CLASSES, confidence=0.8), [[0, 255], [255, 255]]
    )


def test_an_image_without_labels_is_all_background() -> None:
    label, probability = pseudo_label(
        IMAGE, np.full((1, 2, 2), 0.4, np.float32), np.zeros(0, np.uint8), CrfLabels()
    )
    np.testing.assert_array_equal(label, 0)
    np.testing.assert_array_equal(probability, 1)


def test_without_crf_the_scores_decide_and_confidence_reads_them() -> None:
    options = CrfLabels(crf=NO_CRF, unary="labels", confidence=0.6)
    label, probability = pseudo_label(IMAGE, MAPS, CLASSES, options)
    np.testing.assert_array_equal(label, [[0, 255], [7, 255]])
    np.testing.assert_allclose(probability, map_probability(MAPS))


def test_small_maps_are_enlarged_before_the_arg_max() -> None:
    maps = np.array(
        [[[1.0, 0.0]], [[0.0, 0.5]]], np.float32
    )  # bilinear: 1, .75, .25, 0 against 0, .125, .375, .5
    label, _ = pseudo_label(np.zeros((1, 4, 3), np.uint8), maps, CLASSES[:1], CrfLabels(crf=NO_CRF))
    np.testing.assert_array_equal(label, [[0, 0, 3, 3]])


@pytest.mark.parametrize("unary", ["scores", "labels"])
def test_the_crf_moves_a_coarse_map_to_the_object_and_reports_its_confidence(unary: str) -> None:
    image = np.full((32, 48, 3), 40, np.uint8)
    image[:, 21:] = (200, 180, 60)
    maps = np.zeros((2, 4, 6), np.float32)
    maps[1, :, 3:] = 0.8
    maps[0] = 1 - maps[1]
    label, probability = pseudo_label(image, maps, np.array([5], np.uint8), CrfLabels(unary=unary))
    truth = np.zeros((32, 48), np.uint8)
    truth[:, 21:] = 5
    plain, _ = pseudo_label(image, maps, np.array([5], np.uint8), CrfLabels(crf=NO_CRF))
    assert (plain == truth).mean() < 0.96 < 0.99 < (label == truth).mean()
    np.testing.assert_allclose(probability.sum(0), 1, atol=1e-4)
