"""EMBED: the Emory Breast Imaging Dataset, its open fifth (Jeong et al. 2023), 2D and C-view.

One table has a row a finding, the other a row a file. A finding belongs to the files of its own
examination and its own breast; one without a side (or with `B`) to both breasts. An image's label
is that of the worst finding of its breast, so no file is there twice.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mammo.data.classes import TASKS, class_of_birads, class_of_density
from mammo.data.disclosure import number
from mammo.data.release import Record, Release
from mammo.data.sources import Files, Inside, find_file, stem_of
from mammo.data.tables import read_table
from mammo.errors import DataError

OFFERS = (
    "malignancy2",
    "malignancy2_birads",
    "malignancy3_birads",
    "malignancy4_birads",
    "birads",
    "density2",
    "density4",
    "view",
)
OPTIONS: tuple[str, ...] = ()
_CLINICAL, _METADATA = "EMBED_OpenData_clinical", "EMBED_OpenData_metadata"
_FINDING = ("acc_anon", "side", "asses")
# Race and ethnic group by README.md of github.com/Emory-HITI/EMBED_Open_Data (commit 3b0ce4c); its
# Sample_Notebook.ipynb (10091c2) reads a table that has the race under ETHNICITY_DESC instead.
_PERSON = ("RACE_DESC", "ETHNICITY_DESC", "ETHNIC_GROUP_DESC")
_FINDING_MORE = ("path_severity", "tissueden", "bside", "age_at_study", *_PERSON)
_NEEDED_BY = {
    "malignancy2": "path_severity", "density2": "tissueden", "density4": "tissueden",
}  # fmt: skip
_FILE = ("empi_anon", "acc_anon", "ImageLateralityFinal", "ViewPosition", "FinalImageType")
_PATHS = ("anon_dicom_path", "png_path", "png_filename")  # of copies, where they were made
_MODIFIER = "0_ViewCodeSequence_0_ViewModifierCodeSequence_CodeMeaning"
_FILE_MORE = ("spot_mag", "ROI_coords", "BreastImplantPresent", "Manufacturer", _MODIFIER)
_KINDS = ("2d", "cview")  # of FinalImageType; the rest are screenshots and tomosynthesis
_WORST = "KMSAPBN"  # letters of `asses`, gravest first; A (incomplete) hides what may be grave
_BIRADS = {"A": "0", "N": "1", "B": "2", "P": "3", "S": "4", "M": "5", "K": "6"}
_DENSITY = {"1": "A", "2": "B", "3": "C", "4": "D"}
_MALE = "5"
# path_severity: 0 invasive, 1 in situ, 2 high-risk, 3 borderline, 4 benign, 5 negative, 6 a cancer
# that is not of the breast; gravest first
_PATHOLOGY = ("0", "1", "6", "2", "3", "4", "5")
_PROVEN = {"0": "malignant", "1": "malignant", "4": "benign", "5": "benign"}
# What the columns of _PERSON say, which holds whichever of them says it, as "African American  or
# Black" (two blanks) or "Native Hawaiian or Other Pacific Islander": word -> race
_RACES = {
    "american indian": "American Indian",
    "pacific islander": "Pacific Islander",
    "asian": "Asian",
    "black": "Black",
    "white": "White",
    "multiple": "multiple",
}
_MODIFIERS = {
    "spot compression": "spot",
    "magnification": "magnification",
    "implant displaced": "implant",
}
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Finding:
    """What a row of the clinical table says, its numbers without `.0`."""

    side: str  # L or R; empty for both
    pathology_side: str  # of the specimen; empty where not told
    birads: str  # a letter of _WORST
    pathology: str  # path_severity
    density: str  # tissueden
    age: float
    person: Mapping[str, str] = field(default_factory=dict)  # race, ethnicity, if it has columns


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the two tables (in tables/ or `folder`) and the DICOM files below images/.

    A file elsewhere, or a copy of it, is found by patient, examination and name, and by its name
    alone where the table has no other file of that name.
    """
    findings = _findings(_table(folder, _CLINICAL), task)
    asked = {name for exam in findings.values() for each in exam for name in each.person}
    unknown = dict.fromkeys(sorted(asked), "")
    inside, files = Inside(folder), Files(folder)
    root = "images/" if (folder / "images").is_dir() else ""
    release = Release(
        [],
        TASKS[task],
        notes={
            "labels": "gravest finding of the breast; path_severity counts where it is recorded"
        },
    )
    seen: set[str] = set()
    table = _table(folder, _METADATA)
    columns = (*_FILE, *_PATHS, *_FILE_MORE)
    rows = read_table(table, needs=_FILE, keep=columns, kind=_METADATA)
    names = [_below_images(row) for row in rows]
    bare = Counter(name.rpartition("/")[2] for name in set(names))
    for row, name in zip(rows, names, strict=True):
        exam = findings.get(_whole(row["acc_anon"]), [])
        label, reason = _label(row, exam, task)
        if name in seen:
            reason = "twice in the table"
        seen.add(name)
        if reason:
            release.left_out[reason] += 1
            continue
        usual = inside.path(root + name, _METADATA)
        parts = stem_of(name).split("/")
        lengths = (3, 1) if bare[usual.name] == 1 else (3,)
        try:
            path = files.find(*("/".join(parts[-length:]) for length in lengths), at=usual)
            record = _record(path, name, row, exam, label)
            record = replace(record, extra=exam[0].person if exam else unknown)
        except DataError as error:
            release.rejected.append((name, str(error)))
            continue
        release.records.append(record)
    return release


