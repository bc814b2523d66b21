"""A classifier judged apart in each group of images, on hand-made scores."""

import math

import pandas as pd
import pytest

from mammo.evaluation.groups import by_group, metrics_of


def frames():
    """Four patients, an image each of 2d and cview; 2d is ranked rightly, cview the other way."""
    rows, told = [], []
    for patient, (label, right) in enumerate([("n", 0.1), ("n", 0.2), ("p", 0.8), ("p", 0.9)]):
        for kind, score in (("2d", right), ("cview", 1 - right)):
            image = f"{patient}-{kind}"
            rows.append((image, f"p{patient}", label, int(label == "p"), 1 - score, score))
            told.append((image, kind, "one" if patient else ""))
    names = ["image_id", "group_id", "label", "label_id", "score/n", "score/p"]
    manifest = pd.DataFrame(told[::-1], columns=["image_id", "subset", "vendor"])
    return pd.DataFrame(rows, columns=names), manifest


def judged(names, images=None, least=1):
    frame, manifest = frames()
    settings = {"positive": "p", "threshold": 0.5, "aggregate": "mean", "draws": 20, "seed": 0}
    images = frame if images is None else images
    return by_group(images, manifest, names, least=least, **settings)


def test_trap_t1c_each_group_counts_its_own_images_alone():
    table = judged(["subset"]).set_index("value")
    assert table["auc"].to_dict() == {"2d": 1.0, "cview": 0.0}
    counts = ["true_positives", "false_positives", "true_negatives", "false_negatives"]
    assert table.loc["2d", counts].tolist() == [2, 0, 2, 0]
    assert table.loc["cview", counts].tolist() == [0, 2, 0, 2]
    assert table["patients"].tolist() == [4, 4]


def test_a_column_of_one_value_is_no_group():
    assert not len(judged(["vendor"]))


def test_a_group_of_one_side_has_no_auc_and_no_metric_of_it():
    frame, _ = frames()
    kept = frame[(frame["label"] == "p") | frame["image_id"].str.endswith("2d")]
    table = judged(["subset"], kept.reset_index(drop=True))
    assert math.isnan(table.set_index("value").loc["cview", "auc"])
    found = metrics_of(table, "test")
    assert found["test/subset/2d/auc"] == 1.0
    assert found["test/subset/cview/sensitivity"] == 0.0
    assert "test/subset/cview/auc" not in found
    assert "test/subset/cview/specificity" not in found


@pytest.mark.parametrize(("value", "name"), [("C-view 2", "C-view_2"), ("a/b", "a_b")])
def test_a_metrics_name_holds_what_a_store_takes(value, name):
    table = judged(["subset"]).replace({"value": {"2d": value}})
    assert f"test/subset/{name}/auc" in metrics_of(table, "test")
