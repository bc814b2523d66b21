"""CSAW-CC: screening mammograms of 8,723 women of Stockholm, 873 with cancer (Dembrower 2020).

One row an image. What is known of the cancer stands in every row of its patient: an image shows it
only on the cancer's side, and only where the examination's timing says that it was there.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.disclosure import number, sayable
from mammo.data.release import Record, Release
from mammo.data.sources import Files, find_file, require_file, stem_of
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError

OFFERS = ("malignancy2", "view")
OPTIONS: tuple[str, ...] = ()
_TABLE = "CSAW-CC_breast_cancer_screening_data.csv"
_NEEDS = (
    "anon_patientid", "exam_year", "imagelaterality", "viewposition", "anon_filename", "x_case",
    "x_cancer_laterality", "rad_timing",
)  # fmt: skip
# what readers and pathology found later (x_type, x_lymphnode_met, rad_r1 …) follows from the label;
# x_age is one of two bands and no age
_KEEP = (*_NEEDS, "libra_percentdensity")
_SIDES = {"Left": "L", "Right": "R", "L": "L", "R": "R"}
# rad_timing: found at this screening, or before the next one (interval); none: a negative one
_SHOWN = ("1", "2")
_PRIOR = "3"  # cancer came more than two years later: neither a case nor a healthy breast
_NOTES = {
    "prevalence": "all cancers of the region, but a sample of the healthy: 10 % of the women have "
    "cancer, in screening about 0.5 % do; weigh predictive values accordingly",
    "labels": "malignant: cancer proven by pathology; benign: none found in two years",
}


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the table; files are found by their names anywhere below `folder`."""
    table = find_file(folder, "*csaw*.csv") or require_file(folder, _TABLE, "a row for each image")
    files = Files(folder)
    release = Release([], TASKS[task], notes=dict(_NOTES))
    rows = read_table(table, needs=_NEEDS, keep=_KEEP, kind=_TABLE, number_as="row")
    refuse_repeated(rows, "anon_filename", kind=_TABLE)
    for row in rows:
        label, reason = _label(row, task)
        if reason:
            release.left_out[reason] += 1
            continue
        try:
            path = files.find(stem_of(row["anon_filename"]))
        except DataError as error:
            release.rejected.append((row["anon_filename"], str(error)))
        else:
            release.records.append(_record(path, row, label))
    return release


def _label(row: Mapping[str, str], task: str) -> tuple[str, str]:
    """Class of a row, and why it is no part of the task (empty: it is)."""
    side, view, case = row["imagelaterality"], row["viewposition"], number(row["x_case"])
    if side not in _SIDES or case not in (0, 1):
        column = "x_case" if side in _SIDES else "imagelaterality"
        raise DataError(f"{_TABLE} has {column} {sayable(row[column])} in row {row['row']}")
    if view not in TASKS["view"].names:
        return "", "of a view other than CC and MLO"
    if task == "view":
        return view, ""
    if case == 0:
        return "benign", ""
    timing = row["rad_timing"].removesuffix(".0")
    if timing == _PRIOR:
        return "", "taken more than two years before a cancer"
    if not timing:  # as those of women without cancer
        return "benign", ""
    if timing not in _SHOWN or row["x_cancer_laterality"] not in _SIDES:
        return "", "of a patient whose cancer has no side or no timing"
    return ("malignant" if _SIDES[row["x_cancer_laterality"]] == _SIDES[side] else "benign"), ""


def _record(path: Path, row: Mapping[str, str], label: str) -> Record:
    percent = number(row.get("libra_percentdensity", ""))
    return Record(
        paths=(path,),
        patient=row["anon_patientid"],
        exam=f"{row['anon_patientid']}_{row['exam_year']}",
        image=row["anon_filename"],
        label=label,
        laterality=_SIDES[row["imagelaterality"]],
        view=row["viewposition"],
        # of the breast's area, by LIBRA
        extra={"percent_density": "" if math.isnan(percent) else f"{percent:g}"},
    )
