"""Thresholds and their outcomes against hand examples."""

import numpy as np
import pytest

from mammo.errors import DataError
from mammo.evaluation.operating import (
    at_specificity,
    confusion,
    mean_recall,
    most_balanced,
    outcome,
)

POSITIVE = np.array([0, 0, 0, 1, 0, 1, 1], bool)
SCORE = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8])


def test_the_most_balanced_threshold_of_a_hand_example():
    # above 0.35: sensitivity 1, specificity 3/4; above 0.55: 2/3 and 1
    assert most_balanced(POSITIVE, SCORE) == pytest.approx(0.35)


def test_the_threshold_at_a_specificity_is_the_most_sensitive_one_that_keeps_it():
    assert at_specificity(POSITIVE, SCORE, specificity=0.75) == pytest.approx(0.35)
    assert at_specificity(POSITIVE, SCORE, specificity=0.76) == pytest.approx(0.55)
    assert at_specificity(POSITIVE, SCORE, specificity=0) == SCORE[0]


def test_a_specificity_above_all_scores_calls_nothing_positive():
    threshold = at_specificity([True, False], [0.5, 0.5], specificity=1)
    assert outcome([True, False], [0.5, 0.5], threshold).specificity == 1


def test_the_outcome_counts_a_score_on_the_threshold_as_positive():
    found = outcome(POSITIVE, SCORE, 0.4)
    assert (found.true_positives, found.false_positives) == (3, 1)
    assert (found.true_negatives, found.false_negatives) == (3, 0)
    assert found.sensitivity == 1
    assert found.specificity == 0.75
    assert found.balanced_accuracy == 0.875


def test_one_sided_rows_have_no_operating_point():
    with pytest.raises(DataError, match="there are 0 positive of 2"):
        most_balanced([False, False], [0.1, 0.2])


def test_confusion_has_the_true_class_in_its_rows():
    table = confusion([0, 0, 1, 2], [0, 1, 1, 0], 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert mean_recall(table) == pytest.approx((0.5 + 1 + 0) / 3)
