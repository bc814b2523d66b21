"""Partitions by patient: exact, stratified, seeded, and the same answer for everyone who asks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.data.splits import (
    apply_split_file,
    assign_folds,
    fold_numbers,
    hold_out,
    read_split_file,
    split_digest,
    training_rows,
    write_split_file,
)
from mammo.errors import ConfigError, DataError


def patients_of(labels: dict[str, int], images: int = 1) -> pd.DataFrame:
    return small.frame(small.real_rows({label: [images] * n for label, n in labels.items()}))


@st.composite
def manifests(draw: st.DrawFn) -> pd.DataFrame:
    """20 to 60 patients of 1 to 6 images; 7 or more have only benign, 7 or more a malignant one."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=20, max_size=60))
    positive = draw(st.integers(7, len(sizes) - 7))
    rows = [
        {
            "group_id": f"p{number:02d}",
            "image_id": f"p{number:02d}-{image}",
            # a positive patient may have benign images too: of the other breast
            "label": "malignant" if number < positive and image <= number % 3 else "benign",
            "split": "train",
        }
        for number, size in enumerate(sizes)
        for image in range(size)
    ]
    return small.frame(draw(st.permutations(rows)))


def strata(frame: pd.DataFrame) -> pd.Series:
    return (frame["label"] == "malignant").groupby(frame["group_id"]).any()


@settings(max_examples=40, deadline=None)
@given(frame=manifests(), seed=st.integers(0, 2**31), test=st.sampled_from([0.1, 0.2, 0.35]))
def test_a_hold_out_keeps_patients_whole_and_honours_fractions_to_a_patient(frame, seed, test):
    split = hold_out(frame, val_fraction=0.15, test_fraction=test, seed=seed, positive="malignant")
    assert set(split) == {"train", "val", "test"}
    by_group = split.groupby(frame["group_id"]).agg(["nunique", "first"])
    assert (by_group["nunique"] == 1).all()
    for _, members in strata(frame).groupby(strata(frame)):
        counts = Counter(by_group["first"][members.index])
        assert abs(counts["test"] - test * len(members)) <= 1
        assert abs(counts["val"] - 0.15 * len(members)) <= 1


@settings(max_examples=40, deadline=None)
@given(frame=manifests(), seed=st.integers(0, 2**31), k=st.integers(2, 7))
def test_folds_keep_patients_whole_and_differ_by_a_patient_in_each_stratum(frame, seed, k):
    fold = assign_folds(frame, k=k, seed=seed, positive="malignant")
    by_group = fold.groupby(frame["group_id"]).agg(["nunique", "first"])
    assert (by_group["nunique"] == 1).all()
    assert set(fold) == set(range(k))
    sizes = frame["group_id"].value_counts()
    total = by_group["first"].value_counts()
    assert total.max() - total.min() <= 1
    for _, members in strata(frame).groupby(strata(frame)):
        patients = by_group["first"][members.index].value_counts().reindex(range(k), fill_value=0)
        assert patients.max() - patients.min() <= 1
        images = sizes[members.index].groupby(by_group["first"][members.index]).sum()
        assert images.max() - images.min() < 2 * sizes[members.index].max()


@settings(max_examples=25, deadline=None)
@given(frame=manifests(), seed=st.integers(0, 2**31))
def test_partitions_follow_from_ids_and_seed_not_from_the_order_of_rows(frame, seed):
    asked = {"seed": seed, "positive": "malignant"}
    turned = frame.iloc[::-1]
    split = hold_out(frame, val_fraction=0.2, test_fraction=0.2, **asked)
    assert split.equals(hold_out(turned, val_fraction=0.2, test_fraction=0.2, **asked).sort_index())
    folds = assign_folds(frame, k=5, **asked)
    assert folds.equals(assign_folds(turned, k=5, **asked).sort_index())


def test_prevalence_by_image_differs_by_less_than_two_points_between_folds():
    rng = np.random.default_rng(0)
    sizes = {"benign": rng.integers(1, 7, 700), "malignant": rng.integers(1, 7, 300)}
    frame = small.frame(small.real_rows({k: v.tolist() for k, v in sizes.items()}))
    fold = assign_folds(frame, k=5, seed=1, positive="malignant")
    prevalence = (frame["label"] == "malignant").groupby(fold).mean()
    assert prevalence.max() - prevalence.min() < 0.02


