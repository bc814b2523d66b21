"""Tables with a row for each image: its path, patient, label and more, in columns of any name."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammo.data.classes import TASKS
from mammo.data.disclosure import number, unlike_header, unlike_labels, unlike_measures
from mammo.data.manifest import COLUMNS
from mammo.data.release import Record, Release
from mammo.data.sources import LEAVE_OUT, Inside, class_map, parse_class_map, refuse_generated
from mammo.data.tables import read_table
from mammo.errors import ConfigError, DataError

OPTIONS = (
    "csv",
    "path_column",
    "path_pattern",
    "patient_column",
    "label_column",
    "class_map",
    "label_kind",
    "positive",
    "laterality_column",
    "view_column",
    "mask_column",
    "split_column",
    "keep_columns",
    "synthetic_origin",
)
SPLIT_WORDS = {
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
_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R"}
_FIELD = re.compile(r"\{([^{}]*)\}")  # of a path_pattern
_TABLE = "csv"  # the field that stands for the table's own name, without its suffix
_ROW = "\0row"  # where `read_table` puts the row's number; no header can hold a NUL


@dataclass(frozen=True)
class Line:
    """One row of a table: its cells by column, and where it stands, which names nobody."""

    cells: Mapping[str, str]
    table: Path
    called: str  # the table's name where the user gave it; found by itself, it may name a person

    @property
    def where(self) -> str:
        return f"row {self.cells[_ROW]} of {self.called}"


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the tables named by option `csv` (the only one in `folder` by default).

    The paths of an image are in the columns `path_column` or made of other columns by
    `path_pattern`, as `images/{patient_id}_{image_id}.png`; several of either, with commas, are
    its channels. A `task` that is none of the known ones is the name of the label's column.
    Several tables tell the split by their names, as train.csv and val.csv do.
    """
    if task not in (*TASKS, "label") and "label_column" not in options:
        task, options = "label", {**options, "label_column": task}
    inside = Inside(folder)
    tables = _tables(folder, options.get("csv", ""), inside)
    refuse_generated([table.name for table in tables], options)
    paths_of = _paths_of(options)
    names = {key: options[key] for key in options if key.endswith("_column")}
    names.pop("path_column", None)
    keep = _listed(options.get("keep_columns", ""))
    needed = [*names.items(), *(("keep_columns", name) for name in keep), *_fields(options)]
    named = bool(options.get("csv"))
    lines = [line for table in tables for line in _lines(table, needed, named)]
    labelled = [line for line in lines if line.cells[names["label_column"]]]
    _refuse_unlike_labels(labelled, names["label_column"])
    _refuse_identifiers(keep, labelled, names.get("patient_column", ""))
    values = sorted({line.cells[names["label_column"]] for line in labelled})
    class_of = parse_class_map(options.get("class_map", ""), values)
    classes = class_map(
        task, list(class_of.values()), options.get("positive", ""), options.get("label_kind", "")
    )
    release = Release([], classes)
    release.left_out["without a label"] += len(lines) - len(labelled)
    used = [line for line in labelled if class_of[line.cells[names["label_column"]]] != LEAVE_OUT]
    release.left_out[f"of a label that is left out ({LEAVE_OUT})"] += len(labelled) - len(used)
    split_of = _splits(used, tables, names.get("split_column", ""))
    _refuse_torn(used, split_of, names.get("patient_column", ""))
    if "patient_column" not in names:
        release.notes["group"] = "image (no patient_column given)"
    first: dict[tuple[Path, ...], str] = {}
    for line in used:
        texts = paths_of(line)
        paths = tuple(inside.path(text, line.where) for text in texts)
        _refuse_twice(first, paths, line.where)
        known = {key: line.cells[column] for key, column in names.items()}
        texts_of_masks = [part for part in known.get("mask_column", "").split(";") if part.strip()]
        masks = tuple(inside.path(mask, line.where) for mask in texts_of_masks)
        wrong = _unusable(paths, masks, known)
        if wrong:
            release.rejected.append((texts[0], wrong))
            continue
        release.records.append(
            Record(
                paths=paths,
                patient=known.get("patient_column") or texts[0],
                image=texts[0],
                label=class_of[known["label_column"]],
                laterality=_SIDES.get(known.get("laterality_column", "").lower(), ""),
                view=_view(known.get("view_column", "")),
                masks=masks,
                split=split_of(line),
                **_kept(line, keep),
            )
        )
    release.left_out += Counter()  # drops the counts of 0
    return release


def _unusable(paths: Sequence[Path], masks: Sequence[Path], known: Mapping[str, str]) -> str:
    """Why an image cannot be used, by its row alone; empty when it can."""
    if known.get("patient_column") == "":  # in a split of its own it may tear a patient apart
        return "its row names no patient"
    if not all(path.is_file() for path in paths):
        return "the file is missing"
    return "" if all(path.is_file() for path in masks) else "the file of its mask is missing"


def _tables(folder: Path, names: str, inside: Inside) -> list[Path]:
    if names:
        found = [inside.path(name, "csv") for name in _listed(names)]
        for path, name in zip(found, _listed(names), strict=True):
            if not path.is_file():
                raise DataError(f"csv {name} is not in {folder}")
        return found
    found = [path for path in sorted(folder.glob("*.csv")) if not inside.leaves(path)]
    if len(found) != 1:
        held = len(found) or "none"
        raise DataError(f"{folder} should hold one CSV file, it holds {held}; name it with --csv")
    return found


