"""RSNA Screening Mammography Breast Cancer Detection (2022): a table and DICOM or PNG files.

Both layouts are read: the challenge's own, and `images_as_pngs_512` beside a `train.csv` that may
have no more than four columns.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from mammo.data.classes import TASKS, class_of_density
from mammo.data.disclosure import number, sayable
from mammo.data.release import Record, Release
from mammo.data.sources import Files, Inside, require_file
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError

OFFERS = ("malignancy2", "density2", "density4", "view")
OPTIONS: tuple[str, ...] = ()
_TABLE = "train.csv"
_NEEDS = ("patient_id", "image_id", "laterality", "cancer")
# biopsy, invasive and difficult_negative_case follow from the label and are never taken
_KEEP = (*_NEEDS, "site_id", "view", "age", "BIRADS", "implant", "density", "machine_id")
_CANCER = {"0": "benign", "1": "malignant"}
_NOTES = {
    "labels": "malignant: cancer in this breast, proven by pathology; benign: none found, which "
    "takes in normal breasts",
}


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read train.csv and its images; views other than CC and MLO are left out.

    A picture is named by patient and image (10006/462822612 or 10006_462822612), or by image, and
    may lie anywhere below `folder`.
    """
    table = require_file(folder, _TABLE, "a row for each image")
    root = "train_images/" if (table.parent / "train_images").is_dir() else ""
    inside, files = Inside(table.parent), Files(folder)
    release = Release([], TASKS[task], notes=dict(_NOTES))
    rows = read_table(table, needs=_NEEDS, keep=_KEEP, kind=_TABLE, number_as="row")
    refuse_repeated(rows, "image_id", kind=_TABLE)
    for row in rows:
        reason = _left_out(row, task)
        if reason:
            release.left_out[reason] += 1
            continue
        patient, image = row["patient_id"], row["image_id"]
        name = f"{root}{patient}/{image}.dcm"
        usual = inside.path(name, _TABLE)
        try:
            path = files.find(f"{patient}/{image}", f"{patient}_{image}", image, at=usual)
        except DataError as error:
            release.rejected.append((name, str(error)))
        else:
            release.records.append(_record(path, row, task))
    return release


def _left_out(row: Mapping[str, str], task: str) -> str:
    """Why a row is no part of the task; empty when it is."""
    if row["cancer"] not in _CANCER:
        raise DataError(
            f"{_TABLE} has cancer {sayable(row['cancer'])} in row {row['row']}; 0 or 1 is needed"
        )
    if row.get("view", "CC") not in ("CC", "MLO"):
        return "of a view other than CC and MLO"
    return "" if _label(row, task) else f"without a class of {task}"


def _label(row: Mapping[str, str], task: str) -> str:
    if task == "malignancy2":
        return _CANCER[row["cancer"]]
    return row.get("view", "") if task == "view" else class_of_density(task, row.get("density", ""))


def _record(path: Path, row: Mapping[str, str], task: str) -> Record:
    site, machine = row.get("site_id", ""), row.get("machine_id", "")
    birads = number(row.get("BIRADS", ""))  # 0, 1 or 2, as 1.0
    return Record(
        paths=(path,),
        patient=row["patient_id"],
        exam=row["patient_id"],  # one examination a patient
        image=f"{row['patient_id']}_{row['image_id']}",
        label=_label(row, task),
        laterality=row["laterality"] if row["laterality"] in ("L", "R") else "",
        view=row.get("view", ""),
        birads="" if math.isnan(birads) else f"{birads:g}",
        density=class_of_density("density4", row.get("density", "")),
        age=number(row.get("age", "")),
        vendor=f"machine {machine}" if machine.isdecimal() else "",
        subset=f"site {site}" if site.isdecimal() else "",
        flags=("implant",) if number(row.get("implant", "")) == 1 else (),
    )
