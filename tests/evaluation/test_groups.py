"""A classifier judged apart in each group of images, hand-made and drawn."""

import math

import numpy as np
import pandas as pd
import pytest

from mammo.evaluation.comparison import auc_covariance
from mammo.evaluation.groups import by_group, counts_by_class, differ_p, interactions, metrics_of
from mammo.evaluation.ranking import auc


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


def test_a_column_that_the_dataset_lacks_is_no_group():
    assert not len(judged(["race", "age"]))


def test_ages_are_grouped_in_bands_and_unknown_ones_left_out():
    frame, manifest = frames()
    ages = {"0": 49.9, "1": 50.0, "2": 69.9, "3": 70.0}
    manifest["age"] = manifest["image_id"].str[0].map(ages)
    manifest.loc[manifest["image_id"] == "3-cview", "age"] = math.nan
    manifest["race"] = pd.Series(["b", None, "a", "", "a", "b", "a", "b"], dtype="str")
    settings = {"positive": "p", "threshold": 0.5, "aggregate": "mean", "draws": 20, "seed": 0}
    table = by_group(frame, manifest, ["age", "race"], least=1, **settings)
    ages = table[table["group"] == "age"].set_index("value")
    assert ages["images"].to_dict() == {"under 50": 2, "50 to 69": 4, "70 and over": 1}
    assert ages.loc["50 to 69", ["positives", "negatives"]].tolist() == [1, 1]
    assert ages.loc["under 50", "note"] == "fewer than 1 positive patients"
    assert math.isnan(ages.loc["70 and over", "auc"])  # only a positive patient
    assert table[table["group"] == "race"].set_index("value")["images"].to_dict() == {
        "a": 3,
        "b": 3,
    }
    assert "test/age/50_to_69/sensitivity" in metrics_of(table, "test")


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


def drawn(seed, patients=60, effects=(1.0, 1.0), images=2):
    """Patients with images of two kinds, "a" and "b", told apart by the effect of each kind."""
    rng = np.random.default_rng(seed)
    rows = patients * images
    patient = np.repeat(np.arange(patients), images)
    positive = patient < patients // 2
    kind = np.tile(np.arange(images) % 2, patients)
    score = np.asarray(effects)[kind] * positive + rng.normal(size=patients)[patient]
    score = score + rng.normal(size=rows)
    frame = pd.DataFrame({"image_id": [f"i{each}" for each in range(rows)]})
    frame["group_id"] = [f"p{each}" for each in patient]
    frame["label"], frame["label_id"] = np.where(positive, "p", "n"), positive.astype(int)
    manifest = frame[["image_id"]].assign(subset=np.where(kind, "b", "a"))
    return frame.assign(**{"score/n": -score, "score/p": score}), manifest


def test_what_rests_on_too_few_patients_is_left_out_but_counted():
    frame, manifest = drawn(0, patients=24)
    few = manifest["image_id"].isin(frame.loc[frame["label"] == "p", "image_id"][6:])
    manifest = manifest.assign(subset=manifest["subset"].where(~few, "b"))
    settings = {"positive": "p", "threshold": 0.5, "aggregate": "mean", "draws": 20, "seed": 0}
    table = by_group(frame, manifest, ["subset"], least=10, **settings).set_index("value")
    # kind a keeps the positives of three patients and all twelve negatives
    assert table.loc["a", ["positives", "negatives"]].tolist() == [3, 12]
    assert table.loc["a", "note"] == "fewer than 10 positive patients"
    left_out = ["auc", "auc_low", "auc_high", "sensitivity", "true_positives", "false_negatives"]
    assert table.loc["a", left_out].isna().all()
    assert table.loc["a", ["specificity", "true_negatives", "false_positives"]].notna().all()
    assert table.loc["b"].notna().all()
    assert "test/subset/a/auc" not in metrics_of(table.reset_index(), "test")


@pytest.mark.slow
def test_equal_groups_differ_in_5_percent_though_they_share_patients():
    rounds, found = 1000, 0
    for seed in range(rounds):
        frame, manifest = drawn(seed)
        kinds = manifest["subset"].to_numpy()
        found += differ_p([frame[kinds == "a"], frame[kinds == "b"]], "p") < 0.05
    assert 0.03 <= found / rounds <= 0.07


def test_the_difference_of_two_groups_of_other_patients_is_a_z_test():
    frame, _ = drawn(1, patients=40, images=1)
    parts = [frame.iloc[::2].reset_index(drop=True), frame.iloc[1::2].reset_index(drop=True)]
    variances, areas = [], []
    for each in parts:
        side = (each["label"] == "p").to_numpy()
        codes = np.arange(len(each))
        variances.append(auc_covariance(side, [each["score/p"]], codes)[0, 0])
        areas.append(auc(side, each["score/p"]))
    z = (areas[0] - areas[1]) / math.sqrt(sum(variances))
    assert differ_p(parts, "p") == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=1e-12)


def test_a_difference_between_groups_is_found_and_corrected_for_several_columns():
    frame, manifest = drawn(2, patients=200, effects=(0.0, 2.0))
    manifest["vendor"] = np.where(np.arange(len(manifest)) // 2 % 2, "x", "y")
    settings = {"positive": "p", "aggregate": "mean", "least": 10}
    table = interactions(frame, manifest, ["subset", "vendor"], **settings).set_index("group")
    assert table.loc["subset", "p_holm"] < 1e-6 < 0.05 < table.loc["vendor", "p_holm"]
    assert table.loc["subset", "p_holm"] == pytest.approx(2 * table.loc["subset", "p"])


def test_calls_are_counted_by_dataset_and_class():
    patients = pd.DataFrame({"dataset": list("xxxy"), "label": list("nppp"), "pred": list("npnp")})
    patients = patients.assign(**{"score/n": 0.0, "score/p": 0.0})
    table = counts_by_class(patients).set_index(["dataset", "class"])
    counts = ["true_positives", "false_positives", "true_negatives", "false_negatives"]
    assert table.loc[("x", "p"), counts].tolist() == [1, 0, 1, 1]
    assert table.loc[("x", "n"), counts].tolist() == [1, 1, 1, 0]
    assert table.loc[("y", "p"), counts].tolist() == [1, 0, 0, 0]
    assert table["patients"].to_dict() == {
        ("x", "n"): 1, ("x", "p"): 2, ("y", "n"): 0, ("y", "p"): 1
    }  # fmt: skip