def _lines(table: Path, needed: Sequence[tuple[str, str]], named: bool) -> list[Line]:
    """Rows of `table`, which must have the columns that settings name: (setting, column)."""
    called = table.name if named else "the table"
    kind = called.removeprefix("the ")
    rows = read_table(table, needs=(), delimiter="", kind=kind, number_as=_ROW)
    if not rows:
        raise DataError(f"no images in {called}: it has no rows")
    columns = [name for name in rows[0] if name != _ROW]
    unlike = unlike_header(columns)
    if unlike:
        raise DataError(
            f"the first row of {called} is no header ({unlike}); put the columns' names there"
        )
    for setting, name in needed:
        if name not in columns:
            raise ConfigError(f"{setting} {name!r} is not in {called}; it has {', '.join(columns)}")
    return [Line(row, table, called) for row in rows]


def _paths_of(options: Mapping[str, str]) -> Callable[[Line], list[str]]:
    """How the paths of a line are found: one text a channel."""
    if ("path_column" in options) == ("path_pattern" in options):
        raise ConfigError(
            "dataset csv needs either path_column, or path_pattern as images/{patient}_{image}.png"
        )
    if "label_column" not in options:
        raise ConfigError("dataset csv needs label_column, the column of the label")
    if "path_column" in options:
        columns = _listed(options["path_column"])
        return lambda line: [line.cells[column] for column in columns]
    patterns = _listed(options["path_pattern"])
    if not all(_FIELD.search(pattern) for pattern in patterns):
        raise ConfigError(
            f"path_pattern {options['path_pattern']!r} names no column; give it as {{column}}"
        )

    def fill(line: Line) -> list[str]:
        cells = {**line.cells, _TABLE: line.table.stem}
        return [_FIELD.sub(lambda found: cells[found[1]], pattern) for pattern in patterns]

    return fill


def _fields(options: Mapping[str, str]) -> list[tuple[str, str]]:
    """Columns that the paths are made of, each with the setting that names it."""
    if "path_column" in options:
        return [("path_column", name) for name in _listed(options["path_column"])]
    found = [each[1] for each in _FIELD.finditer(options.get("path_pattern", ""))]
    return [("path_pattern", name) for name in found if name != _TABLE]


def _splits(lines: Sequence[Line], tables: Sequence[Path], column: str) -> Callable[[Line], str]:
    """How the split of a line is known: by its column, else by one table for each, else not."""
    if column:
        strange = [line for line in lines if line.cells[column].lower() not in SPLIT_WORDS]
        if strange:
            raise DataError(
                f"split_column {column!r} has another value than train, val or test in "
                f"{len(strange)} rows, first in {strange[0].where}"
            )
        return lambda line: SPLIT_WORDS[line.cells[column].lower()]
    if len(tables) == 1:
        return lambda line: ""
    told = {table: _told_by_name(table) for table in tables}
    return lambda line: told[line.table]


def _told_by_name(table: Path) -> str:
    parts = re.split("[^a-z]+", table.stem.lower())
    words = {SPLIT_WORDS[part] for part in parts if part in SPLIT_WORDS}
    if len(words) != 1:
        raise ConfigError(
            f"csv {table.name}: the name of each of several tables must tell its split, as "
            "train.csv and val.csv do; rename it, or give split_column"
        )
    return words.pop()


def _kept(line: Line, keep: Sequence[str]) -> dict[str, Any]:
    """Fields of the record for the columns of `keep`."""
    kept = {name: line.cells[name] for name in keep}
    fields: dict[str, Any] = {name: kept.pop(name) for name in _KNOWN if name in kept}
    if "age" in fields:
        fields["age"] = number(str(fields["age"]))
    return {**fields, "extra": kept}


def _view(text: str) -> str:
    """CC or MLO; another view is none of the two that a dataset names."""
    return text.upper() if text.upper() in ("CC", "MLO") else ""


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _refuse_unlike_labels(lines: Sequence[Line], column: str) -> None:
    """Refuse a label column that may hold names, dates or reports, without showing a value."""
    unlike = unlike_labels([line.cells[column] for line in lines])
    if unlike:
        raise ConfigError(f"label_column {column!r} has {unlike}; name the column of the label")


def _refuse_identifiers(keep: Sequence[str], lines: Sequence[Line], patient: str) -> None:
    """Refuse kept columns that look like identifiers, by their name or by their values."""
    for name in keep:
        parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
        if _IDENTIFYING.search(parts):
            raise ConfigError(
                f"keep_columns {name!r} looks like an identifier; leave it out or rename it"
            )
        if name in COLUMNS and name not in _KNOWN:
            raise ConfigError(f"keep_columns {name!r} is a column of every manifest; rename it")
        if name == "age":
            continue  # patients may well differ in it; what is above 89 is stored as 90
        patients = [line.cells[patient] if patient else line.where for line in lines]
        unlike = unlike_measures([line.cells[name] for line in lines], patients)
        if unlike:
            raise ConfigError(
                f"keep_columns {name!r} looks like an identifier ({unlike}); leave it out"
            )


def _refuse_twice(first: dict[tuple[Path, ...], str], paths: Iterable[Path], where: str) -> None:
    """Refuse a table with a row for each finding, which would put an image in it twice."""
    start = first.setdefault(tuple(paths), where)
    if start != where:
        raise DataError(
            f"{start} and {where} name the same image; "
            "give each image one row, with the label of its gravest finding"
        )


def _refuse_torn(lines: Sequence[Line], split_of: Callable[[Line], str], patient: str) -> None:
    """Refuse a patient whom the tables put in two splits, without saying who it is."""
    first: dict[str, Line] = {}
    for line in lines if patient else ():
        start = first.setdefault(line.cells[patient], line)
        if line.cells[patient] and split_of(start) != split_of(line):
            raise DataError(
                f"a patient is in two splits: {split_of(start)!r} in {start.where}, "
                f"{split_of(line)!r} in {line.where}; all images of a patient belong in one split"
            )
