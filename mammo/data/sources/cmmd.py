"""CMMD: digital mammograms of 1,775 patients as DICOM, labelled breast by breast (Cui et al. 2021).

The table has a row for each labelled breast. The other breast, which part D2 alone pictures, has
no label and never takes its neighbour's; 30 patients have one benign and one malignant breast.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammo.data.classes import TASKS
from mammo.data.disclosure import number, sayable
from mammo.data.pixels import is_dicom, read_header
from mammo.data.release import Record, Release
from mammo.data.sources import find_file, find_images
from mammo.data.tables import read_table
from mammo.errors import DataError

OFFERS = ("malignancy2", "cmmd_subtype4", "view")
OPTIONS: tuple[str, ...] = ()
_TABLE = "CMMD_clinicaldata_revision"
_NEEDS = ("ID1", "LeftRight", "Age", "abnormality", "classification", "subtype")
_TAGS = [
    *("PatientID", "StudyInstanceUID", "SOPInstanceUID", "ImageLaterality", "Laterality"),
    *("ViewCodeSequence", "ViewPosition"),
]
_PATIENT = re.compile(r"(D[12])-\d{4}")
_VIEWS = {  # letters and digits of CodeMeaning, else of CodeValue (SNOMED RT and CT)
    **dict.fromkeys(("craniocaudal", "r10242", "399162004"), "CC"),
    **dict.fromkeys(("mediolateraloblique", "r10226", "399368009"), "MLO"),
}
_SUBTYPES = {
    "luminala": "luminal_a",
    "luminalb": "luminal_b",
    "her2enriched": "her2",
    "triplenegative": "triple_negative",
}
_LESIONS = ("mass", "calcification", "both")
_NOTES = {
    "intensity": "the headers ask for SIGMOID 128/256, a placeholder that changes the contrast of "
    "8-bit pictures; --intensity none takes them as stored",
    "subsets": "D1 and D2 are two collections, D2 is 98 % malignant and has all four-view "
    "examinations: compare within one of them (--subset D1)",
}


@dataclass(frozen=True)
class Breast:
    """What the table says of one breast."""

    malignancy: str  # benign, malignant; empty where two rows contradict each other
    subtype: str
    lesion: str  # mass, calcification or both
    age: float


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the DICOM files below `folder`; labels are joined by patient and side."""
    breasts = _breasts(_table(folder))
    release = Release([], TASKS[task], notes=dict(_NOTES))
    seen: set[str] = set()
    for path in find_images(folder):
        try:
            if not is_dicom(path):
                continue
            record, reason = _record(path, folder, breasts, task)
        except DataError as error:
            release.rejected.append((str(path.relative_to(folder)), str(error)))
            continue
        if record.image in seen:
            reason = "twice in the folder"
        seen.add(record.image)
        if reason:
            release.left_out[reason] += 1
        else:
            release.records.append(record)
    return release


def _record(
    path: Path, folder: Path, breasts: Mapping[tuple[str, str], Breast], task: str
) -> tuple[Record, str]:
    """The record of a file, and why it is no part of the task (empty: it is)."""
    header = read_header(path, _TAGS)
    # a download has a folder for each patient; a header that was cleaned once more names none
    names = (str(header.get("PatientID") or "").strip(), *path.relative_to(folder).parts[-2::-1])
    match = next(filter(None, map(_PATIENT.fullmatch, names)), None)
    if match is None:
        raise DataError("its PatientID is none of CMMD, which are like D1-0001")
    patient = match.group()
    told, view = str(header.get("ImageLaterality") or header.get("Laterality") or ""), _view(header)
    side = told if told in ("L", "R") else ""
    breast = breasts.get((patient, side))
    label, reason = {
        "malignancy2": (breast.malignancy if breast else "", "of a breast with two labels"),
        "cmmd_subtype4": (breast.subtype if breast else "", "of a breast without a subtype"),
        "view": (view, "of no view CC or MLO"),
    }[task]
    if task != "view" and breast is None:
        reason = "of a breast that the table does not label"
    record = Record(
        paths=(path,),
        patient=patient,
        exam=str(header.get("StudyInstanceUID") or ""),
        image=str(header.get("SOPInstanceUID") or path.relative_to(folder)),
        label=label,
        laterality=side,
        view=view,
        age=breast.age if breast else math.nan,
        subset=match.group(1),
        extra={"lesion": breast.lesion if breast else ""},
    )
    return record, "" if label else reason


def _view(header: Any) -> str:
    for code in header.get("ViewCodeSequence") or []:
        for told in (code.get("CodeMeaning"), code.get("CodeValue")):
            if _letters(str(told or "")) in _VIEWS:
                return _VIEWS[_letters(str(told))]
    told = str(header.get("ViewPosition") or "")
    return told if told in TASKS["view"].names else ""


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _table(folder: Path) -> Path:
    """The table as released (xlsx) or else as CSV, anywhere below `folder`."""
    found = find_file(folder, f"{_TABLE}*.xlsx", f"{_TABLE}*.csv")
    if found is None:
        raise DataError(
            f"{folder} has no {_TABLE}.xlsx (the labels); it is not among the DICOM files, "
            "download it from the page of the collection and put it there"
        )
    return found


def _breasts(table: Path) -> dict[tuple[str, str], Breast]:
    """What is known of each (patient, side)."""
    breasts: dict[tuple[str, str], Breast] = {}
    for row in read_table(table, needs=_NEEDS, delimiter="", kind=_TABLE):
        key = (row["ID1"], row["LeftRight"].upper()[:1])
        found = Breast(
            malignancy=row["classification"].lower(),
            subtype=_SUBTYPES.get(_letters(row["subtype"]), ""),
            lesion=row["abnormality"] if row["abnormality"] in _LESIONS else "",
            age=number(row["Age"]),
        )
        if found.malignancy not in TASKS["malignancy2"].names:
            raise DataError(
                f"{_TABLE} has the classification {sayable(row['classification'])}; "
                "Benign or Malignant is expected"
            )
        known = breasts.setdefault(key, found)
        if known.malignancy != found.malignancy:
            breasts[key] = Breast("", "", known.lesion, known.age)
    return breasts
