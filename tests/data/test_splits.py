"""Partitions by patient: exact, stratified, seeded, and the same answer for everyone who asks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.data import strata as strata_module
from mammo.data.split_file import (
    apply_split_file,
    missing_patients,
    read_split_file,
    split_digest,
    write_split_file,
)
from mammo.data.splits import assign_folds, fold_numbers, hold_out, training_rows
from mammo.errors import ConfigError, DataError


def patients_of(labels: dict[str, int], images: int = 1) -> pd.DataFrame:
    return small.frame(small.real_rows({label: [images] * n for label, n in labels.items()}))


VENDORS = ("", "A", "B", "C")


@st.composite
def manifests(draw: st.DrawFn) -> pd.DataFrame:
    """20 to 60 patients of 1 to 6 images from up to 4 vendors; 7 or more are of each class."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=20, max_size=60))
    positive = draw(st.integers(7, len(sizes) - 7))
    salt = draw(st.integers(0, 2**16))
    patient = np.repeat(np.arange(len(sizes)), sizes)
    image = np.concatenate([np.arange(size) for size in sizes])
    # a positive patient may have benign images too: of the other breast
    malignant = (patient < positive) & (image <= patient % 3)
    turn = np.random.default_rng(salt).permutation(len(patient))
    return pd.DataFrame(
        {
            "group_id": hashed(patient, salt),
            "label": np.where(malignant, "malignant", "benign"),
            "vendor": np.asarray(VENDORS)[(patient * 7 + salt) % 11 % 4],
        }
    ).iloc[turn].reset_index(drop=True)  # fmt: skip


def hashed(patients: np.ndarray, salt: int) -> list[str]:
    """An id for each patient number, in another order with another salt."""
    return [f"{(int(each) * 2654435761 + salt * 40503) % 2**32:08x}" for each in patients]


def strata(frame: pd.DataFrame) -> pd.Series:
    return (frame["label"] == "malignant").groupby(frame["group_id"]).any()


@pytest.mark.doors
# 1,000 manifests in all: half are drawn by label, half by label and vendor
@settings(max_examples=1000, deadline=None)
@given(
    frame=manifests(),
    seed=st.integers(0, 2**31),
    test=st.sampled_from([0.1, 0.2, 0.35]),
    k=st.integers(2, 7),
    finer=st.booleans(),
)
def test_no_patient_is_in_two_splits_or_folds_and_strata_are_shared_alike(
    frame, seed, test, k, finer
):
    asked = {"seed": seed, "positive": "malignant"}
    asked["stratify_by"] = ("label", "vendor") if finer else ("label",)
    split = hold_out(frame, val_fraction=0.15, test_fraction=test, **asked)
    fold = assign_folds(frame, k=k, **asked)
    drawn = pd.DataFrame({"split": split, "fold": fold}).groupby(frame["group_id"])
    assert drawn.nunique().eq(1).all(axis=None)
    drawn = drawn.first()
    assert set(split) == {"train", "val", "test"}
    assert set(fold) == set(range(k))
    total = drawn["fold"].value_counts()
    if not finer:
        assert total.max() - total.min() <= 1
    positive = strata(frame)
    for _, members in positive.groupby(positive):
        mine = drawn.loc[members.index]
        counts = Counter(mine["split"])
        assert abs(counts["test"] - test * len(members)) <= 1
        assert abs(counts["val"] - 0.15 * len(members)) <= 1
        patients = mine["fold"].value_counts().reindex(range(k), fill_value=0)
        assert patients.max() - patients.min() <= 1
        if not finer:
            sizes = frame["group_id"].value_counts()[members.index]
            images = sizes.groupby(mine["fold"]).sum()
            assert images.max() - images.min() < 2 * sizes.max()
    if finer:
        check_vendors(frame, drawn, positive, test=test, k=k)
    else:
        prevalence = positive.groupby(drawn["fold"]).agg(["mean", "size"])
        bound = np.maximum(0.02, 2 / prevalence["size"])  # a patient more or less
        assert (abs(prevalence["mean"] - positive.mean()) < bound).all()


