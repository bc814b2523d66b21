"""Who gets which split: the release's own, a file's, a limit, a warm-up; and who counts as one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mammo.data.identity import Names, fingerprint
from mammo.data.partition import (
    partition,
    take_patients,
    warm_up,
    warm_up_table,
)
from mammo.data.release import Record
from mammo.errors import DataError

DRAW: dict[str, Any] = {
    "val_fraction": 0.25,
    "test_fraction": 0.25,
    "k_folds": 0,
    "seed": 0,
    "positive": "malignant",
}


def patients(benign: int, malignant: int, images: int = 2, **columns: Any) -> pd.DataFrame:
    rows = [
        {"group_id": f"{label}-{number}", "label": label, **columns}
        for label, count in (("benign", benign), ("malignant", malignant))
        for number in range(count)
        for _ in range(images)
    ]
    return pd.DataFrame(rows)


def record(patient: str, image: str, label: str, **other: Any) -> Record:
    return Record((Path(f"{image}.png"),), patient, image, label, **other)


def test_official_splits_stay_and_validation_is_drawn_from_the_training_patients() -> None:
    frame = patients(8, 8)
    official = ["test" if group.endswith(("-0", "-1")) else "train" for group in frame["group_id"]]
    found = partition(frame, official, **DRAW)
    assert (found.rows["split"] == "test").tolist() == [each == "test" for each in official]
    drawn = found.rows["split"].groupby(frame["group_id"]).first().value_counts()
    assert drawn.to_dict() == {"train": 8, "test": 4, "val": 4}  # 2 of 6 of each label, 1.5 up
    assert found.notes == []


def test_official_validation_is_honoured_and_folds_take_it_in() -> None:
    frame = patients(6, 6, images=1)
    official = ["test", "val", "train", "train", "val", "train"] * 2
    assert partition(frame, official, **DRAW).rows["split"].tolist() == official
    folded = partition(frame, official, **{**DRAW, "k_folds": 5}).rows
    assert (folded["split"] == "test").tolist() == [each == "test" for each in official]
    assert sorted(folded["fold"][folded["split"] == "train"]) == sorted([*range(5)] * 2)
    assert set(folded["fold"][folded["split"] == "test"]) == {-1}


def test_official_splits_that_tear_a_patient_are_refused_with_their_number() -> None:
    frame = patients(3, 3)
    official = ["train", "test", "test", "test", "train", "train", *["train", "test"] * 3]
    with pytest.raises(DataError, match=r"tear 4 of 6 patients apart; .* --split_file"):
        partition(frame, official, **DRAW)
    with pytest.raises(DataError, match=r"own split of 11 of 12 images is none of train, val, te"):
        partition(frame, ["train", *[""] * 11], **DRAW)


def test_merged_strata_are_said() -> None:
    frame = patients(12, 12, images=1).assign(vendor=[*["A"] * 11, "B"] * 2)
    found = partition(frame, [""] * 24, **DRAW, stratify_by=("label", "vendor"))
    assert len(found.notes) == 1
    assert found.notes[0].startswith("4 of 4 strata of label, vendor have fewer than 3 patients")
    large = partition(frame, [""] * 24, **DRAW)
    assert large.notes == []


def test_a_split_file_wins_and_what_it_does_not_fit_is_said() -> None:
    frame = patients(2, 2, images=1)
    index = pd.Index(["benign-0", "malignant-0", "malignant-1", "gone"], name="group_id")
    table = pd.DataFrame({"split": ["test", "val", "train", "val"], "fold": -1}, index=index)
    asked = {**DRAW, "assigned": table}
    with pytest.raises(DataError, match="no line for 1 of 4 patients"):
        partition(frame, ["train"] * 4, **asked)
    found = partition(frame, ["train"] * 4, **asked, new_patients="train")
    assert found.rows["split"].tolist() == ["test", "train", "val", "train"]
    assert found.missing["group_id"].tolist() == ["gone"]
    assert [note.partition(" patients")[0] for note in found.notes] == ["1 of 4", "1"]
    with pytest.raises(DataError, match="split_file has 0 folds and k_folds is 5"):
        partition(frame, [""] * 4, **{**asked, "k_folds": 5})


def releases(benign: int, malignant: int) -> list[Record]:
    """Patients in turns, each with a left and a right image; one breast of a patient is ill."""
    labels = ["benign"] * benign + ["malignant"] * malignant
    order = np.random.default_rng(1).permutation(len(labels))
    return [
        record(f"P{n}", f"P{n}{side}", labels[n] if side == "R" else "benign", laterality=side)
        for n in order
        for side in "LR"
    ]


@pytest.mark.parametrize(("limit", "malignant"), [(5, 1), (10, 2), (50, 10), (100, 20), (200, 20)])
def test_a_limit_keeps_class_shares_and_is_part_of_a_larger_one(limit: int, malignant: int) -> None:
    records = releases(80, 20)
    taken = take_patients(records, limit, 0, positive="malignant")
    ill = {each.patient for each in taken if each.label == "malignant"}
    assert len({each.patient for each in taken}) == min(limit, 100)
    assert len(taken) == 2 * min(limit, 100)
    assert len(ill) == malignant
    more = take_patients(records, limit + 7, 0, positive="malignant")
    assert {each.image for each in taken} <= {each.image for each in more}
    assert take_patients(records, 0, 0) is records


def test_a_limit_goes_by_the_order_of_the_release_and_not_by_ids() -> None:
    records = releases(30, 10)
    other = [record(f"X{each.patient[::-1]}", each.image, each.label) for each in records]
    one, two = (take_patients(each, 12, 3, positive="malignant") for each in (records, other))
    assert [each.image for each in one] == [each.image for each in two]
    again = take_patients(records, 12, 4, positive="malignant")
    assert [each.image for each in one] != [each.image for each in again]


def test_a_warm_up_has_every_positive_training_patient_and_three_others_for_each() -> None:
    frame = patients(40, 6).assign(fold=-1, split="train")
    frame.loc[frame["group_id"].isin(["malignant-5", "benign-39"]), "split"] = "val"
    frame.loc[frame["group_id"] == "malignant-0", "label"] = ["benign", "malignant"]
    asked: dict[str, Any] = {"negatives": 3, "positive": "malignant"}
    frame["warmup"] = warm_up(frame, **asked, seed=0)
    marked = frame[frame["warmup"]]
    assert not frame["warmup"][frame["split"] == "val"].any()
    assert marked.groupby("group_id").size().eq(2).all()  # whole patients
    assert (
        marked["group_id"].str.startswith("malignant").groupby(marked["group_id"]).any().sum() == 5
    )
    table = warm_up_table(frame, positive="malignant").set_index("part")
    assert table.loc["warmup"].to_dict() == {
        "patients": 20,
        "positive_patients": 5,
        "prevalence": 0.25,
        "images": 40,
        "positive_images": 9,
    }
    assert table.loc["training", "patients"] == 44
    assert table.loc["training", "prevalence"] == 5 / 44
    assert not warm_up(frame, **asked, seed=1).equals(frame["warmup"])


def test_a_warm_up_keeps_its_proportion_beside_every_fold() -> None:
    frame = patients(60, 10, images=1).assign(split="train")
    frame["fold"] = np.arange(len(frame)) % 5
    marked = frame[warm_up(frame, negatives=3, positive="malignant", seed=0)]
    for fold in range(5):
        mine = marked[marked["fold"] == fold]["label"].value_counts().to_dict()
        assert mine == {"benign": 6, "malignant": 2}


def test_few_negatives_are_all_in_the_warm_up(caplog: pytest.LogCaptureFixture) -> None:
    frame = patients(4, 3, images=1).assign(split="train", fold=-1)
    assert warm_up(frame, negatives=3, positive="malignant", seed=0).all()
    assert "9 negative patients requested, 4 available" in caplog.text


def test_groupings_are_told_apart_in_ids_and_in_the_fingerprint() -> None:
    names = Names(b"s" * 32, "release")
    left, right = (record("P1", f"P1{side}", "benign", laterality=side) for side in "LR")
    assert names.group(left) == names.group(right) == names.patient("P1")
    breasts = {names.group(each, "patient_laterality") for each in (left, right)}
    images = {names.group(each, "image") for each in (left, right)}
    assert len(breasts | images | {names.patient("P1")}) == 5
    found = {fingerprint(names.salt, by) for by in ("patient", "patient_laterality", "image")}
    assert len(found) == 3
    with pytest.raises(DataError, match="1 of 2 images have no laterality"):
        names.groups([left, record("P2", "P2", "benign")], "patient_laterality")
