"""Two models compared, against brute force, known error rates and the true difference."""

import math

import numpy as np
import pandas as pd
import pytest

from mammo.errors import DataError
from mammo.evaluation.comparison import (
    auc_covariance,
    compare,
    delong_p,
    holm,
    influence,
    mcnemar_p,
)
from mammo.evaluation.ranking import aggregate, auc


def binary(labels, scores, patients=None):
    """A predictions frame of two classes, a row an image."""
    scores = np.asarray(scores, float)
    frame = pd.DataFrame({"image_id": [f"i{number:05d}" for number in range(len(scores))]})
    given = patients if patients is not None else range(len(scores))
    frame["group_id"] = [f"p{each:05d}" for each in given]
    frame["label"] = np.where(labels, "malignant", "benign")
    frame["label_id"] = np.asarray(labels, int)
    return frame.assign(**{"score/benign": 1 - scores, "score/malignant": scores})


def drawn(seed, patients=60, effect=1.0, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(patients) % 3 == 0
    signal = rng.normal(size=patients) + effect * labels
    return binary(labels, signal), binary(labels, signal + noise * rng.normal(size=patients))


def test_influence_equals_the_structural_components_of_delong():
    rng = np.random.default_rng(4)
    positive, score = rng.random(40) < 0.4, rng.integers(0, 8, 40)
    compared = np.sign(score[positive][:, None] - score[~positive][None]) / 2 + 0.5  # with ties
    area = compared.mean()
    found = influence(positive, score)
    v10, v01 = compared.mean(axis=1) - area, compared.mean(axis=0) - area
    np.testing.assert_allclose(found[positive], v10 / positive.sum(), atol=1e-14)
    np.testing.assert_allclose(found[~positive], v01 / (~positive).sum(), atol=1e-14)


def test_p_equals_delongs_test_by_brute_force():
    first, second = drawn(5)
    for frame in (first, second):
        frame["score/malignant"] = frame["score/malignant"].round(1)  # with ties
    positive = (first["label"] == "malignant").to_numpy()
    components = []
    for frame in (first, second):
        score = frame["score/malignant"].to_numpy()
        pairs = score[positive][:, None] - score[~positive][None]
        components.append((pairs > 0) + 0.5 * (pairs == 0))
    v10 = np.stack([each.mean(axis=1) for each in components])
    v01 = np.stack([each.mean(axis=0) for each in components])
    covariance = np.cov(v10) / positive.sum() + np.cov(v01) / (~positive).sum()
    contrast = np.array([1, -1])
    delta = components[0].mean() - components[1].mean()
    z = delta / math.sqrt(contrast @ covariance @ contrast)
    result = compare(first, second, "malignant", draws=100)
    assert result.auc == pytest.approx(delta, abs=1e-12)
    assert result.p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=1e-10)


def test_a_model_against_itself_differs_by_nothing():
    frame, _ = drawn(6)
    result = compare(frame, frame.sample(frac=1, random_state=0), "malignant", draws=100)
    assert (result.auc, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_models_scored_on_other_patients_are_not_compared():
    first, second = drawn(7)
    with pytest.raises(DataError, match="same labelled patients"):
        compare(first, second.iloc[:-1], "malignant")


@pytest.mark.slow
def test_the_intervals_cover_the_true_value():
    true = 0.5 * math.erfc(-1 / 2)  # two unit normals one apart: AUC = Phi(1 / sqrt 2)
    rounds = 400
    covered = no_difference = false_alarms = 0
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        labels = np.arange(150) < 60
        signal = rng.normal(size=150) + labels
        low, high = bootstrap_auc(binary(labels, signal), "malignant", draws=500, seed=seed)
        covered += low <= true <= high
        shared = rng.normal(size=150) + labels
        pair = [binary(labels, shared + rng.normal(size=150)) for _ in range(2)]
        result = compare(*pair, "malignant", draws=500, seed=seed)
        no_difference += result.low <= 0 <= result.high
        false_alarms += result.p < 0.05
    # 3 standard errors of a share of 0.95 over 400 rounds are 0.033
    assert covered / rounds > 0.95 - 0.033
    assert 0.95 - 0.033 < no_difference / rounds < 0.95 + 0.033
    assert false_alarms / rounds < 0.05 + 0.033
