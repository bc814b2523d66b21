"""Two models compared, against brute force, known error rates and the true difference."""

import math

import numpy as np
import pandas as pd
import pytest

from mammo.errors import DataError
from mammo.evaluation.arms import told, verdict
from mammo.evaluation.comparison import (
    auc_covariance,
    compare,
    delong,
    delong_p,
    detectable,
    differences,
    equivalence_p,
    holm,
    influence,
    mcnemar_p,
)
from mammo.evaluation.panel import Asked, Panel
from mammo.evaluation.ranking import bootstrap_auc


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


def test_a_model_against_itself_differs_by_nothing():
    frame, _ = drawn(6)
    result = compare(frame, frame.sample(frac=1, random_state=0), "malignant", draws=100)
    assert (result.auc, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_models_scored_on_other_patients_are_not_compared():
    first, second = drawn(7)
    with pytest.raises(DataError, match="same labelled patients"):
        compare(first, second.iloc[:-1], "malignant")


def by_the_book(positive, scores, codes):
    """Covariance of AUCs by Obuchowski's formulae, pair by pair, in loops."""
    components = []
    for score in scores:
        pairs = score[positive][:, None] - score[~positive][None]
        components.append((pairs > 0) + 0.5 * (pairs == 0))
    areas = [each.mean() for each in components]
    patients = np.unique(codes)
    above = np.zeros((len(scores), len(patients)))
    below = np.zeros((len(scores), len(patients)))
    for model, each in enumerate(components):
        for place, patient in enumerate(patients):
            own, others = codes[positive] == patient, codes[~positive] == patient
            above[model, place] = (each.mean(axis=1)[own] - areas[model]).sum()
            below[model, place] = (each.mean(axis=0)[others] - areas[model]).sum()
    m, n, i = positive.sum(), (~positive).sum(), len(patients)
    i10, i01 = len(set(codes[positive])), len(set(codes[~positive]))
    found = np.empty((len(scores), len(scores)))
    for j in range(len(scores)):
        for k in range(len(scores)):
            s10 = i10 / ((i10 - 1) * m) * np.sum(above[j] * above[k])
            s01 = i01 / ((i01 - 1) * n) * np.sum(below[j] * below[k])
            s11 = i / (i - 1) * np.sum(above[j] * below[k])
            s11_turned = i / (i - 1) * np.sum(above[k] * below[j])
            found[j, k] = s10 / m + s01 / n + (s11 + s11_turned) / (m * n)
    return found


@pytest.mark.parametrize("images", [1, 3])
def test_the_covariance_equals_brute_force_with_ties(images):
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(30), images)
    positive = rng.random(len(codes)) < 0.4  # with several images, patients have both kinds
    scores = rng.integers(0, 6, (2, len(codes))) + positive
    found = auc_covariance(positive, scores, codes)
    np.testing.assert_allclose(found, by_the_book(positive, scores, codes), atol=1e-10)


def images_of_patients(seed, patients=120, images=4):
    """Two equally good scores of correlated images; all images of a patient have its label."""
    rng = np.random.default_rng(seed)
    positive = np.repeat(np.arange(patients) < patients * 0.4, images)
    codes = np.repeat(np.arange(patients), images)
    shared = rng.normal(size=patients)[codes]
    own = rng.normal(size=(2, patients))[:, codes]
    scores = positive + 0.5 * shared + own + 0.5 * rng.normal(size=(2, len(codes)))
    return positive, scores, codes


