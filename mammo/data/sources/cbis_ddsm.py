"""CBIS-DDSM: digitised film mammograms as DICOM, with the release's peculiar headers.

Every image is a "patient" there: the patient, the side and the view are parsed from PatientID
(`Mass-Test_P_00173_LEFT_CC`, sometimes `P_00038_LEFT_CC.dcm`); the view also stands in
PatientOrientation. Crops and masks of abnormalities are further "patients", with a number at the
end (`Mass-Test_P_00173_LEFT_CC_1`), and their SeriesDescription does not tell which is which.
Copies in other formats are told by the same names in their paths, or by a table of the headers.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mammo.data.classes import TASKS, class_of_density
from mammo.data.pixels import is_dicom, read_header
from mammo.data.release import Record, Release
from mammo.data.sources import find_file, find_images
from mammo.data.tables import read_table, require_columns
from mammo.errors import DataError

OFFERS = ("malignancy2", "cbis_pathology3", "view", "density2", "density4", "birads")
OPTIONS: tuple[str, ...] = ()
CROP = "film"
_NAME = re.compile(
    r"(?:(?P<part>(?:Mass|Calc)-(?:Training|Test))_)?(?P<patient>P_\d{5})_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)"
    r"(?:_(?P<abnormality>\d+))?(?:\.dcm)?"
)
_TABLES = "*_case_description_*.csv"
_COLUMNS = (
    *("patient_id", "breast_density", "left_or_right_breast", "image_view", "assessment"),
    "pathology",
)
_FULL = "full mammogram images"
_TAGS = [
    *("PatientID", "PatientOrientation", "SeriesDescription", "StudyInstanceUID"),
    *("Rows", "Columns"),
]
_HEADERS = "dicom_info.csv"  # the tags of the DICOM files that the JPEG copies were made of
_CONVERTED = "labels.csv"  # of copies in PNG, one row an image
_PARTS = re.compile(r"mask|crop|roi", re.IGNORECASE)  # in a path: no mammogram
_GRAVITY = ("", "BENIGN_WITHOUT_CALLBACK", "BENIGN", "MALIGNANT")
Key = tuple[str, str, str]  # patient, LEFT or RIGHT, CC or MLO


@dataclass(frozen=True)
class Case:
    """What the tables say of one image, over all its abnormalities."""

    pathology: str  # of _GRAVITY
    density: str  # A to D
    birads: str  # the highest assessment


@dataclass(frozen=True)
class File:
    """One DICOM file as its header tells it."""

    path: Path
    part: str  # Mass-Training, Calc-Test, ...; empty in files with odd PatientIDs
    key: Key
    abnormality: str  # its number; empty for a whole mammogram
    exam: str
    shape: tuple[int, int]  # rows, columns
    copied: bool  # in another format, perhaps smaller and of fewer greys


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the full mammograms below `folder`.

    Labels and splits come from the case description CSVs found there (an image is as grave as its
    gravest abnormality); without them malignancy comes from the names of the folders. A patient of
    the tables' training and test part, as 28 of the release are, is test with all images.
    """
    cases, splits = _tables(folder)
    release = Release([], TASKS[task])
    films, abnormalities = _files(folder, release)
    maskless = 0
    for key, film in sorted(films.items()):
        pathology = cases[key].pathology if key in cases else _from_folder(film, folder)
        label = _label(task, film, pathology, cases.get(key))
        if label not in release.classes.names:
            release.left_out[f"without a label of {task}"] += 1
            continue
        masks, without = _masks(film, abnormalities.get(key, []))
        maskless += without
        release.records.append(_record(film, label, cases.get(key), masks, splits))
    both = patients_in_two_splits(splits)
    if both:
        release.notes["official_split"] = (
            f"{len(both)} patients are in training and test of the tables; "
            "all their images are test"
        )
    if maskless:
        release.notes["masks"] = f"{maskless} abnormalities have no mask of their image's size"
    return release


def patients_in_two_splits(splits: Mapping[str, Set[str]]) -> list[str]:
    """Patients whom the tables put into training and test, sorted.

    Their masses are in the one part and their calcifications in the other.
    """
    return sorted(patient for patient, found in splits.items() if len(found) > 1)


def _record(
    film: File,
    label: str,
    case: Case | None,
    masks: tuple[Path, ...],
    splits: Mapping[str, Set[str]],
) -> Record:
    patient, side, view = film.key
    split = splits.get(patient, frozenset())
    return Record(
        paths=(film.path,),
        patient=patient,
        exam=film.exam,
        image="_".join(film.key),
        label=label,
        laterality=side[0],
        view=view,
        birads=case.birads if case else "",
        density=case.density if case else "",
        subset=film.part,
        masks=masks,
        split="test" if "test" in split else "train" if split else "",
    )


def _label(task: str, film: File, pathology: str, case: Case | None) -> str:
    if task == "view":
        return film.key[2]
    if task == "malignancy2":
        return {"MALIGNANT": "malignant", "": ""}.get(pathology, "benign")
    if task == "cbis_pathology3":
        return pathology.lower()
    if case is None:
        return ""
    return case.birads if task == "birads" else class_of_density(task, case.density)


def _from_folder(film: File, folder: Path) -> str:
    names = " ".join(film.path.relative_to(folder).parts[:-1]).lower()
    return "MALIGNANT" if "malig" in names else "BENIGN" if "benign" in names else ""