def check_vendors(frame, drawn, positive, *, test: float, k: int) -> None:
    """Vendors large enough are shared alike within a label (every patient has one vendor)."""
    vendor = frame.groupby("group_id")["vendor"].first()
    for _, members in drawn.groupby([positive, vendor]):
        counts = Counter(members["split"])
        if len(members) >= 3 and not small_beside(positive, vendor, members, least=3):
            assert abs(counts["test"] - test * len(members)) < 2
            assert abs(counts["val"] - 0.15 * len(members)) < 2
        if len(members) >= k and not small_beside(positive, vendor, members, least=k):
            patients = members["fold"].value_counts().reindex(range(k), fill_value=0)
            assert patients.max() - patients.min() <= 1


def small_beside(positive, vendor, members, *, least: int) -> bool:
    """Whether the label has a vendor of fewer than `least` patients, which may join `members`."""
    label = positive[members.index[0]]
    return bool((vendor[positive == label].value_counts() < least).any())


@settings(max_examples=60, deadline=None)
@given(frame=manifests(), seed=st.integers(0, 2**31), salt=st.integers(0, 2**16))
def test_partitions_follow_from_seed_and_release_and_not_from_the_salt(frame, seed, salt):
    asked = {"seed": seed, "positive": "malignant"}
    number = pd.factorize(frame["group_id"])[0]
    other = frame.assign(group_id=hashed(number, salt))
    split = hold_out(frame, val_fraction=0.2, test_fraction=0.2, **asked)
    assert split.equals(hold_out(other, val_fraction=0.2, test_fraction=0.2, **asked))
    folds = assign_folds(frame, k=5, **asked)
    assert folds.equals(assign_folds(other, k=5, **asked))
    # images may come in any order as long as the patients appear in the same one
    together = frame.iloc[np.argsort(number, kind="stable")]
    assert folds.equals(assign_folds(together, k=5, **asked).sort_index())


def test_strata_with_too_few_patients_are_drawn_together_within_their_label():
    frame = patients_of({"benign": 20, "malignant": 10})
    frame["vendor"] = [*["A"] * 12, *["B"] * 6, "C", "D", *["A"] * 7, *["B"] * 2, "C"]
    found = strata_module.patients_of(
        frame, positive="malignant", stratify_by=("label", "vendor"), least=5
    )
    merged = found[found["stratum"] == ""]
    # benign C and D are two, B's 6 join them; malignant B and C are three, A's 7 join them
    assert merged["label"].value_counts().to_dict() == {"benign": 8, "malignant": 10}
    fold = assign_folds(frame, k=5, seed=0, stratify_by=("label", "vendor"))
    counts = fold[frame["vendor"].eq("A") & frame["label"].eq("benign")].value_counts()
    assert sorted(counts) == [2, 2, 2, 3, 3]


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


def test_trap_t0e_no_folds_train_validate_and_score_by_the_splits(tmp_path):
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


def divided(sizes: int = 9) -> pd.DataFrame:
    frame = patients_of({"benign": sizes, "malignant": sizes}, images=2)
    frame["split"] = hold_out(frame, val_fraction=0.2, test_fraction=0.2, seed=0)
    return frame


def test_a_split_file_gives_the_same_partition_back(tmp_path):
    frame = divided()
    digest = write_split_file(frame, tmp_path / "split.csv", salt="abc")
    assert (tmp_path / "split.csv").read_text().startswith(f"# mammo splits {digest} salt abc\n")
    table = read_split_file(tmp_path / "split.csv", salt="abc")
    again = frame.drop(columns=["split", "fold"]).iloc[::-1]
    again[["split", "fold"]] = apply_split_file(again, table)
    assert again["split"].sort_index().equals(frame["split"])
    assert split_digest(again) == digest
    frame.loc[0, "split"] = "test" if frame["split"][0] == "train" else "train"
    assert split_digest(frame) != digest