def _label(row: Mapping[str, str], exam: Sequence[Finding], task: str) -> tuple[str, str]:
    """Class of a file by the findings of its `exam`, and why it has none (empty: it has)."""
    side = row["ImageLateralityFinal"]
    if row["ViewPosition"] not in TASKS["view"].names:
        return "", "of a view other than CC and MLO"
    if _kind(row) not in _KINDS:
        return "", "neither 2D nor C-view"
    if side not in ("L", "R"):
        return "", "without a side"
    if any(finding.density == _MALE for finding in exam):
        return "", "of a man"
    if task == "view":
        label = row["ViewPosition"]
    elif task.startswith("density"):
        label = class_of_density(task, _density(exam))
    elif task == "birads":
        label = _birads(exam, side).removeprefix("0")  # an assessment not yet finished
    elif not _of_breast(exam, side):
        return "", "of a breast without a finding in the clinical table"
    elif task == "malignancy2":
        label = _PROVEN.get(_pathology(exam, side), "")
    else:
        label = class_of_birads(task, _birads(exam, side))
    return label, "" if label else f"without a class of {task}"


def _record(
    path: Path, name: str, row: Mapping[str, str], exam: Sequence[Finding], label: str
) -> Record:
    return Record(
        paths=(path,),
        patient=_whole(row["empi_anon"]),
        exam=_whole(row["acc_anon"]),
        image=name,
        label=label,
        laterality=row["ImageLateralityFinal"],
        view=row["ViewPosition"],
        birads=_birads(exam, row["ImageLateralityFinal"]),
        density=_density(exam),
        age=exam[0].age if exam else math.nan,
        vendor=row.get("Manufacturer", ""),
        subset=_kind(row),
        boxes=_boxes(row.get("ROI_coords", "")),
        flags=_flags(row),
    )


def _flags(row: Mapping[str, str]) -> tuple[str, ...]:
    """What kind of special view a file is; spot_mag alone does not say which of the two."""
    told = _MODIFIERS.get(row.get(_MODIFIER, "").lower(), "")
    flags = {told} if told else set()
    if not told and number(row.get("spot_mag", "")) == 1:
        flags = {"magnification", "spot"}
    if row.get("BreastImplantPresent", "").upper() == "YES":
        flags.add("implant")
    return tuple(sorted(flags))


def _kind(row: Mapping[str, str]) -> str:
    return row["FinalImageType"].lower().replace("-", "")


def _of_breast(findings: Sequence[Finding], side: str) -> list[Finding]:
    """Those of `findings` (of one examination) that are about the breast of `side`."""
    return [finding for finding in findings if finding.side in ("", side)]