def test_another_seed_is_another_partition():
    frame = patients_of({"benign": 30, "malignant": 30})
    one, two = (hold_out(frame, val_fraction=0.2, test_fraction=0.2, seed=s) for s in (0, 1))
    assert not one.equals(two)
    assert not assign_folds(frame, k=5, seed=0).equals(assign_folds(frame, k=5, seed=1))


def test_seeds_reach_every_patient_even_when_all_differ_in_size():
    frame = small.frame(small.real_rows({"benign": range(1, 11), "malignant": range(1, 11)}))
    tested = set()
    for seed in range(60):
        split = hold_out(frame, val_fraction=0.2, test_fraction=0.2, seed=seed)
        tested |= set(frame["group_id"][split == "test"])
    assert tested == set(frame["group_id"])


def test_a_small_class_is_in_every_split():
    frame = patients_of({"benign": 100, "malignant": 3})
    split = hold_out(frame, val_fraction=0.1, test_fraction=0.1, seed=0)
    assert sorted(split[frame["label"] == "malignant"]) == ["test", "train", "val"]


def test_fractions_of_zero_make_no_such_split():
    frame = patients_of({"benign": 4, "malignant": 4})
    assert set(hold_out(frame, val_fraction=0.0, test_fraction=0.0, seed=0)) == {"train"}
    assert set(hold_out(frame, val_fraction=0.25, test_fraction=0.0, seed=0)) == {"train", "val"}


def test_a_class_with_too_few_patients_is_named_with_what_is_needed():
    frame = patients_of({"benign": 9, "malignant": 2}, images=5)
    with pytest.raises(DataError, match=r"'malignant' has 2 patients, 3 are needed for train, te"):
        hold_out(frame, val_fraction=0.2, test_fraction=0.2, seed=0)
    with pytest.raises(DataError, match=r"'malignant' has 2 patients, 5 are needed for 5 folds"):
        assign_folds(frame, k=5, seed=0)


def test_fractions_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(ConfigError, match=r"0\.5 and test_fraction 0\.5 leave nothing"):
        hold_out(patients_of({"benign": 9}), val_fraction=0.5, test_fraction=0.5, seed=0)


@pytest.fixture
def folded(tmp_path: Path):
    """40 patients in 5 folds and 8 patients of a test split."""
    rows = small.real_rows({"benign": [2] * 20, "malignant": [1] * 20})
    fold = assign_folds(small.frame(rows), k=5, seed=3, positive="malignant")
    rows = [{**row, "fold": number} for row, number in zip(rows, fold, strict=True)]
    tests = small.real_rows({"benign": [1] * 4, "malignant": [1] * 4}, split="test")
    tests = [{**r, "group_id": f"t{r['group_id']}", "image_id": f"t{r['image_id']}"} for r in tests]
    return small.dataset(tmp_path, [*rows, *tests])


def test_a_fold_partitions_all_rows_but_those_of_the_test_split(folded):
    for number in range(5):
        rows = training_rows(folded, fold=number, val_fraction=0.25)
        everything = np.sort(np.concatenate([rows.train, rows.val, rows.scored]))
        np.testing.assert_array_equal(everything, np.flatnonzero(folded.manifest["fold"] >= 0))
        np.testing.assert_array_equal(
            rows.scored, np.flatnonzero(folded.manifest["fold"] == number)
        )
        groups = [set(folded.manifest["group_id"].iloc[part]) for part in (rows.train, rows.val)]
        assert not groups[0] & groups[1]
        assert len(groups[1]) == 8  # a quarter of the 32 patients of the other folds


def test_the_inner_validation_is_the_same_for_everyone_and_differs_between_folds(folded):
    once, again = (training_rows(folded, fold=f, val_fraction=0.25) for f in (2, "2"))
    np.testing.assert_array_equal(once.val, again.val)
    other = training_rows(folded, fold=3, val_fraction=0.25)
    assert set(once.val.tolist()) != set(other.val.tolist())
    assert fold_numbers(folded) == [0, 1, 2, 3, 4]


