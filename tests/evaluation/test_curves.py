"""Curves against hand examples and the numbers they belong to."""

import numpy as np
import pandas as pd
import pytest

from mammo.evaluation.bootstrap import patient_weights
from mammo.evaluation.curves import pr_band, precision_recall, roc, roc_band
from mammo.evaluation.ranking import auc, pr_auc

POSITIVE = np.array([0, 1, 0, 1, 1], bool)
SCORE = np.array([0.1, 0.3, 0.3, 0.6, 0.9])


def test_roc_of_a_hand_example_with_a_tie():
    false, true = roc(POSITIVE, SCORE)
    assert false.tolist() == [0, 0, 0, 0.5, 1]
    assert true == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert np.trapezoid(true, false) == pytest.approx(auc(POSITIVE, SCORE))


def test_average_precision_is_the_area_under_the_steps():
    recall, precision = precision_recall(POSITIVE, SCORE)
    assert recall == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert precision == pytest.approx([1, 1, 3 / 4, 3 / 5])
    area = np.sum(precision * np.diff(recall, prepend=0))
    assert area == pytest.approx(pr_auc(POSITIVE, SCORE))


def test_the_band_of_a_perfect_ranking_is_its_curve():
    frame = pd.DataFrame({"group_id": list("abcd"), "label": list("nnpp")})
    frame["score/n"], frame["score/p"] = [0.9, 0.8, 0.2, 0.1], [0.1, 0.2, 0.8, 0.9]
    low, high = roc_band(frame, "p", np.array([0.1, 0.5, 1.0]), draws=20)
    assert low.tolist() == high.tolist() == [1, 1, 1]


def test_the_bands_hold_the_curves_of_the_repeated_rows():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3 == 0
    score = np.round(rng.normal(size=30) + labels, 1)
    frame = pd.DataFrame({"group_id": [f"p{each:02d}" for each in range(30)]})
    frame["label"], frame["score/n"], frame["score/p"] = np.where(labels, "p", "n"), -score, score
    weights = next(patient_weights(labels.astype(np.int64), rows=30, draws=1, seed=4)).astype(int)
    rows = np.repeat(np.arange(30), weights[0])
    grid = np.array([0.05, 0.33, 0.8, 1.0])
    low, high = roc_band(frame, "p", grid, draws=1, seed=4)  # of one draw the band is its curve
    assert low == pytest.approx(np.interp(grid, *roc(labels[rows], score[rows])))
    recall, precision = precision_recall(labels[rows], score[rows])
    expected = [precision[np.flatnonzero(recall >= level - 1e-12)[0]] for level in grid]
    low, high = pr_band(frame, "p", grid, draws=1, seed=4)
    assert low == pytest.approx(expected) and high == pytest.approx(expected)
