"""VinDr-Mammo: 5,000 screening examinations with BI-RADS and findings, no pathology (Nguyen 2023).

The release names no patients; its studies are taken for one patient each, as its authors do.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from mammo.data.classes import TASKS, class_of_birads, class_of_density
from mammo.data.disclosure import number, sayable
from mammo.data.release import Record, Release
from mammo.data.sources import Files, Inside, find_file, require_file
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError

OFFERS = (
    "malignancy2_birads",
    "malignancy3_birads",
    "malignancy4_birads",
    "birads",
    "density2",
    "density4",
    "view",
)
OPTIONS: tuple[str, ...] = ()
_BREASTS = "breast-level_annotations.csv"
_FINDINGS = "finding_annotations.csv"
_METADATA = "metadata.csv"  # of the headers
_NEEDS = (
    "study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density",
    "split",
)  # fmt: skip
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SPLITS = {"training": "train", "test": "test"}
Box = tuple[float, float, float, float]


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read images/<study>/<image>.dicom by the breast-level table; findings give the boxes.

    Pictures elsewhere below `folder`, and copies in other formats, are found by their names.
    """
    table = require_file(folder, _BREASTS, "a row for each image")
    boxes = _boxes(find_file(folder, _FINDINGS))
    vendors = _vendors(table.with_name(_METADATA))
    release = Release(
        [],
        TASKS[task],
        notes={
            "group": "study (the release names no patients, its authors take one study a patient)",
            "labels": "BI-RADS of radiologists, no pathology: 5 stands for malignant",
        },
    )
    inside, files = Inside(table.parent), Files(folder)
    rows = read_table(table, needs=_NEEDS, keep=_NEEDS, kind=_BREASTS, number_as="row")
    refuse_repeated(rows, "image_id", kind=_BREASTS)
    for row in rows:
        if row["split"] not in _SPLITS:
            raise DataError(
                f"{_BREASTS} has split {sayable(row['split'])} in row {row['row']}; "
                "training or test is needed"
            )
        place = f"{row['study_id']}/{row['image_id']}"
        path = inside.path(f"images/{place}.dicom", _BREASTS)
        record = _record(path, row, boxes, vendors, task)
        if not record.view:
            release.left_out["of a view other than CC and MLO"] += 1
            continue
        if not record.label:
            release.left_out[f"without a class of {task}"] += 1
            continue
        try:
            found = files.find(place, row["image_id"], at=path)
        except DataError as error:
            release.rejected.append((f"images/{place}.dicom", str(error)))
        else:
            release.records.append(replace(record, paths=(found,)))
    return release


def _record(
    path: Path,
    row: Mapping[str, str],
    boxes: Mapping[str, list[Box]],
    vendors: Mapping[str, str],
    task: str,
) -> Record:
    birads = _told(row["breast_birads"].removeprefix("BI-RADS "), TASKS["birads"].names)
    density = _told(row["breast_density"].removeprefix("DENSITY "), TASKS["density4"].names)
    view = _told(row["view_position"], TASKS["view"].names)
    if task == "view":
        label = view
    elif task == "birads":
        label = birads
    elif task.startswith("density"):
        label = class_of_density(task, density)
    else:
        label = class_of_birads(task, birads)
    return Record(
        paths=(path,),
        patient=row["study_id"],
        exam=row["study_id"],
        image=row["image_id"],
        label=label,
        laterality=_told(row["laterality"], ("L", "R")),
        view=view,
        birads=birads,
        density=density,
        vendor=vendors.get(row["image_id"], ""),
        boxes=tuple(boxes.get(row["image_id"], ())),
        split=_SPLITS[row["split"]],
    )


def _told(text: str, known: Collection[str]) -> str:
    """`text` where it is one of `known`, else empty: no other text comes into a manifest."""
    return text if text in known else ""


def _boxes(table: Path | None) -> dict[str, list[Box]]:
    """Boxes of the findings of each image, in file pixels; `No Finding` has none."""
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    if table is None:
        return {}
    columns = ("image_id", *_CORNERS)
    for row in read_table(table, needs=columns, keep=columns, kind=_FINDINGS, number_as="row"):
        corners = [number(row[name]) for name in _CORNERS]
        if any(row[name] for name in _CORNERS) and not all(map(math.isfinite, corners)):
            raise DataError(f"{_FINDINGS} has a corner that is no number in row {row['row']}")
        if math.isfinite(corners[0]):
            x0, y0, x1, y1 = corners
            boxes[row["image_id"]].append((x0, y0, x1, y1))
    return dict(boxes)


def _vendors(table: Path) -> dict[str, str]:
    """Manufacturer of each image where metadata.csv is there; the files' headers tell it too."""
    if not table.is_file():
        return {}
    columns = ("SOP Instance UID", "Manufacturer")
    rows = read_table(table, needs=(), keep=columns, kind=_METADATA)
    return {row.get("SOP Instance UID", ""): row.get("Manufacturer", "") for row in rows}
