"""AUC, patients and intervals against hand examples, scikit-learn and the rows drawn."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.errors import ConfigError, DataError
from mammo.evaluation.bootstrap import patient_weights
from mammo.evaluation.comparison import compare
from mammo.evaluation.ranking import (
    aggregate,
    auc,
    bootstrap_auc,
    bootstrap_aucs,
    class_aucs,
    frame_auc,
    partial_auc,
    pr_auc,
)


def frame_of(rows, classes=("benign", "malignant")):
    """A predictions frame of (patient, label, scores...) rows."""
    table = pd.DataFrame([row[:2] for row in rows], columns=["group_id", "label"])
    table.insert(0, "image_id", [f"i{number}" for number in range(len(rows))])
    table["label_id"] = [classes.index(label) for label in table["label"]]
    for number, name in enumerate(classes):
        table[f"score/{name}"] = [row[2 + number] for row in rows]
    return table


def binary(labels, scores, patients=None):
    patients = patients or [f"p{number:04d}" for number in range(len(labels))]
    names = ["malignant" if label else "benign" for label in labels]
    return frame_of(list(zip(patients, names, 1 - np.asarray(scores), scores, strict=True)))


def drawn(seed, patients=60, effect=1.0, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(patients) % 3 == 0
    signal = rng.normal(size=patients) + effect * labels
    return binary(labels, signal), binary(labels, signal + noise * rng.normal(size=patients))


def test_auc_of_a_hand_example_with_a_tie():
    # pairs (positive, negative): .8>.1, .8>.4, .4>.1 won, .4=.4 half: 3.5 of 4
    assert auc([False, False, True, True], [0.1, 0.4, 0.4, 0.8]) == 3.5 / 4


def test_auc_without_a_side_is_nan():
    assert math.isnan(auc([True, True], [0.1, 0.2]))


scores_with_ties = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6).map(lambda value: value / 7)), min_size=4
).filter(lambda rows: {True, False} == {row[0] for row in rows})


@settings(max_examples=60, deadline=None)
@given(scores_with_ties)
def test_auc_and_average_precision_equal_those_of_scikit_learn(rows):
    from sklearn.metrics import average_precision_score, roc_auc_score

    positive, score = map(np.array, zip(*rows, strict=True))
    assert auc(positive, score) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    expected = average_precision_score(positive, score)
    assert pr_auc(positive, score) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(scores_with_ties, st.sampled_from([0.05, 0.1, 0.37, 0.9]))
def test_the_partial_auc_equals_that_of_scikit_learn(rows, max_fpr):
    from sklearn.metrics import roc_auc_score

    positive, score = map(np.array, zip(*rows, strict=True))
    expected = roc_auc_score(positive, score, max_fpr=max_fpr)
    assert partial_auc(positive, score, max_fpr=max_fpr) == pytest.approx(expected, abs=1e-9)


def test_the_partial_auc_of_a_hand_example():
    # up to a rate of 1/2 the curve is 1/2, then 1: half of the square's left half
    positive, score = [True, False, True, False], [0.9, 0.8, 0.7, 0.1]
    area, least = 0.5 * 0.5, 0.5**2 / 2
    expected = 0.5 * (1 + (area - least) / (0.5 - least))
    assert partial_auc(positive, score, max_fpr=0.5) == pytest.approx(expected)
    assert math.isnan(partial_auc([True, True], [0.1, 0.2]))


def test_a_breast_is_a_patient_and_a_side():
    rows = [("a", "benign", 0.9, 0.1), ("a", "malignant", 0.2, 0.8), ("a", "benign", 0.5, 0.5)]
    images = frame_of(rows).assign(laterality=["L", "R", "L"])
    breasts = aggregate(images, "malignant", unit=("group_id", "laterality"))
    assert breasts["laterality"].tolist() == ["L", "R"]
    assert breasts["label"].tolist() == ["benign", "malignant"]
    assert breasts["score/malignant"].tolist() == pytest.approx([0.3, 0.8])


@pytest.mark.parametrize(("how", "expected"), [("mean", 0.4), ("max", 0.6)])
def test_uncertainty_follows_the_scores(how, expected):
    rows = [("a", "benign", 0.9, 0.1), ("a", "benign", 0.2, 0.8)]
    images = frame_of(rows).assign(uncertainty=[0.2, 0.6])
    assert aggregate(images, "malignant", how)["uncertainty"].tolist() == pytest.approx([expected])


def test_a_patient_scores_the_mean_of_its_images():
    rows = [("b", "benign", 0.9, 0.1), ("a", "benign", 0.8, 0.2), ("a", "benign", 0.4, 0.6)]
    patients = aggregate(frame_of(rows), "malignant")
    assert list(patients["group_id"]) == ["a", "b"]
    assert list(patients["images"]) == [2, 1]
    assert list(patients["score/malignant"]) == pytest.approx([0.4, 0.1])


def test_max_takes_the_scores_of_the_most_suspicious_image():
    classes = ("normal", "benign", "malignant")
    rows = [("a", "normal", 0.7, 0.2, 0.1), ("a", "normal", 0.1, 0.5, 0.4)]
    patient = aggregate(frame_of(rows, classes), "malignant", "max").iloc[0]
    assert list(patient[[f"score/{name}" for name in classes]]) == [0.1, 0.5, 0.4]
    assert patient["pred"] == "benign"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["normal", "normal", "malignant"], "malignant"),  # one positive image is enough
        (["normal", "normal", "benign"], "normal"),  # the most frequent
        (["normal", "benign"], "benign"),  # of equals, the higher id
    ],
)
def test_a_patient_with_several_labels_has_one(labels, expected):
    classes = ("normal", "benign", "malignant")
    rows = [("a", label, 0.2, 0.3, 0.5) for label in labels]
    patient = aggregate(frame_of(rows, classes), "malignant").iloc[0]
    assert patient["label"] == expected
    assert patient["label_id"] == classes.index(expected)


def test_an_unknown_aggregate_is_refused():
    with pytest.raises(ConfigError, match="'median' is not one of max, mean, none"):
        aggregate(binary([0, 1], [0.1, 0.2]), "malignant", "median")


def test_with_three_classes_the_auc_is_the_macro_mean():
    classes = ("normal", "benign", "malignant")
    rows = [
        ("a", "normal", 0.8, 0.1, 0.1),
        ("b", "benign", 0.5, 0.3, 0.2),
        ("c", "malignant", 0.6, 0.2, 0.2),
    ]
    frame = frame_of(rows, classes)
    assert class_aucs(frame) == {"normal": 1.0, "benign": 1.0, "malignant": 0.75}
    assert frame_auc(frame, "malignant") == pytest.approx(2.75 / 3)


def test_a_draw_equals_the_auc_of_the_repeated_rows():
    frame, _ = drawn(1, patients=12)
    frame["score/malignant"] = frame["score/malignant"].round(1)  # with ties
    strata = (frame["label"] == "malignant").to_numpy(np.int64)
    weights = next(patient_weights(strata, rows=12, draws=5, seed=3)).astype(int)
    found = bootstrap_aucs([frame], "malignant", draws=5, seed=3)[0]
    for row, value in zip(weights, found, strict=True):
        repeated = frame.loc[np.repeat(np.arange(12), row)]
        assert value == pytest.approx(frame_auc(repeated, "malignant"), abs=1e-12)
        assert row[strata == 1].sum() == 4  # each label keeps its number of patients


def test_images_of_a_patient_are_drawn_together():
    one, _ = drawn(2)
    twice = pd.concat([one, one.assign(image_id=one["image_id"] + "-copy")])
    together = aggregate(twice, "malignant", "none")
    # copies of images add no patients, so the interval may not shrink
    expected = bootstrap_auc(one, "malignant", draws=200)
    assert bootstrap_auc(together, "malignant", draws=200) == pytest.approx(expected)


def test_an_interval_is_a_function_of_its_seed():
    frame, _ = drawn(3)
    first = bootstrap_auc(frame, "malignant", draws=100, seed=1)
    assert first == bootstrap_auc(frame, "malignant", draws=100, seed=1)
    assert first != bootstrap_auc(frame, "malignant", draws=100, seed=2)


def test_draws_do_not_depend_on_the_block_size(monkeypatch):
    frame, _ = drawn(3)
    whole = bootstrap_auc(frame, "malignant", draws=50)
    monkeypatch.setattr("mammo.evaluation.bootstrap._CHUNK", 60 * 7)
    assert bootstrap_auc(frame, "malignant", draws=50) == whole


def test_one_class_has_no_interval():
    with pytest.raises(DataError, match=r"only \['benign'\]"):
        bootstrap_auc(binary([0, 0], [0.1, 0.2]), "malignant")


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
