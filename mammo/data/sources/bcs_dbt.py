"""BCS-DBT: tomosynthesis volumes of 5,060 patients of Duke, one a view (Buda et al. 2021).

A volume gives one slice. Lesion boxes stand in a table of their own, each in the slice that shows
it best; no file tells the side of its breast reliably, the column View does.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.disclosure import number
from mammo.data.release import Record, Release
from mammo.data.sources import Inside, find_images
from mammo.data.tables import read_table
from mammo.errors import DataError

OFFERS = ("normal_benign_malignant", "malignancy2", "view")
OPTIONS: tuple[str, ...] = ()
FRAMES = "central"
_KEY = ("PatientID", "StudyUID", "View")
_CLASSES = {"Normal": "normal", "Benign": "benign", "Cancer": "malignant"}
_GRAVEST = ("Cancer", "Benign", "Actionable", "Normal")
_BOX = ("Slice", "X", "Y", "Width", "Height")
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_VIEW = re.compile(r"([lr])(cc|mlo)\d*")  # lcc, rmlo2: a number where a view was taken again
_NOTES = {
    "licence": "CC BY-NC 4.0: no commercial use",
    "slices": "one slice a volume: the central one, for malignancy2 the one of the lesion's box",
}
Key = tuple[str, ...]  # values of _KEY
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Lesion:
    """A box (x0, y0, x1, y1) in pixels of the slice `at`, counted from 0."""

    at: int
    box: Box
    kind: str  # benign or cancer


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the tables of all parts that are there and the volumes that they name.

    For malignancy2 a slice is the one of a lesion's box. For the other tasks it is the central one
    of every volume: a slice that is chosen by its lesion would tell the label.
    """
    parts = {name: _table(folder, "file-paths", name) for name in _SPLITS}
    if not any(parts.values()):
        raise DataError(
            f"{folder} has no BCS-DBT-file-paths-train-v2.csv; is it the folder of the release?"
        )
    release = Release([], TASKS[task], notes=dict(_NOTES))
    series = _series(folder)
    inside = Inside(folder)
    seen: set[Key] = set()
    for part, table in parts.items():
        if table is None:
            continue
        status = _status(_table(folder, "labels", part))
        lesions = _lesions(_table(folder, "boxes", part)) if task == "malignancy2" else {}
        columns = (*_KEY, "descriptive_path", "classic_path")
        for row in read_table(table, needs=columns, keep=columns, kind=f"file-paths-{part}"):
            key = tuple(row[name] for name in _KEY)
            label, reason = _label(key, status, task)
            if key in seen:
                reason = "twice in the tables"
            seen.add(key)
            if reason:
                release.left_out[reason] += 1
                continue
            names = (row["descriptive_path"], row["classic_path"])
            path = _find([inside.path(name, f"file-paths-{part}") for name in names], series)
            if path is None:
                release.rejected.append((names[1], "the file is missing"))
            else:
                release.records.append(_record(path, key, label, _SPLITS[part], lesions))
    return release


def _label(key: Key, status: Mapping[Key, str], task: str) -> tuple[str, str]:
    """Class of a volume, and why it is no part of the task (empty: it is)."""
    view = _VIEW.fullmatch(key[2].lower())
    if view is None:
        return "", "of a view other than CC and MLO"
    if task == "view":
        return view.group(2).upper(), ""
    if key not in status:
        return "", "without a label"
    label = _CLASSES.get(status[key], "")
    if not label:
        return "", "actionable: called back, nothing proven"
    return label, "" if label in TASKS[task].names else f"without a class of {task}"


def _record(
    path: Path, key: Key, label: str, split: str, lesions: Mapping[Key, list[Lesion]]
) -> Record:
    patient, study, view = key
    found = lesions.get(key, [])
    kind = {"malignant": "cancer"}.get(label, label)
    # of several lesions the one the label speaks of, and the largest of those
    best = max(found, key=lambda each: (each.kind == kind, _area(each.box)), default=None)
    side, position = view[0].upper(), "CC" if "cc" in view.lower() else "MLO"
    return Record(
        paths=(path,),
        patient=patient,
        exam=f"{patient}_{study}",
        image="_".join(key),
        label=label,
        laterality=side,
        view=position,
        split=split,
        boxes=tuple(each.box for each in found if best is not None and each.at == best.at),
        slice_index=-1 if best is None else best.at,
        may_be_turned=True,  # the release's own reader turns such volumes before it draws boxes
    )


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _table(folder: Path, what: str, part: str) -> Path | None:
    """BCS-DBT-<what>-<part>….csv; of several the latest, whose name goes on (`-v2`)."""
    return max(
        folder.rglob(f"BCS-DBT*{what}-{part}*.csv"),
        key=lambda it: (it.stem, it.as_posix()),
        default=None,
    )


def _status(table: Path | None) -> dict[Key, str]:
    """The gravest flag of each volume; a part without a table of labels has none."""
    if table is None:
        return {}
    status = {}
    for row in read_table(table, needs=(*_KEY, *_GRAVEST), kind="table of labels"):
        flag = next((name for name in _GRAVEST if number(row[name]) == 1), "")
        if flag:
            status[tuple(row[name] for name in _KEY)] = flag
    return status


def _lesions(table: Path | None) -> dict[Key, list[Lesion]]:
    """Lesions of each volume."""
    lesions: defaultdict[Key, list[Lesion]] = defaultdict(list)
    if table is None:
        return {}
    columns, kind = (*_KEY, *_BOX, "Class"), "table of boxes"
    for row in read_table(table, needs=columns, keep=columns, kind=kind, number_as="row"):
        try:
            at, x, y, width, height = (int(row[name]) for name in _BOX)
        except ValueError:
            raise DataError(f"the {kind} has no whole numbers in row {row['row']}") from None
        key = tuple(row[name] for name in _KEY)
        lesions[key].append(Lesion(at, (x, y, x + width, y + height), row["Class"].lower()))
    return dict(lesions)


def _series(folder: Path) -> dict[str, list[Path]]:
    """Files by the series that their folder is named after, as `<uid>` or `MG_<uid>`."""
    series: defaultdict[str, list[Path]] = defaultdict(list)
    for path in find_images(folder):
        series[path.parent.name.removeprefix("MG_")].append(path)
    return dict(series)


def _find(paths: list[Path], series: Mapping[str, list[Path]]) -> Path | None:
    """The file at one of `paths`, else the only file of its series (the last folder's name)."""
    named = next((path for path in paths if path.is_file()), None)
    if named is not None:
        return named
    found = series.get(paths[-1].parent.name, [])
    return found[0] if len(found) == 1 else None