def test_an_edited_split_file_is_refused_until_its_first_line_is_gone(tmp_path):
    path = tmp_path / "split.csv"
    write_split_file(divided(), path, salt="abc")
    text = path.read_text()
    path.write_bytes(text.replace("\n", "\r\n").encode())  # as a spreadsheet's machine saves it
    assert len(read_split_file(path, salt="abc")) == 18
    edited = text.replace("train", "test", 1)
    path.write_text(edited)
    with pytest.raises(DataError, match=r"was changed after mammo wrote it: .* remove the first"):
        read_split_file(path, salt="abc")
    path.write_text(edited.partition("\n")[2])
    assert (read_split_file(path, salt="abc")["split"] == "test").sum() == 1 + 4


def test_a_split_file_of_another_salt_is_refused(tmp_path):
    write_split_file(divided(), tmp_path / "split.csv", salt="abc")
    with pytest.raises(DataError, match=r"another salt or group_by \(abc, here def\)"):
        read_split_file(tmp_path / "split.csv", salt="def")


def test_a_file_made_by_hand_names_patients_as_the_release_does(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("patient,remark,split,fold\n007, x,train,1\n 8 ,y,test,\n9,,train,2.0\n")
    found = read_split_file(path, hashed=lambda patient: f"hash of {patient}")
    assert found["split"].to_dict() == {
        "hash of 007": "train",
        "hash of 8": "test",
        "hash of 9": "train",
    }
    assert found["fold"].tolist() == [1, -1, 2]
    with pytest.raises(DataError, match="which goes with group_by patient"):
        read_split_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "patient,split\nSECRET,train\nP2,val\nSECRET,test\n",
            r"the patient of rows 2 and 4 in two splits or folds \(1 such",
        ),
        ("patient,split\nSECRET,training\n", r"has split 'training' in row 2;"),
        ("patient,split,fold\nSECRET,train,first\n", r"has fold .* in row 2"),
        ("patient,split,fold\nSECRET,test,1\n", r"puts a fold to a test patient in row 2"),
        ("patient,split\nSECRET,val\n,val\n", r"has no patient in row 3"),
        ("patient,fold\nSECRET,1\n", r"lacks the column 'split'"),
        ("who,split\nSECRET,val\n", r"lacks the column 'patient'"),
        ("SECRET,val\n", r"lacks the column 'patient'; its first line should be"),
        ("patient,split\nSECRET,val,,\n", r"rows with more fields than its first line"),
        ("", r"cannot be read"),
    ],
)
def test_a_wrong_split_file_is_one_line_that_gives_the_row_and_not_the_patient(
    tmp_path, text, message
):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        read_split_file(path, hashed=str.lower)
    assert "SECRET" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_split_file_that_is_absent_or_no_text_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read"):
        read_split_file(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes(b"patient,split\nM\xfcller,train\n")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_split_file(tmp_path / "latin.csv")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_file_as_other_countries_spreadsheets_save_it(tmp_path, mark):
    path = tmp_path / "own.csv"
    path.write_text("patient,split,fold\np,train,0\nq,test,\n".replace(",", mark))
    found = read_split_file(path, hashed=str.upper)
    assert found.to_dict("index") == {
        "P": {"split": "train", "fold": 0},
        "Q": {"split": "test", "fold": -1},
    }


def test_new_patients_are_counted_and_train_on_request_alone():
    frame = patients_of({"benign": 3})
    table = pd.DataFrame({"split": ["test"], "fold": [-1]}, index=["benign-1"])
    with pytest.raises(DataError, match=r"no line for 2 of 3 patients .* --new_patients train"):
        apply_split_file(frame, table)
    found = apply_split_file(frame, table, new_patients="train")
    assert found["split"].tolist() == ["train", "test", "train"]
    assert found["fold"].tolist() == [-1, -1, -1]
    folded = table.assign(split="train", fold=1)
    with pytest.raises(DataError, match=r"2 patients, who would be in no fold"):
        apply_split_file(frame, folded, new_patients="train")


def test_patients_of_a_split_file_that_are_not_in_the_data_are_listed():
    table = pd.DataFrame(
        {"split": ["train", "val"], "fold": [-1, -1]},
        index=pd.Index(["benign-0", "gone"], name="group_id"),
    )
    found = missing_patients(patients_of({"benign": 1}), table)
    assert found.to_dict("records") == [{"group_id": "gone", "split": "val", "fold": -1}]
