"""Metrics of a predictions frame, by patient, with values counted by hand."""

import numpy as np
import pandas as pd
import pytest

from mammo.classifiers.scores import judge, mode_of
from mammo.data.classes import TASKS
from mammo.errors import ConfigError
from mammo.evaluation.families import over_seeds

TWO, THREE = TASKS["malignancy2"], TASKS["normal_benign_malignant"]


def frame(rows, classes=TWO, seed=0):
    """Rows of (patient, label, score of each class)."""
    table = pd.DataFrame(
        [
            {
                "image_id": f"{patient}-{number}",
                "group_id": patient,
                "split": "val",
                "fold": -1,
                "seed": seed,
                "label": label,
                "label_id": classes.names.index(label),
                **{
                    f"score/{name}": value for name, value in zip(classes.names, given, strict=True)
                },
            }
            for number, (patient, label, given) in enumerate(rows)
        ]
    )
    scores = table[[f"score/{name}" for name in classes.names]].to_numpy()
    return table.assign(pred=np.asarray(classes.names, object)[scores.argmax(axis=1)])


def test_a_patient_is_judged_by_the_mean_of_its_images():
    # patient a: mean 0.6 and called malignant; image by image one of two would be
    rows = [
        ("a", "malignant", (0.1, 0.9)),
        ("a", "malignant", (0.7, 0.3)),
        ("b", "benign", (0.6, 0.4)),
        ("c", "benign", (0.35, 0.65)),
        ("d", "malignant", (0.8, 0.2)),
    ]
    found = judge(frame(rows), TWO, "mean")
    # patients: malignant 0.6 and 0.2 against benign 0.4 and 0.65: one of four pairs in order
    assert found["auc"] == 1 / 4
    # images: 0.9, 0.3 and 0.2 against 0.4 and 0.65: two of six
    assert found["auc_image"] == 2 / 6
    assert (found["sensitivity"], found["specificity"]) == (0.5, 0.5)
    assert found["balanced_accuracy"] == 0.5
    assert found["f1"] == 2 * 1 / (2 + 2)


def test_with_three_classes_the_auc_is_the_macro_mean_and_the_rest_is_of_the_positive():
    rows = [
        ("a", "normal", (0.8, 0.1, 0.1)),
        ("b", "normal", (0.2, 0.7, 0.1)),
        ("c", "benign", (0.1, 0.6, 0.3)),
        ("d", "malignant", (0.1, 0.2, 0.7)),
        ("e", "malignant", (0.3, 0.5, 0.2)),
    ]
    found = judge(frame(rows, THREE), THREE, "mean")
    # normal: 0.8 beats all three others, 0.2 beats two of them; benign: 0.6 beats three of four;
    # malignant: 0.7 beats all three, 0.2 two
    each = {"normal": 5 / 6, "benign": 3 / 4, "malignant": 5 / 6}
    assert {name: found[f"auc/{name}"] for name in each} == pytest.approx(each)
    assert found["auc"] == pytest.approx(np.mean(list(each.values())))
    assert (found["sensitivity"], found["specificity"]) == (0.5, 1.0)
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1 + 0.5) / 3)


def test_nothing_called_positive_has_an_f1_of_0():
    rows = [("a", "malignant", (0.9, 0.1)), ("b", "benign", (0.9, 0.1))]
    assert judge(frame(rows), TWO, "mean")["f1"] == 0


def test_pooling_over_seeds_averages_the_scores_of_each_image():
    first = frame([("a", "malignant", (0.2, 0.8)), ("b", "benign", (0.9, 0.1))])
    second = frame([("a", "malignant", (0.9, 0.1)), ("b", "benign", (0.5, 0.5))], seed=1)
    both = over_seeds(pd.concat([first, second]))
    assert both["score/malignant"].tolist() == pytest.approx([0.45, 0.3])
    assert both["pred"].tolist() == ["benign", "benign"]


def test_the_better_side_of_a_metric_is_known():
    assert [mode_of(each) for each in ("val/auc", "val/auc/benign", "val/loss")] == [
        "max",
        "max",
        "min",
    ]
    with pytest.raises(ConfigError, match="unknown monitor 'val/accuracy'"):
        mode_of("val/accuracy")


def test_the_uncertainty_of_several_seeds_is_their_mean():
    rows = [("a", "malignant", (0.2, 0.8)), ("b", "benign", (0.6, 0.4))]
    first = frame(rows).assign(uncertainty=[1.0, 2.0])
    second = frame(rows, seed=1).assign(uncertainty=[3.0, 5.0])
    assert over_seeds(pd.concat([first, second]))["uncertainty"].tolist() == [2.0, 3.5]