def test_delong_finds_no_difference_where_there_is_none_in_95_percent():
    """By patient, and by image with clusters; images taken for patients find far too many."""
    rounds = 2000
    wrong = {"patient": 0, "image, clustered": 0, "image": 0}
    for seed in range(rounds):
        positive, (one, other), codes = images_of_patients(seed)
        each = np.arange(len(codes))
        means = [score.reshape(-1, 4).mean(axis=1) for score in (one, other)]
        wrong["patient"] += delong(positive[::4], *means, np.arange(len(codes) // 4)) < 0.05
        wrong["image, clustered"] += delong(positive, one, other, codes) < 0.05
        wrong["image"] += delong(positive, one, other, each) < 0.05
    assert 0.035 <= wrong["patient"] / rounds <= 0.065
    assert 0.035 <= wrong["image, clustered"] / rounds <= 0.065
    assert wrong["image"] / rounds > 0.15


def test_one_patient_of_a_side_shows_no_difference():
    labels = [True, False, False, False]
    first, second = binary(labels, [0.9, 0.1, 0.2, 0.3]), binary(labels, [0.1, 0.2, 0.3, 0.4])
    assert delong_p(first, second, "malignant") == 1


@pytest.mark.slow
def test_the_intervals_cover_the_true_value():
    true = 0.5 * math.erfc(-1 / 2)  # two unit normals one apart: AUC = Phi(1 / sqrt 2)
    rounds, covered = 1000, 0
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        labels = np.arange(150) < 60
        signal = rng.normal(size=150) + labels
        low, high = bootstrap_auc(binary(labels, signal), "malignant", draws=500, seed=seed)
        covered += low <= true <= high
    assert 0.93 <= covered / rounds <= 0.97


@pytest.mark.slow
def test_the_intervals_cover_the_true_difference():
    """Two models that share a part of what they see, the first with an effect of 1.5, then 1."""
    rounds, covered = 1000, 0
    # the score of effect e has variance 2 in both classes: AUC = Phi(e / 2)
    true = 0.5 * (math.erfc(-1.5 / 2 / math.sqrt(2)) - math.erfc(-1 / 2 / math.sqrt(2)))
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        labels = np.arange(200) < 80
        shared = rng.normal(size=200)
        pair = [
            binary(labels, effect * labels + shared + rng.normal(size=200)) for effect in (1.5, 1)
        ]
        found = compare(*pair, "malignant", draws=500, seed=seed)
        covered += found.low <= true <= found.high
    assert 0.93 <= covered / rounds <= 0.97


def test_mcnemar_counts_the_rows_that_differ():
    # 1 against 5 of 6: two-sided binomial (1 + 6) x 2 / 64
    right = np.array([True] + [False] * 5 + [True] * 10)
    other = np.array([False] + [True] * 5 + [True] * 10)
    assert mcnemar_p(right, other) == pytest.approx(2 * 7 / 64)
    assert mcnemar_p(right, right) == 1


def test_holms_correction_of_a_hand_example():
    found = holm(np.array([0.01, 0.04, np.nan, 0.03]))
    assert found[[0, 1, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(found[2])


def test_two_one_sided_tests_of_a_hand_example():
    # 0.005 from the nearer margin, half a standard error: P(Z > 0.5); at the margin one half
    assert equivalence_p(0.005, 0.01, 0.01) == pytest.approx(0.308538, abs=1e-6)
    assert equivalence_p(-0.005, 0.01, 0.01) == equivalence_p(0.005, 0.01, 0.01)
    assert equivalence_p(0.01, 0.01, 0.01) == 0.5
    # it is below 5 % exactly where the 90 % interval lies within the margin
    assert equivalence_p(0.0, 0.01 / 1.644854, 0.01) == pytest.approx(0.05, abs=1e-6)
    assert equivalence_p(0.0, math.inf, 0.01) == 0.5  # nothing is known
    assert (equivalence_p(0.0, 0.0, 0.01), equivalence_p(0.02, 0.0, 0.01)) == (0, 1)


def test_the_detectable_difference_of_two_tests_is_at_half_the_level():
    assert detectable(0.01) == pytest.approx(0.01 * (1.959964 + 0.841621), abs=1e-7)
    assert detectable(0.01, tests=2) == pytest.approx(0.01 * (2.241403 + 0.841621), abs=1e-7)


@pytest.mark.parametrize(
    ("difference", "p", "p_equivalent", "word"),
    [
        (0.03, 0.01, 0.9, "superior"),
        (-0.03, 0.01, 0.9, "inferior"),
        (0.003, 0.2, 0.01, "equivalent"),
        (0.003, 0.04, 0.01, "superior"),  # no chance, and of no weight
        (0.02, 0.2, 0.6, "inconclusive"),
    ],
)
def test_the_verdict_follows_from_both_tests(difference, p, p_equivalent, word):
    assert verdict(difference, p, p_equivalent) == word
    row = {
        "auc": difference,
        "low": 0,
        "high": 0,
        "p": p,
        "p_holm": p,
        "detectable": 0.031,
        "p_folds": math.nan,
    }
    row |= {"p_equivalent_holm": p_equivalent, "verdict": word}
    words = told(row, margin=0.01, several=False)
    assert word in words
    assert ("below 0.031 would usually be missed" in words) == (word == "inconclusive")
    assert ("by less than the margin of 0.01" in words) == (difference == 0.003 and p < 0.05)


def test_the_standard_error_of_a_comparison_is_delongs():
    one, other = drawn(3)
    found = compare(one, other, "malignant", draws=20)
    scores = [each["score/malignant"].to_numpy() for each in (one, other)]
    covariance = by_the_book((one["label"] == "malignant").to_numpy(), scores, np.arange(60))
    expected = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.error == pytest.approx(expected)


def test_every_metric_is_compared_in_the_same_draws():
    one, _ = drawn(9)
    one["score/malignant"] = 1 / (1 + np.exp(-one["score/malignant"]))
    one["score/benign"] = 1 - one["score/malignant"]
    cold = one.assign(**{"score/malignant": one["score/malignant"] ** 2})
    cold["score/benign"] = 1 - cold["score/malignant"]
    asked = Asked("malignant")
    panels = [
        Panel(one, asked, {"balanced_accuracy": 0.5}),
        Panel(cold, asked, {"balanced_accuracy": 0.25}),  # the same calls
    ]
    table = differences(*panels, draws=50, seed=0).set_index("metric")
    same = table.loc[["auc", "pr_auc", "partial_auc", "sensitivity", "specificity", "f1"]]
    assert (same[["difference", "low", "high"]].abs() < 1e-12).all(axis=None)
    brier = table.loc["brier"]
    assert brier["difference"] == pytest.approx(brier["model"] - brier["baseline"])
    assert brier["low"] < brier["difference"] < brier["high"]
