"""INbreast: 410 full-field digital mammograms of 115 cases (Moreira et al. 2012).

A table (INbreast.csv), DICOM files and an XML file of outlines for the images that have some.
The table's Patient ID is removed; the patient is the hash in the name of the DICOM file,
22670301_98429c0bdf78c0c7_MG_L_CC_ANON.dcm. The acquisition date is never kept.
"""

import math
import plistlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from mammo.data.classes import TASKS, class_of_birads, class_of_density
from mammo.data.release import Record, Release
from mammo.data.sources import find_images, require_file
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError

OFFERS = (
    *("malignancy2_birads", "malignancy3_birads", "malignancy4_birads", "birads"),
    *("density4", "density2", "view"),
)
OPTIONS: tuple[str, ...] = ()
_NAME = re.compile(
    r"(?P<number>\d+)_(?P<patient>[0-9a-z]+)_MG_[LR]_[a-z]+(?:_ANON)?", re.IGNORECASE
)
_COLUMNS = ("Patient age", "Laterality", "View", "File Name", "ACR", "Bi-Rads")
_VIEWS = {"CC": "CC", "MLO": "MLO", "ML": "MLO"}  # ML is how the file names write MLO
_DENSITIES = {"1": "A", "2": "B", "3": "C", "4": "D"}
_POINT_PX = 2.0  # radius of the circle that stands for an outline of one or two points
Polygons = tuple[tuple[tuple[float, float], ...], ...]
Circles = tuple[tuple[float, float, float], ...]


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read INbreast.csv, AllDICOMs and AllXML, wherever below `folder` they lie.

    Malignancy is by BI-RADS, not proven: 1 and 2 are benign, 5 and 6 malignant; 3 and 4 are left
    out of malignancy2_birads, the larger tasks know them as probably_benign and suspicious.
    """
    kind = "INbreast.csv (a row for each image)"
    table = require_file(folder, "INbreast.csv", "a row for each image")
    rows = read_table(table, needs=_COLUMNS, keep=_COLUMNS, delimiter="", kind=kind)
    rows = [row for row in rows if row["File Name"].isdecimal()]  # notes stand below the table
    refuse_repeated(rows, "File Name", kind=kind)
    release = Release([], TASKS[task])
    files = _files(folder, release)
    outlines = {path.stem: path for path in sorted(folder.rglob("*.xml"))}
    for row in sorted(rows, key=lambda row: int(row["File Name"])):
        number = row["File Name"]
        if row["View"].upper() not in _VIEWS or row["Laterality"].upper() not in ("L", "R"):
            release.left_out["neither CC nor MLO"] += 1
        elif not (label := _label(task, row)):
            release.left_out[f"without a label of {task}"] += 1
        elif number not in files:
            release.rejected.append((number, "the file is missing"))
        else:
            patient, path = files[number]
            try:
                polygons, circles = _outlines(outlines.get(number))
            except DataError as error:
                release.rejected.append((number, str(error)))
                continue
            release.records.append(
                Record(
                    paths=(path,),
                    patient=patient,
                    image=number,
                    label=label,
                    laterality=row["Laterality"].upper(),
                    view=_VIEWS[row["View"].upper()],
                    birads=row["Bi-Rads"].upper(),
                    density=_DENSITIES.get(row["ACR"], ""),
                    age=float(row["Patient age"]) if row["Patient age"].isdecimal() else math.nan,
                    polygons=polygons,
                    circles=circles,
                )
            )
    return release


def _label(task: str, row: Mapping[str, str]) -> str:
    """Class of a row in `task`; empty where it has none."""
    if task == "view":
        return _VIEWS[row["View"].upper()]
    if task in ("density2", "density4"):
        return class_of_density(task, _DENSITIES.get(row["ACR"], ""))
    grade = row["Bi-Rads"]  # 1 to 6, 4 as 4a, 4b or 4c
    if task == "birads":
        return grade[:1] if grade[:1] in TASKS["birads"].names else ""
    return class_of_birads(task, grade)


def _files(folder: Path, release: Release) -> dict[str, tuple[str, Path]]:
    """Patient and path of each file by the number its name begins with; no copy before it."""
    files: dict[str, tuple[str, Path]] = {}
    copied = {path: path.suffix.lower() != ".dcm" for path in find_images(folder)}
    for path in sorted(copied, key=lambda path: (copied[path], path)):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            release.rejected.append((path.name, "its name tells no patient as INbreast's do"))
        else:
            files.setdefault(name["number"], (name["patient"].lower(), path))
    return files


def _outlines(path: Path | None) -> tuple[Polygons, Circles]:
    """Polygons and circles of an XML file (a property list); the pectoral muscle is no lesion."""
    if path is None:
        return (), ()
    try:
        with path.open("rb") as file:
            images = plistlib.load(file, fmt=plistlib.FMT_XML)["Images"]
        return _lesions([roi for image in images for roi in image["ROIs"]])
    except (plistlib.InvalidFileException, ExpatError, ValueError, TypeError, KeyError):
        raise DataError("its XML file of outlines is broken") from None
    except (AttributeError, IndexError, OverflowError):  # what a list of other things raises
        raise DataError("its XML file holds no outlines as INbreast's do") from None


def _lesions(rois: list[dict[str, Any]]) -> tuple[Polygons, Circles]:
    polygons: list[tuple[tuple[float, float], ...]] = []
    circles: list[tuple[float, float, float]] = []
    for roi in rois:
        if "pectoral" in str(roi.get("Name", "")).lower():
            continue
        corners = tuple(_point(text) for text in roi["Point_px"])
        if len(corners) > 2:
            polygons.append(corners)
        else:
            circles += [(x, y, _POINT_PX) for x, y in corners]
    return tuple(polygons), tuple(circles)


def _point(text: str) -> tuple[float, float]:
    """`(2165.290039, 973.840027)`: x to the right, y downwards, in pixels."""
    x, y = (float(number) for number in text.strip(" ()").split(","))
    return x, y
