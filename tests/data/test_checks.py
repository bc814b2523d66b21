"""Cheap checks: each planted fault is found under its name, and a sound manifest has none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import frame, real_rows

from mammo.data.checks import association, check_rows, cross_table

CLASSES = ("benign", "malignant")


def sound(patients: int = 40) -> pd.DataFrame:
    """Two images a patient, both classes from both vendors and in each split."""
    made = frame(real_rows({"benign": [2] * patients, "malignant": [2] * patients}))
    number = made["group_id"].str.split("-").str[1].astype(int)
    made["vendor"] = np.where(number % 2, "A", "B")
    made["split"] = np.array(["train", "val", "test"])[number % 3]
    made["sha256"] = made["image_id"]
    made["laterality"], made["view"] = "L", "CC"
    made["birads"], made["density"], made["age"] = "2", "B", 50.0
    made["pixel_mm"], made["exam_id"] = 0.1, made["group_id"]
    return made


def names(rows: pd.DataFrame) -> dict[str, str]:
    return {each.name: each.severity for each in check_rows(rows, CLASSES)}


def tear(rows: pd.DataFrame) -> None:
    rows.loc[0, "split"] = "test"
    rows.loc[1, "split"] = "train"


def tear_fold(rows: pd.DataFrame) -> None:
    rows["split"], rows["fold"] = "train", 0
    rows.loc[0, "fold"] = 1


def leave_one_class(rows: pd.DataFrame) -> None:
    rows["label"] = "benign"


def blank_a_class(rows: pd.DataFrame) -> None:
    rows.loc[rows["label"] == "benign", "sha256"] = "0"


def copy_to_another_patient(rows: pd.DataFrame) -> None:
    rows.loc[rows["group_id"] == "benign-6", "sha256"] = ["benign-3-0", "benign-3-1"]


def copy_to_another_label(rows: pd.DataFrame) -> None:
    rows.loc[rows["image_id"] == "malignant-0-0", "sha256"] = "benign-0-0"


def copy_to_another_split(rows: pd.DataFrame) -> None:
    rows.loc[rows["image_id"] == "benign-1-0", "sha256"] = "benign-0-0"


def label_by_vendor(rows: pd.DataFrame) -> None:
    rows["vendor"] = np.where(rows["label"] == "benign", "A", "B")


def label_by_geometry(rows: pd.DataFrame) -> None:
    rows["file_height"] = np.where(rows["label"] == "benign", 100, 200)
    rows["file_width"] = 100


def starve_a_split(rows: pd.DataFrame) -> None:
    rows.loc[(rows["split"] == "val") & (rows["label"] == "malignant"), "split"] = "train"


def keep_an_implant(rows: pd.DataFrame) -> None:
    rows.loc[3, "flags"] = "marked;implant"


def swap_a_wall(rows: pd.DataFrame) -> None:
    rows.loc[3, "flags"] = "wall_differs"


def contradict(rows: pd.DataFrame) -> None:
    rows.loc[rows["image_id"] == "benign-3-0", "label"] = "malignant"


FAULTS: list[tuple[Callable[[pd.DataFrame], None], str, str]] = [
    (tear, "patient in two splits", "fatal"),
    (tear_fold, "patient in two folds", "fatal"),
    (leave_one_class, "one class only", "fatal"),
    (blank_a_class, "class of one picture", "fatal"),
    (copy_to_another_patient, "copies across patients", "warning"),
    (copy_to_another_label, "copies with two labels", "warning"),
    (copy_to_another_split, "copies across splits", "warning"),
    (label_by_vendor, "class by vendor", "warning"),
    (label_by_vendor, "class of one vendor", "warning"),
    (label_by_geometry, "class by geometry", "warning"),
    (starve_a_split, "class missing in a split", "warning"),
    (keep_an_implant, "flag implant", "warning"),
    (keep_an_implant, "flag marked", "warning"),
    (swap_a_wall, "laterality in doubt", "note"),
    (contradict, "breast with two labels", "note"),
]


def test_a_sound_manifest_has_no_finding() -> None:
    assert check_rows(sound(), CLASSES) == []


@pytest.mark.parametrize(("spoil", "name", "severity"), FAULTS)
def test_a_planted_fault_is_found(
    spoil: Callable[[pd.DataFrame], None], name: str, severity: str
) -> None:
    rows = sound()
    spoil(rows)
    assert names(rows)[name] == severity


def test_the_images_of_a_finding_are_manifest_rows() -> None:
    rows = sound()
    synthetic = rows.iloc[:5].assign(is_synthetic=True, generator_run_id="run")
    keep_an_implant(rows)
    found = check_rows(pd.concat([synthetic, rows], ignore_index=True), CLASSES)
    (implant,) = [each for each in found if each.name == "flag implant"]
    assert "; add it to --exclude" in implant.text  # alone there it would let in the default ones
    assert implant.rows == ((8,),)


def test_fatal_findings_come_first_and_synthetic_rows_alone_have_none() -> None:
    rows = sound()
    keep_an_implant(rows)
    tear(rows)
    order = [each.severity for each in check_rows(rows, CLASSES)]
    assert order == sorted(order, key=["fatal", "warning", "note"].index)
    assert check_rows(rows.assign(is_synthetic=True), CLASSES) == []


def test_cramers_v_is_1_for_a_class_told_by_its_vendor_and_about_0_for_chance() -> None:
    told = pd.DataFrame({"A": [50, 0], "B": [0, 50]}, index=CLASSES)
    assert association(told)[0] == pytest.approx(1.0, abs=0.01)
    even = pd.DataFrame({"A": [25, 25], "B": [25, 25]}, index=CLASSES)
    assert association(even) == (0.0, 1.0)


def test_a_patient_counts_once_in_each_cell() -> None:
    rows = sound(patients=6)
    table = cross_table(pd.concat([rows, rows], ignore_index=True), "vendor")
    assert table.to_numpy().tolist() == [[3, 3], [3, 3]]


def test_many_file_sizes_are_no_confound() -> None:
    """A size of its own for nearly every image: cells of one would give chi-square a false p."""
    rows = sound(patients=100)
    sizes: Any = np.random.default_rng(0).integers(100, 400, len(rows))
    rows["file_height"] = rows["file_width"] = sizes
    assert not [name for name in names(rows) if "geometry" in name]


@pytest.mark.doors
def test_checks_of_half_a_million_rows_take_seconds() -> None:
    import time

    count = 500_000
    numbers = pd.Series(np.arange(count))
    rows = frame(real_rows({"benign": [1], "malignant": [1]}))
    big = rows.iloc[np.arange(count) % 2].reset_index(drop=True)
    for column in ("group_id", "image_id", "sha256"):
        big[column] = numbers.astype(str) if column != "group_id" else (numbers // 4).astype(str)
    big["label"] = np.where(numbers // 4 % 10, "benign", "malignant")
    big["laterality"] = "L"
    started = time.monotonic()
    check_rows(big, CLASSES)
    assert time.monotonic() - started < 30
