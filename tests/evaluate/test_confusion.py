"""Confusion matrix and IoU against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, jaccard_score

from brnf.evaluate.confusion import Confusion, intersection_over_union, mean_iou

CLASSES = 4
MASKS = arrays(np.uint8, (2, 6, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))


@settings(max_examples=60, deadline=None)
@given(st.lists(MASKS, min_size=1, max_size=3))
def test_equals_scikit_learn_with_255_left_out(images: list[np.ndarray]) -> None:
    confusion = Confusion(CLASSES)
    for truth, prediction in images:
        confusion.add(truth, prediction)
    truth, prediction = (np.concatenate([image[i].ravel() for image in images]) for i in (0, 1))
    known = (truth != 255) & (prediction != 255)
    assert confusion.unlabelled == ((truth != 255) & (prediction == 255)).sum()
    if not known.any():
        assert confusion.counts.sum() == 0
        assert np.isnan(mean_iou(confusion.counts))
        return
    expected = confusion_matrix(truth[known], prediction[known], labels=range(CLASSES))
    np.testing.assert_array_equal(confusion.counts, expected)
    iou = intersection_over_union(confusion.counts)
    occurs = np.union1d(truth[known], prediction[known])
    scores = jaccard_score(truth[known], prediction[known], labels=occurs, average=None)
    np.testing.assert_allclose(iou[occurs], scores)
    assert np.isnan(np.delete(iou, occurs)).all()
    assert mean_iou(confusion.counts) == pytest.approx(scores.mean())


def test_rows_are_truth_and_columns_prediction() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1, 1]], np.uint8), np.array([[2, 1, 2]], np.uint8))
    assert confusion.counts.tolist() == [[0, 0, 1], [0, 1, 1], [0, 0, 0]]


def test_class_only_predicted_lowers_the_mean() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0]], np.uint8), np.array([[0, 2]], np.uint8))
    np.testing.assert_array_equal(intersection_over_union(confusion.counts), [0.5, np.nan, 0.0])
    assert mean_iou(confusion.counts) == 0.25


def test_many_matrices_at_once() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    np.testing.assert_allclose(mean_iou(counts), [mean_iou(one) for one in counts])


def test_bad_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        Confusion(3).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="class 3"):
        Confusion(3).add(np.zeros((1, 1), np.uint8), np.full((1, 1), 3, np.uint8))
