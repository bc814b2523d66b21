"""A table with a row for each image: its path, patient, label and more, in columns of any name."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mammo.data.manifest import COLUMNS
from mammo.data.release import Record, Release
from mammo.data.sources import class_map, parse_class_map
from mammo.errors import ConfigError, DataError

OPTIONS = (
    "csv",
    "path_column",
    "patient_column",
    "label_column",
    "class_map",
    "positive",
    "laterality_column",
    "view_column",
    "mask_column",
    "split_column",
    "keep_columns",
)
_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Parts of a column's name that stand for something that could identify a person
_IDENTIFYING = re.compile(
    r"(?:^|[^a-z0-9])(?:id|name|patient|subject|person|mrn|uid|uuid|accession|birth|birthday|dob|"
    r"date|time|address|zip|postcode|phone|email|ssn|insurance|physician|doctor|institution|"
    r"hospital|path|file|filename|url|exam|study|series)(?:[^a-z0-9]|$)"
)
_KNOWN = ("birads", "density", "age", "vendor", "subset")  # kept columns the manifest has anyway
Rows = list[dict[str, str]]


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the table named by option `csv` (the only one in `folder` by default)."""
    table = _table(folder, options.get("csv", ""))
    rows, columns = _rows(table)
    names = {key: options[key] for key in options if key.endswith("_column")}
    for key in ("path_column", "label_column"):
        if key not in names:
            raise ConfigError(f"dataset csv needs {key}; {table.name} has {', '.join(columns)}")
    for key, name in names.items():
        _require(name, key, columns, table)
    keep = [part.strip() for part in options.get("keep_columns", "").split(",") if part.strip()]
    _refuse_identifiers(keep, rows, columns, table)
    labelled = [row for row in rows if row[names["label_column"]].strip()]
    values = sorted({row[names["label_column"]].strip() for row in labelled})
    class_of = parse_class_map(options.get("class_map", ""), values)
    classes = class_map(task, sorted(set(class_of.values())), options.get("positive", ""))
    _refuse_twice(labelled, names, table)
    _refuse_torn(labelled, names, table)
    release = Release([], classes)
    if "patient_column" not in names:
        release.notes["group"] = "image (no patient_column given)"
    if len(labelled) < len(rows):
        release.notes["left_out"] = f"{len(rows) - len(labelled)} rows have no label"
    for row in labelled:
        path = _inside(folder, row[names["path_column"]])
        if not path.is_file():
            release.rejected.append((row[names["path_column"]], "the file is missing"))
            continue
        release.records.append(_record(folder, path, row, names, class_of, keep))
    return release


def _table(folder: Path, name: str) -> Path:
    if name:
        path = _inside(folder, name)
        if not path.is_file():
            raise DataError(f"csv {name} is not in {folder}")
        return path
    found = sorted(folder.glob("*.csv"))
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} should hold one CSV file, it holds {listed}; name it with --csv")
    return found[0]


def _rows(table: Path) -> tuple[Rows, list[str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
            columns = list(reader.fieldnames or [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{table.name} cannot be read as CSV: {error}") from None
    if not rows:
        raise DataError(f"no images in {table.name}: it has no rows")
    return rows, columns


def _record(
    folder: Path,
    path: Path,
    row: Mapping[str, str],
    names: Mapping[str, str],
    class_of: Mapping[str, str],
    keep: Sequence[str],
) -> Record:
    def told(column: str) -> str:
        return row[names[column]].strip() if column in names else ""

    kept = {name: row[name].strip() for name in keep}
    mask = told("mask_column")
    return Record(
        paths=(path,),
        patient=told("patient_column") or told("path_column"),
        image=told("path_column"),
        label=class_of[told("label_column")],
        laterality=told("laterality_column")[:1].upper(),
        view=told("view_column").upper(),
        masks=(_inside(folder, mask),) if mask else (),
        split=_SPLITS.get(told("split_column").lower(), told("split_column")),
        birads=kept.pop("birads", ""),
        density=kept.pop("density", ""),
        age=_number(kept.pop("age", "")),
        vendor=kept.pop("vendor", ""),
        subset=kept.pop("subset", ""),
        extra=kept,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _inside(folder: Path, name: str) -> Path:
    """`folder`/`name`; refused when it would lead out of the folder."""
    pure = PurePosixPath(name.strip().replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise DataError("a path in the CSV is empty or leads out of source; give paths below it")
    return folder.joinpath(*pure.parts)


def _require(name: str, key: str, columns: Sequence[str], table: Path) -> None:
    if name not in columns:
        raise ConfigError(f"{key} {name!r} is not in {table.name}; it has {', '.join(columns)}")


def _refuse_identifiers(
    keep: Sequence[str], rows: Rows, columns: Sequence[str], table: Path
) -> None:
    """Refuse kept columns that look like identifiers, by their name or by their values."""
    for name in keep:
        _require(name, "keep_columns", columns, table)
        parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
        values = {row[name] for row in rows}
        distinct = len(rows) >= 10 and len(values) == len(rows)
        numbers = all(not math.isnan(_number(value)) for value in values)
        if _IDENTIFYING.search(parts) or (distinct and not numbers):
            raise ConfigError(
                f"keep_columns {name!r} looks like an identifier; leave it out or rename it"
            )
        if name in COLUMNS and name not in _KNOWN:
            raise ConfigError(f"keep_columns {name!r} is a column of every manifest; rename it")


def _refuse_twice(rows: Rows, names: Mapping[str, str], table: Path) -> None:
    """Refuse a table with a row for each finding, which would put an image in it twice."""
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        start = first.setdefault(row[names["path_column"]].strip(), number)
        if start != number:
            raise DataError(
                f"rows {start} and {number} of {table.name} name the same image; "
                "give each image one row, with the label of its gravest finding"
            )


def _refuse_torn(rows: Rows, names: Mapping[str, str], table: Path) -> None:
    """Refuse a patient whom the table puts in two splits, without saying who it is."""
    if "split_column" not in names or "patient_column" not in names:
        return
    first: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows, start=2):  # as a spreadsheet counts, the header being 1
        patient, split = row[names["patient_column"]], row[names["split_column"]]
        start, known = first.setdefault(patient, (number, split))
        if known != split:
            raise DataError(
                f"a patient is in two splits in {table.name}: {known!r} in row {start}, {split!r} "
                f"in row {number}; all images of a patient belong in one split"
            )