def _birads(exam: Sequence[Finding], side: str) -> str:
    """The gravest assessment of the breast of `side`, 0 to 6; empty when there is none."""
    told = {finding.birads for finding in _of_breast(exam, side)}
    return next((_BIRADS[letter] for letter in _WORST if letter in told), "")


def _density(exam: Sequence[Finding]) -> str:
    return next((_DENSITY[each.density] for each in exam if each.density in _DENSITY), "")


def _pathology(exam: Sequence[Finding], side: str) -> str:
    """The gravest path_severity of the breast of `side`; empty when there is none.

    A specimen of the other breast, in a row that is about both, says nothing of this one. Known
    cancer (BI-RADS 6) whose specimen is not recorded counts as cancer, as the release advises.
    """
    told = {
        finding.pathology or ("0" if finding.birads == "K" else "")
        for finding in _of_breast(exam, side)
        if finding.pathology_side in ("", "B", side)
    }
    return next((severity for severity in _PATHOLOGY if severity in told), "")


def _boxes(text: str) -> tuple[Box, ...]:
    """Boxes (x0, y0, x1, y1) of ROI_coords, a list of (ymin, xmin, ymax, xmax) in file pixels."""
    if text.lower() == "nan":  # as a table with gaps may be written
        return ()
    if re.search(r"[^\d\s.,()\[\]-]", text):
        raise DataError("its ROI_coords hold more than numbers")
    values = [float(found) for found in re.findall(r"-?\d+(?:\.\d*)?", text)]
    if len(values) % 4:
        raise DataError(f"its ROI_coords hold {len(values)} numbers, no multiple of 4")
    return tuple(
        (values[at + 1], values[at], values[at + 3], values[at + 2])
        for at in range(0, len(values), 4)
    )


def _below_images(row: Mapping[str, str]) -> str:
    """`cohort_1/…/x.dcm` of a path that starts wherever the release was made, else all of it."""
    path = next((row[name] for name in _PATHS if row.get(name)), "")
    parts = PurePosixPath(path.replace("\\", "/").lstrip("/")).parts
    if not parts:
        raise DataError(f"{_METADATA} has no path of a file in {_PATHS[0]}")
    start = next((at for at, part in enumerate(parts) if part.startswith("cohort_")), 0)
    return "/".join(parts[start:])


def _table(folder: Path, name: str) -> Path:
    """The full table rather than the reduced one, which lacks ROIs and implants."""
    found = find_file(folder, f"{name}.csv", f"{name}_reduced.csv")
    if found is None:
        raise DataError(f"{folder} has no tables/{name}.csv; is it the folder of the release?")
    return found


def _findings(table: Path, task: str) -> dict[str, list[Finding]]:
    """Findings of each examination."""
    needs = (*_FINDING, *filter(None, [_NEEDED_BY.get(task)]))
    findings: defaultdict[str, list[Finding]] = defaultdict(list)
    for row in read_table(table, needs=needs, keep=(*_FINDING, *_FINDING_MORE), kind=_CLINICAL):
        findings[_whole(row["acc_anon"])].append(
            Finding(
                side=row["side"] if row["side"] in ("L", "R") else "",
                pathology_side=row.get("bside", ""),
                birads=row["asses"],
                pathology=_whole(row.get("path_severity", "")),
                density=_whole(row.get("tissueden", "")),
                age=number(row.get("age_at_study", "")),
                person=_person(row),
            )
        )
    return dict(findings)


def _person(row: Mapping[str, str]) -> dict[str, str]:
    """Race and ethnicity in words of this file, so that no other text of the table is kept."""
    if not any(name in row for name in _PERSON):
        return {}
    said = " ".join(row.get(name, "") for name in _PERSON).lower()
    # whole words: Caucasian ends in another one
    race = next((_RACES[word] for word in _RACES if re.search(rf"\b{word}\b", said)), "")
    other = re.search(r"\bno[nt][ -]hispanic", said)
    ethnicity = "Hispanic" if "hispanic" in said else ""
    return {"race": race, "ethnicity": f"not {ethnicity}" if other else ethnicity}


def _whole(text: str) -> str:
    """A whole number, which a table with gaps writes as `4.0`."""
    return text.removesuffix(".0")
