"""Confusion matrix and IoU against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, jaccard_score

from brnf.evaluate.confusion import Confusion, intersection_over_union, mean_iou
from brnf.store.label_type import ignored_value, label_type

CLASSES = 4
MASKS = arrays(np.uint8, (2, 6, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))
STRAY = st.sampled_from([0, 1, 2, 3, 4, 99, 254, 255])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(MASKS, arrays(np.uint8, (6, 5), elements=STRAY)), min_size=1, max_size=3))
def test_equals_scikit_learn_with_one_class_more_for_what_is_none(
    images: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    confusion = Confusion(CLASSES)
    for (truth, _), prediction in images:
        confusion.add(truth, prediction)
    truth = np.concatenate([image[0][0].ravel() for image in images])
    prediction = np.concatenate([image[1].ravel() for image in images])
    known = truth != 255
    assert confusion.unlabelled == (known & (prediction == 255)).sum()
    if not known.any():
        assert confusion.counts.sum() == 0
        assert np.isnan(mean_iou(confusion.counts))
        return
    truth, prediction = truth[known], np.minimum(prediction[known], CLASSES)
    expected = confusion_matrix(truth, prediction, labels=range(CLASSES + 1))
    assert not expected[-1].any()
    np.testing.assert_array_equal(confusion.counts, expected[:-1])
    iou = intersection_over_union(confusion.counts)
    occurs = np.setdiff1d(np.union1d(truth, prediction), [CLASSES])
    scores = jaccard_score(truth, prediction, labels=occurs, average=None, zero_division=0)
    np.testing.assert_allclose(iou[occurs], scores)
    assert np.isnan(np.delete(iou, occurs)).all()
    assert mean_iou(confusion.counts) == pytest.approx(scores.mean())


@pytest.mark.parametrize("classes", [254, 255, 300])
def test_many_classes_equal_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(classes)
    kind, nothing = label_type(classes), ignored_value(classes)
    values = [0, 1, 253, classes - 1, classes, nothing]
    truth, prediction = random.choice(np.array(values, kind), (2, 3, 20, 30))
    confusion = Confusion(classes + 1)
    for one, other in zip(truth, prediction, strict=True):
        confusion.add(one, other)
    known, left = truth != nothing, prediction == nothing
    assert confusion.unlabelled == (known & left).sum() > 0
    seen = np.where(left, classes + 1, prediction)[known]
    expected = confusion_matrix(truth[known], seen, labels=range(classes + 2))[:-1]
    np.testing.assert_array_equal(confusion.counts, expected)
    iou = intersection_over_union(confusion.counts)
    occurs = np.unique(truth[known])
    scores = jaccard_score(truth[known], seen, labels=occurs, average=None)
    np.testing.assert_allclose(iou[occurs], scores)
    assert np.isnan(iou).sum() == classes + 1 - len(occurs)


@pytest.mark.parametrize("value", [3, 99, 254, 255])
def test_what_is_no_class_is_an_error(value: int) -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 0, value, value]], np.uint8))
    np.testing.assert_array_equal(intersection_over_union(confusion.counts), [1.0, 0.0, np.nan])
    assert mean_iou(confusion.counts) == 0.5
    assert confusion.unlabelled == (2 if value == 255 else 0)


def test_rows_are_truth_and_columns_prediction() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1, 1]], np.uint8), np.array([[2, 1, 2]], np.uint8))
    assert confusion.counts.tolist() == [[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


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
