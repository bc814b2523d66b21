"""Thresholds and their outcomes against hand examples."""

import numpy as np
import pytest

from mammo.errors import DataError
from mammo.evaluation.operating import (
    at_sensitivity,
    at_specificity,
    best_f1,
    chosen,
    confusion,
    mean_recall,
    most_balanced,
    outcome,
    predictive_values,
    quadratic_kappa,
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


def test_the_threshold_at_a_sensitivity_is_the_most_specific_one_that_keeps_it():
    # all three positives from 0.35 on, two of them from 0.55 on
    assert at_sensitivity(POSITIVE, SCORE, sensitivity=0.9) == pytest.approx(0.35)
    assert at_sensitivity(POSITIVE, SCORE, sensitivity=0.6) == pytest.approx(0.55)
    assert at_sensitivity(POSITIVE, SCORE, sensitivity=0) > SCORE[-1]


def test_the_threshold_of_the_best_f1_of_a_hand_example():
    # above 0.35: 6 / (3 + 4); above 0.55: 4 / (3 + 2)
    assert best_f1(POSITIVE, SCORE) == pytest.approx(0.35)
    assert best_f1(POSITIVE, np.where(SCORE == 0.5, 0.45, SCORE)) == pytest.approx(0.35)
    assert best_f1([1, 0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.9]) == pytest.approx(0.7)


def test_every_rule_reaches_what_it_is_named_for():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = rng.normal(size=400) + positive
    found = {
        rule: outcome(positive, score, value) for rule, value in chosen(positive, score).items()
    }
    assert found["specificity_0.9"].specificity >= 0.9
    assert found["specificity_0.95"].specificity >= 0.95
    assert found["sensitivity_0.9"].sensitivity >= 0.9
    best = found["balanced_accuracy"].balanced_accuracy
    assert best == max(each.balanced_accuracy for each in found.values())


def test_predictive_values_of_a_hand_example():
    # of 1000 women 10 are ill: 9 found, 99 alarms, 891 rightly spared, 1 missed
    ppv, npv = predictive_values(np.array(0.9), np.array(0.9), 0.01)
    assert (ppv, npv) == (pytest.approx(9 / 108), pytest.approx(891 / 892))


def test_kappa_of_a_hand_example():
    # costs 0 1 4: observed 1 + 4; by chance rows (2, 2, 2), columns (3, 2, 1) over 6 cells
    table = np.array([[2, 0, 0], [0, 1, 1], [1, 1, 0]])
    cost = np.array([[0, 1, 4], [1, 0, 1], [4, 1, 0]])
    chance = np.outer([2, 2, 2], [3, 2, 1]) / 6
    expected = 1 - (1 + 1 + 4) / (cost * chance).sum()
    assert quadratic_kappa(table) == pytest.approx(expected)
    assert quadratic_kappa(np.diag([3, 4, 5])) == 1
    assert np.isnan(quadratic_kappa(np.diag([3, 0, 0])))