def _files(folder: Path, release: Release) -> tuple[dict[Key, File], dict[Key, list[File]]]:
    """Whole mammograms by patient, side and view; crops and masks of abnormalities by the same."""
    films: dict[Key, File] = {}
    abnormalities: dict[Key, list[File]] = {}
    headers = _headers(folder)
    for path in find_images(folder):
        try:
            file = _identify(path, folder, headers)
        except DataError as error:
            release.rejected.append((str(path.relative_to(folder)), str(error)))
            continue
        if file is None:
            continue
        if file.abnormality:
            abnormalities.setdefault(file.key, []).append(file)
        elif file.key in films:  # the mass and the calcification part share some images
            release.left_out["there twice"] += 1
            if films[file.key].copied and not file.copied:
                films[file.key] = file
        else:
            films[file.key] = file
    return films, abnormalities


def _headers(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Tags of the files that copies were made of, by the copy's folder (its series) and name."""
    table = find_file(folder, _HEADERS)
    if table is None:
        return {}
    needs = ("image_path", "PatientID", "SeriesDescription")
    rows = read_table(table, needs=needs, keep=("image_path", *_TAGS), kind=_HEADERS)
    places = [PurePosixPath(row["image_path"].replace("\\", "/")) for row in rows]
    return {(at.parent.name, at.stem): row for at, row in zip(places, rows, strict=True)}


def _identify(
    path: Path, folder: Path, headers: Mapping[tuple[str, str], Mapping[str, str]]
) -> File | None:
    """What header and path tell; None when the file is no part of the release."""
    header: Any
    if is_dicom(path):
        header = read_header(path, _TAGS)
        shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
    else:
        header, shape = headers.get((path.parent.name, path.stem), {}), _shape(path)
    series = str(header.get("SeriesDescription") or "")  # odd PatientIDs have none
    places = path.relative_to(folder).parts
    names = (str(header.get("PatientID") or ""), path.stem, *places[-2::-1])
    name = next(filter(None, map(_NAME.fullmatch, names)), None)
    if name is None:
        if series not in (_FULL, "") or not is_dicom(path):
            return None
        raise DataError("its PatientID does not name patient, side and view as CBIS-DDSM does")
    told = str(header.get("PatientOrientation") or "")
    view = told if told in ("CC", "MLO") else name["view"]
    if series not in (_FULL, "") and not name["abnormality"]:
        return None
    if not series and not name["abnormality"] and _PARTS.search("/".join(places)):
        return None
    return File(
        path=path,
        part=name["part"] or "",
        key=(name["patient"], name["side"], view),
        abnormality="" if series == _FULL else name["abnormality"] or "",
        exam=str(header.get("StudyInstanceUID") or ""),
        shape=shape,
        copied=not is_dicom(path),
    )


def _shape(path: Path) -> tuple[int, int]:
    """Rows and columns of a copy; none where it cannot be read, which its decoder will tell."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError):
        return 0, 0


def _masks(film: File, files: Sequence[File]) -> tuple[tuple[Path, ...], int]:
    """Masks of `film` among `files`, and how many abnormalities have none.

    An abnormality has a crop and a mask; series and file names of the release mix them up, but
    only the mask is as large as the mammogram.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        fitting = found.setdefault((file.part, file.abnormality), [])
        if file.shape == film.shape:
            fitting.append(file.path)
    masks = sorted(path for paths in found.values() for path in paths)
    return tuple(masks), sum(not paths for paths in found.values())


def _tables(folder: Path) -> tuple[dict[Key, Case], dict[str, set[str]]]:
    """Cases by image and splits by patient, of all tables; both spellings of headers are read."""
    cases = _converted(folder / _CONVERTED)
    splits: dict[str, set[str]] = {}
    for table in sorted(folder.rglob(_TABLES)):
        kind = "case description (a row for each abnormality)"
        split = "test" if "_test" in table.stem.lower() else "train"
        spelled = read_table(table, needs=(), kind=kind)
        rows = [{name.replace(" ", "_"): value for name, value in row.items()} for row in spelled]
        for row in rows:
            require_columns(tuple(row), _COLUMNS, kind=kind)
            key = (row["patient_id"], row["left_or_right_breast"], row["image_view"])
            case = _case(row)
            known = cases.get(key, case)
            cases[key] = Case(
                max(known.pathology, case.pathology, key=_GRAVITY.index),
                known.density or case.density,
                max(known.birads, case.birads),
            )
            splits.setdefault(row["patient_id"], set()).add(split)
    return cases, splits


def _converted(table: Path) -> dict[Key, Case]:
    """Cases of the table beside converted copies, whose labels are those of their patients."""
    rows = read_table(table, needs=(), kind=_CONVERTED) if table.is_file() else []
    cases = {}
    for row in rows:
        name = _NAME.fullmatch(row.get("image_id", ""))
        pathology = row.get("case_label", "").upper()
        if name and pathology in _GRAVITY:
            cases[name["patient"], name["side"], name["view"]] = Case(pathology, "", "")
    return cases


def _case(row: Mapping[str, str]) -> Case:
    pathology = row["pathology"].upper()
    return Case(
        pathology if pathology in _GRAVITY else "",
        {"1": "A", "2": "B", "3": "C", "4": "D"}.get(row["breast_density"], ""),
        row["assessment"],
    )