def test_a_hold_out_dataset_trains_validates_and_scores_by_its_splits(tmp_path):
    rows = small.real_rows({"benign": [1] * 3, "malignant": [1] * 3})
    for row, split in zip(rows, ["train", "val", "test"] * 2, strict=True):
        row["split"] = split
    rows = training_rows(small.dataset(tmp_path, rows), fold="none")
    assert (rows.train.tolist(), rows.val.tolist(), rows.scored.tolist()) == ([0, 3], [1, 4], [])


def test_questions_that_a_dataset_cannot_answer_name_the_remedy(folded, tmp_path):
    with pytest.raises(ConfigError, match=r"5 folds: choose one with --folds"):
        training_rows(folded, fold="none")
    for wrong in (5, "-1", "first"):
        with pytest.raises(ConfigError, match=r"give 'none' or one of 0 to 4"):
            training_rows(folded, fold=wrong)
    rows = small.real_rows({"benign": [1], "malignant": [1]})
    plain = small.dataset(tmp_path, rows)
    with pytest.raises(ConfigError, match=r"has no folds; .* --k_folds 5"):
        training_rows(plain, fold=0)
    with pytest.raises(ConfigError, match=r"no val split; .* --val_fraction"):
        training_rows(plain, fold="none")
    held = small.dataset(tmp_path, [{**row, "split": "val"} for row in rows])
    with pytest.raises(ConfigError, match=r"no train split"):
        training_rows(held, fold="none")


def test_folds_beside_synthetic_images_are_refused(tmp_path):
    rows = small.real_rows({"benign": [1] * 4, "malignant": [1] * 4})
    rows = [{**row, "fold": number % 2} for number, row in enumerate(rows)]
    data = small.dataset(tmp_path, [*rows, *small.synthetic_rows({"benign": 1})])
    with pytest.raises(DataError, match=r"mix --fold 0"):
        training_rows(data, fold=0)


def test_a_split_file_gives_the_same_partition_back(tmp_path):
    frame = patients_of({"benign": 9, "malignant": 9}, images=2)
    frame["split"] = hold_out(frame, val_fraction=0.2, test_fraction=0.2, seed=0)
    digest = write_split_file(frame, tmp_path / "split.csv")
    table = read_split_file(tmp_path / "split.csv")
    again = frame.drop(columns=["split", "fold"]).iloc[::-1]
    again[["split", "fold"]] = apply_split_file(again, table)
    assert again["split"].sort_index().equals(frame["split"])
    assert split_digest(again) == digest
    frame.loc[0, "split"] = "test" if frame["split"][0] == "train" else "train"
    assert split_digest(frame) != digest


def test_a_split_file_with_a_patient_in_two_splits_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("patient,split\nP1,train\nP2,val\nP1,test\n")
    with pytest.raises(DataError, match=r"the patient of rows 2 and 4 in two splits or folds \(1"):
        read_split_file(path, patient_column="patient")
    path.write_text("patient,split\nP1,training\n")
    with pytest.raises(DataError, match=r"has split 'training' in row 2;"):
        read_split_file(path, patient_column="patient")
    path.write_text("patient,split,fold\nP1,train,first\n")
    with pytest.raises(DataError, match=r"has fold 'first'"):
        read_split_file(path, patient_column="patient")
    path.write_text("patient,fold\nP1,1\n")
    with pytest.raises(DataError, match=r"lacks the column 'split'"):
        read_split_file(path, patient_column="patient")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_split_file(tmp_path / "absent.csv")


def test_a_patient_of_a_split_file_without_a_fold_has_none(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("group_id,split,fold\n007,train,1\n008,test,\n")
    assert read_split_file(path)["fold"].to_dict() == {"007": 1, "008": -1}


def test_a_patient_without_a_line_in_the_split_file_is_named(tmp_path):
    frame = patients_of({"benign": 2})
    table = pd.DataFrame({"split": ["train"], "fold": [-1]}, index=["benign-0"])
    with pytest.raises(DataError, match=r"no line for patient benign-1 \(1 such"):
        apply_split_file(frame, table)
