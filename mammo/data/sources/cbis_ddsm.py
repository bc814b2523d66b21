"""CBIS-DDSM: digitised film mammograms as DICOM, with the release's peculiar headers.

Every image is a "patient" there: the patient, the side and the view are parsed from PatientID
(`Mass-Test_P_00173_LEFT_CC`), the view also stands in PatientOrientation.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mammo.data.classes import TASKS, ClassMap
from mammo.data.pixels import is_dicom, read_header
from mammo.data.release import Record, Release
from mammo.data.sources import find_images
from mammo.errors import DataError

OFFERS = ("malignancy2", "view", "density2", "density4", "birads")
OPTIONS: tuple[str, ...] = ()
CROP = "film"
_NAME = re.compile(r"(?:(\w+-\w+)_)?(P_\d{5})_(LEFT|RIGHT)_(CC|MLO)")
_TABLES = "*_case_description_*.csv"
_FULL = "full mammogram images"  # the rest are crops and masks
_TAGS = ["PatientID", "PatientOrientation", "SeriesDescription", "StudyInstanceUID"]
Key = tuple[str, str, str]  # patient, LEFT or RIGHT, CC or MLO


@dataclass(frozen=True)
class Case:
    """What the tables say of one image, over all its abnormalities."""

    malignant: bool
    density: str  # 1 to 4
    birads: str  # the highest assessment


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the full mammograms below `folder`.

    Labels come from the case description CSVs found there (an image is malignant if any of its
    abnormalities is); without them malignancy comes from the names of the folders.
    """
    cases = _cases(folder)
    classes = TASKS[task]
    release = Release([], classes)
    seen: set[Key] = set()
    left_out = repeated = 0
    for path in find_images(folder):
        try:
            found = _identify(path)
        except DataError as error:
            release.rejected.append((str(path.relative_to(folder)), str(error)))
            continue
        if found is None:
            continue
        subset, key, exam = found
        if key in seen:  # the mass and the calcification part share some images
            repeated += 1
            continue
        seen.add(key)
        record = _record(path, folder, subset, key, exam, cases.get(key), classes)
        if record.label:
            release.records.append(record)
        else:
            left_out += 1
    if left_out or repeated:
        release.notes["left_out"] = (
            f"{left_out} images have no label of {task}, {repeated} are there twice"
        )
    return release


def _identify(path: Path) -> tuple[str, Key, str] | None:
    """Subset, patient, side, view and study of a file; None when it is no full mammogram."""
    if not is_dicom(path):
        return None
    header = read_header(path, _TAGS)
    if header.get("SeriesDescription", _FULL) != _FULL:
        return None
    match = _NAME.search(str(header.get("PatientID", "")))
    if match is None:
        raise DataError("its PatientID does not name patient, side and view as CBIS-DDSM does")
    subset, patient, side, view = match.groups()
    told = str(header.get("PatientOrientation") or "")
    view = told if told in ("CC", "MLO") else view
    return subset or "", (patient, side, view), str(header.get("StudyInstanceUID", ""))


def _record(
    path: Path,
    folder: Path,
    subset: str,
    key: Key,
    exam: str,
    case: Case | None,
    classes: ClassMap,
) -> Record:
    patient, side, view = key
    density = {"1": "A", "2": "B", "3": "C", "4": "D"}.get(case.density, "") if case else ""
    if case:
        malignancy = "malignant" if case.malignant else "benign"
    else:
        malignancy = _from_folder(path.relative_to(folder))
    labels = {
        "malignancy2": malignancy,
        "view": view,
        "density4": density,
        "density2": {"A": "not_dense", "B": "not_dense", "C": "dense", "D": "dense"}.get(density),
        "birads": case.birads if case else "",
    }
    label = labels[classes.task] or ""
    return Record(
        paths=(path,),
        patient=patient,
        exam=exam,
        image="_".join(key),
        label=label if label in classes.names else "",
        laterality=side[0],
        view=view,
        birads=case.birads if case else "",
        density=density,
        subset=subset,
    )


def _from_folder(path: Path) -> str:
    names = " ".join(path.parts[:-1]).lower()
    return "malignant" if "malig" in names else "benign" if "benign" in names else ""


def _cases(folder: Path) -> dict[Key, Case]:
    """The case description tables, joined; both spellings of their headers are read."""
    cases: dict[Key, Case] = {}
    for table in sorted(folder.rglob(_TABLES)):
        with table.open(newline="") as file:
            for spelled in csv.DictReader(file):
                row = {name.replace(" ", "_"): value.strip() for name, value in spelled.items()}
                key = (row["patient_id"], row["left_or_right_breast"], row["image_view"])
                case = Case(
                    row["pathology"] == "MALIGNANT", row["breast_density"], row["assessment"]
                )
                known = cases.get(key, case)
                cases[key] = Case(
                    known.malignant or case.malignant,
                    known.density,
                    max(known.birads, case.birads),
                )
    return cases
