"""A panel's metrics against other libraries, hand values, and the rows a draw repeats."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as theirs

from mammo.data.classes import TASKS
from mammo.evaluation import calibration
from mammo.evaluation.bootstrap import patient_weights
from mammo.evaluation.panel import Asked, Panel, measured

POSITIVE = "malignant"
TWO = ("benign", POSITIVE)
FOUR = TASKS["malignancy4"].names
THRESHOLDS = {
    "balanced_accuracy": 0.4,
    "specificity_0.9": 0.6,
    "specificity_0.95": 0.7,
    "sensitivity_0.9": 0.2,
}


def drawn(classes=TWO, patients=40, images=3, seed=0):
    """Predictions with ties, patients of several images and, among them, several labels."""
    rng = np.random.default_rng(seed)
    rows = patients * images
    label = rng.integers(0, len(classes), rows)
    scores = rng.dirichlet(np.ones(len(classes)), rows) + 0.5 * np.eye(len(classes))[label]
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 1)
    scores[:, 0] = 1 - scores[:, 1:].sum(axis=1)
    scores = np.clip(scores, 0.02, None)
    scores /= scores.sum(axis=1, keepdims=True)
    frame = pd.DataFrame({"group_id": [f"p{each:03d}" for each in np.arange(rows) // images]})
    frame["image_id"] = [f"i{each:04d}" for each in range(rows)]
    frame["label"] = np.asarray(classes, object)[label]
    frame["label_id"] = label
    return frame.assign(**{f"score/{name}": scores[:, n] for n, name in enumerate(classes)})


def asked(classes=TWO, **changed):
    scale = TASKS["malignancy4"].scale if len(classes) > 2 else ()
    return Asked(POSITIVE, scale=scale, **changed)


def test_every_ranking_and_probability_metric_equals_scikit_learn():
    frame = drawn()
    found = Panel(frame, asked(), {}).values()
    positive, score = frame["label"] == POSITIVE, frame[f"score/{POSITIVE}"]
    assert found["auc"] == pytest.approx(theirs.roc_auc_score(positive, score), abs=1e-12)
    assert found["pr_auc"] == pytest.approx(theirs.average_precision_score(positive, score))
    expected = theirs.roc_auc_score(positive, score, max_fpr=0.1)
    assert found["partial_auc"] == pytest.approx(expected, abs=1e-9)
    assert found["brier"] == pytest.approx(theirs.brier_score_loss(positive, score))
    assert found["nll"] == pytest.approx(theirs.log_loss(positive, score))
    assert found["ece"] == pytest.approx(calibration.ece(positive, score), abs=1e-12)
    for name, part in calibration.brier_parts(positive, score).items():
        assert found[f"brier_{name}"] == pytest.approx(part, abs=1e-12)
    slope, intercept = calibration.slope_and_intercept(positive, score)
    assert found["calibration_slope"] == pytest.approx(slope)
    assert found["calibration_intercept"] == pytest.approx(intercept)


def test_every_metric_at_a_threshold_equals_scikit_learn():
    frame = drawn()
    found = Panel(frame, asked(prevalence=0.1), THRESHOLDS).values()
    positive, called = frame["label"] == POSITIVE, frame[f"score/{POSITIVE}"] >= 0.4
    assert found["sensitivity"] == pytest.approx(theirs.recall_score(positive, called))
    assert found["specificity"] == pytest.approx(theirs.recall_score(~positive, ~called))
    expected = theirs.balanced_accuracy_score(positive, called)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert found["f1"] == pytest.approx(theirs.f1_score(positive, called))
    at = {name: frame[f"score/{POSITIVE}"] >= value for name, value in THRESHOLDS.items()}
    for percent in ("0.9", "0.95"):
        name = f"sensitivity_at_specificity_{round(float(percent) * 100)}"
        expected = theirs.recall_score(positive, at[f"specificity_{percent}"])
        assert found[name] == pytest.approx(expected)
    expected = theirs.recall_score(~positive, ~at["sensitivity_0.9"])
    assert found["specificity_at_sensitivity_90"] == pytest.approx(expected)
    # of 1000 at this prevalence
    hits, alarms = 100 * found["sensitivity"], 900 * (1 - found["specificity"])
    spared, missed = 900 * found["specificity"], 100 * (1 - found["sensitivity"])
    assert found["ppv"] == pytest.approx(hits / (hits + alarms))
    assert found["npv"] == pytest.approx(spared / (spared + missed))


def test_four_classes_have_the_macro_means_and_kappa_of_scikit_learn():
    frame = drawn(FOUR)
    found = Panel(frame, asked(FOUR), THRESHOLDS).values()
    scores = frame[[f"score/{name}" for name in FOUR]].to_numpy()
    truth, called = frame["label_id"].to_numpy(), scores.argmax(axis=1)
    expected = theirs.roc_auc_score(truth, scores, multi_class="ovr", labels=range(4))
    assert found["auc"] == pytest.approx(expected)
    expected = theirs.average_precision_score(np.eye(4)[truth], scores)
    assert found["pr_auc_macro"] == pytest.approx(expected)
    assert found["f1_macro"] == pytest.approx(theirs.f1_score(truth, called, average="macro"))
    expected = theirs.balanced_accuracy_score(truth, called)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    rank = [["benign", "probably_benign", "suspicious", POSITIVE].index(name) for name in FOUR]
    ranks = np.asarray(rank)
    expected = theirs.cohen_kappa_score(ranks[truth], ranks[called], weights="quadratic")
    assert found["kappa"] == pytest.approx(expected)
    assert found["kappa"] != pytest.approx(
        theirs.cohen_kappa_score(truth, called, weights="quadratic")
    )  # the ids are no order


def test_classes_without_an_order_have_no_kappa():
    found = Panel(drawn(FOUR), Asked(POSITIVE), {}).values()
    assert "kappa" not in found


def test_probabilistic_f1_of_a_hand_example():
    frame = drawn(patients=4, images=1).assign(
        label=[POSITIVE, POSITIVE, "benign", "benign"], label_id=[1, 1, 0, 0]
    )
    frame["score/malignant"] = [0.8, 0.4, 0.3, 0.1]
    # true mass 1.2, false mass 0.4: precision 0.75, recall 0.6
    found = Panel(frame, asked(), {}).values()
    assert found["pf1"] == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


@pytest.mark.parametrize("classes", [TWO, FOUR], ids=["two", "four"])
def test_a_draw_has_the_metrics_of_the_repeated_rows(classes):
    frame = drawn(classes, patients=30)
    wanted = asked(classes, temperature=1.7)
    panel = Panel(frame, wanted, THRESHOLDS)
    found = panel.drawn(draws=4, seed=3)
    weights = np.concatenate(
        list(patient_weights(panel._strata, rows=len(frame), draws=4, seed=3))
    ).astype(int)
    for draw, row in enumerate(weights):
        repeated = frame.loc[np.repeat(np.arange(len(frame)), row[panel._codes])]
        expected = Panel(repeated, wanted, THRESHOLDS).values()
        for name in set(expected) - {"calibration_slope", "calibration_intercept"}:
            assert found[name][draw] == pytest.approx(expected[name], abs=1e-9), name
        # by a few steps of Newton
        assert found["calibration_slope"][draw] == pytest.approx(
            expected["calibration_slope"], rel=1e-3
        )
        assert found["calibration_intercept"][draw] == pytest.approx(
            expected["calibration_intercept"], abs=0.05
        )


def test_the_scaled_probabilities_are_those_of_the_temperature():
    frame = drawn()
    found = Panel(frame, asked(temperature=2.0), {}).values()
    scores = calibration.scaled(frame[["score/benign", f"score/{POSITIVE}"]], 2.0)
    positive = frame["label"] == POSITIVE
    assert found["brier_scaled"] == pytest.approx(calibration.brier(positive, scores[:, 1]))
    assert found["nll_scaled"] == pytest.approx(calibration.nll(frame["label_id"], scores))
    assert found["ece_scaled"] == pytest.approx(calibration.ece(positive, scores[:, 1]))


def test_every_defined_metric_has_an_interval_about_it():
    values, intervals = measured(Panel(drawn(), asked(), THRESHOLDS), draws=200, seed=0)
    assert set(values) == set(intervals)
    biased = {"ece"}  # a resampled calibration error is larger than that of the rows
    for name in set(values) - biased:
        assert intervals[name][0] <= values[name] <= intervals[name][1], name


def test_a_level_without_thresholds_has_no_metric_of_one():
    found = Panel(drawn(), asked(), {}).values()
    assert not {"sensitivity", "ppv", "f1", "balanced_accuracy"} & set(found)
