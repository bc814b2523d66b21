"""The numbers of a verdict against hand examples."""

import numpy as np
import pandas as pd
import pytest

from mammo.errors import DataError
from mammo.evaluation.panel import Asked
from mammo.evaluation.sections import side_by_side
from mammo.evaluation.verdict import COLUMNS, Choice, choose, detectable_difference, judge


def images_of(labels, scores, classes):
    frame = pd.DataFrame({"group_id": [f"p{number}" for number in range(len(labels))]})
    frame["image_id"] = frame["group_id"]
    frame["label"] = labels
    frame["label_id"] = [classes.index(label) for label in labels]
    for number, name in enumerate(classes):
        frame[f"score/{name}"] = np.asarray(scores)[:, number]
    return frame


def judged(frame, threshold, positive, **changed):
    asked = Asked(positive, "given", **changed)
    choice = Choice({"patient": {"given": threshold}})
    return judge(frame, choice, asked, aggregate="mean", draws=20, seed=0)


def test_two_classes_are_called_by_the_threshold():
    high = np.array([0.1, 0.35, 0.4, 0.9])
    frame = images_of(list("nnpp"), np.stack([1 - high, high], axis=1), ["n", "p"])
    verdict = judged(frame, 0.3, "p")
    assert verdict.patients["pred"].tolist() == ["n", "p", "p", "p"]
    assert verdict.confusion.tolist() == [[1, 1], [0, 2]]
    assert verdict.metrics["sensitivity"] == 1
    assert verdict.metrics["specificity"] == 0.5
    assert verdict.metrics["balanced_accuracy"] == 0.75
    assert verdict.metrics["brier"] == pytest.approx((0.01 + 0.1225 + 0.36 + 0.01) / 4)


def test_three_classes_are_called_by_the_highest_score_and_the_positive_by_the_threshold():
    scores = [[0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4]]
    frame = images_of(["a", "b", "c"], scores, ["a", "b", "c"])
    verdict = judged(frame, 0.35, "c")
    assert verdict.patients["pred"].tolist() == ["a", "b", "a"]
    assert verdict.metrics["balanced_accuracy"] == pytest.approx(2 / 3)
    assert verdict.metrics["sensitivity"] == 1
    assert verdict.metrics["specificity"] == 1


def test_what_a_reader_must_know_is_noted():
    frame = images_of(list("nnpp"), [[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]], ["n", "p"])
    notes = " ".join(judged(frame, 0.5, "p").notes)
    assert "only 2 patients" in notes
    assert "fully separated" in notes


def test_patients_of_one_side_are_refused():
    frame = images_of(list("nn"), [[0.9, 0.1], [0.8, 0.2]], ["n", "p"])
    with pytest.raises(DataError, match="0 of the 2 patients evaluated are p"):
        judged(frame, 0.5, "p")


def test_thresholds_are_those_of_patients_and_not_of_images():
    # as images 0.1 and 0.9 would straddle any threshold; the patients score 0.5 and 0.7
    frame = images_of(list("nnp"), [[0.9, 0.1], [0.1, 0.9], [0.3, 0.7]], ["n", "p"])
    frame["group_id"] = ["p0", "p0", "p1"]
    found = choose(frame, "p", aggregate="mean", specificity=1.0).thresholds
    assert set(found) == {"patient", "image"}
    assert found["patient"]["balanced_accuracy"] == pytest.approx(0.6)
    assert found["patient"]["specificity"] == pytest.approx(0.6)
    assert found["image"]["specificity"] > 0.9  # above its only negative there, 0.9


def test_the_detectable_difference_follows_from_the_standard_error():
    # an interval of +-1.96 standard errors of 0.01: (1.96 + 0.84) x 0.01
    assert detectable_difference(-0.0196, 0.0196) == pytest.approx(0.028, abs=1e-4)


def test_levels_stand_side_by_side_with_their_intervals():
    rows = [
        ("patient", "auc", 0.75, 0.5, 0.98765, 8, 8),
        ("patient", "temperature", 1.5, float("nan"), float("nan"), 8, 8),
        ("image", "auc", 0.7, 0.6, 0.8, 16, 8),
    ]
    table = side_by_side(pd.DataFrame(rows, columns=list(COLUMNS)))
    assert list(table) == ["metric", "by patient (n = 8)", "by image (n = 16)"]
    assert table.iloc[0].tolist() == ["auc", "0.75 (0.5 to 0.988)", "0.7 (0.6 to 0.8)"]
    assert table.iloc[1].tolist() == ["temperature", "1.5", ""]


def test_each_class_stands_against_the_rest():
    scores = [[0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4], [0.1, 0.7, 0.2]]
    frame = images_of(["a", "b", "c", "a"], scores, ["a", "b", "c"])
    table = judged(frame, 0.35, "c").classes.set_index("class")
    # called a, b, a, b; class a: 0.6 and 0.1 against 0.3 and 0.5
    assert table.loc["a", ["auc", "sensitivity", "specificity", "f1"]].tolist() == [
        *(0.5, 0.5, 0.5, 0.5)
    ]
    assert table.loc["b", ["auc", "sensitivity", "specificity"]].tolist() == pytest.approx(
        [2 / 3, 1, 2 / 3]
    )
    assert table.loc["c", ["auc", "sensitivity", "f1"]].tolist() == [1, 0, 0]


def test_the_metrics_of_images_and_breasts_are_at_their_own_thresholds():
    high = [0.1, 0.3, 0.6, 0.9, 0.2, 0.5]
    frame = images_of(list("nnppnn"), [[1 - each, each] for each in high], ["n", "p"])
    frame["group_id"] = ["p0", "p0", "p1", "p1", "p2", "p2"]
    frame["laterality"] = list("LRLRLR")
    thresholds = {"patient": {"given": 0.5}, "breast": {"given": 0.4}, "image": {"given": 0.7}}
    found = judge(
        frame, Choice(thresholds), Asked("p", "given"), aggregate="mean", draws=20, seed=0
    ).metrics
    assert (found["sensitivity"], found["specificity"]) == (1, 1)
    assert (found["sensitivity_breast"], found["specificity_breast"]) == (1, 0.75)
    assert (found["sensitivity_image"], found["specificity_image"]) == (0.5, 1)
