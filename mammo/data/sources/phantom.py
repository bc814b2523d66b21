"""Procedural mammograms, made on the spot: for demos, tests and known answers."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mammo.data.classes import TASKS
from mammo.data.phantom_release import SETTINGS, TABLE, Row, write_known_answer, write_release
from mammo.data.release import Record, Release
from mammo.data.sources import Inside
from mammo.data.tables import read_table
from mammo.errors import ConfigError, DataError

GENERATES = True  # with no source given, `generate` makes the release
# Option -> default; `variant` known is `mammo.data.observer`'s Gaussian signal in Gaussian noise.
DEFAULTS = {
    "variant": "breast",
    "patients": "75",
    "contrast": "1.0",
    "seed": "0",
    "image_size": "256",
}
_COLUMN = {  # task -> column of the table that holds its label
    "malignancy2": "label",
    "normal_benign_malignant": "label",
    "density2": "density",
    "density4": "density",
    "view": "view",
}
OFFERS = tuple(_COLUMN)
OPTIONS = ("variant", "patients", "contrast")
_DENSITY2 = {"A": "not_dense", "B": "not_dense", "C": "dense", "D": "dense"}


def generate(folder: Path, *, options: Mapping[str, str]) -> None:
    """Write the release of `options` to `folder` unless it is there already."""
    settings = _settings(options)
    if folder.exists():
        _compare(folder, settings)
        return
    variant, count = settings.pop("variant"), settings.pop("patients")
    if variant == "known":
        write_known_answer(folder, images=count, **settings)
    else:
        write_release(folder, patients=count, **settings)


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Records of a release written by `generate`, one an image.

    For `malignancy2` the normal breasts are left out: they are no part of the task, and so are not
    listed as rejected either. `options`, where given, must be those the release was made with.
    """
    if task not in _COLUMN:
        raise ConfigError(f"task {task!r}: phantom has {', '.join(_COLUMN)}")
    made = _compare(folder, {name: _settings(options)[name] for name in options})
    if made.get("variant") == "known" and task != "malignancy2":
        raise ConfigError(f"task {task!r}: phantom of variant known has malignancy2 alone")
    classes = TASKS[task]
    records, rejected = [], []
    inside = Inside(folder)
    for row in _rows(folder / TABLE):
        label = row[_COLUMN[task]]
        label = _DENSITY2.get(label, "") if task == "density2" else label
        if label not in classes.names:
            continue
        if not inside.path(row["file"], TABLE).is_file():
            rejected.append((row["file"], "file is missing"))
            continue
        records.append(_record(inside, row, label))
    if not records:
        raise DataError(f"phantom release {folder}: no image for task {task!r}")
    notes = {"ideal_auc": f"{made['ideal_auc']:.4f}"} if made.get("variant") == "known" else {}
    return Release(records, classes, rejected, notes)


def _record(inside: Inside, row: dict[str, str], label: str) -> Record:
    return Record(
        paths=(inside.path(row["file"], TABLE),),
        patient=row["patient"],
        exam=row["patient"],
        image=row["image"],
        laterality=row["laterality"],
        view=row["view"],
        label=label,
        density=row["density"],
        age=float(row["age"]) if row["age"].isdecimal() else math.nan,
        vendor=row["vendor"],
        masks=(inside.path(row["mask"], TABLE),) if row["mask"] else (),
        extra={"lesion": row["kind"]},
    )


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise DataError(f"phantom release {table.parent}: {TABLE} is missing")
    return read_table(table, needs=tuple(Row.__annotations__), kind=f"{TABLE} of the phantom")


def _settings(options: Mapping[str, str]) -> dict[str, Any]:
    """Typed values of `options`, defaults for those not given; ConfigError names a wrong one."""
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ConfigError(f"option {unknown[0]!r}: phantom has {', '.join(DEFAULTS)}")
    given = {**DEFAULTS, **options}
    if given["variant"] not in ("breast", "known"):
        raise ConfigError(f"variant {given['variant']!r}: breast or known needed")
    return {
        "variant": given["variant"],
        "patients": _number(given, "patients", int, lowest=1),
        "contrast": _number(given, "contrast", float, lowest=0),
        "seed": _number(given, "seed", int, lowest=0),
        "image_size": _number(given, "image_size", int, lowest=16),
    }


def _number(given: Mapping[str, str], name: str, kind: Callable[[str], Any], lowest: int) -> Any:
    try:
        value = kind(given[name])
    except ValueError:
        value = None
    if value is None or not lowest <= value < float("inf"):
        what = "whole number" if kind is int else "number"
        raise ConfigError(f"{name} {given[name]!r}: a {what} from {lowest} on needed")
    return value


def _compare(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the release in `folder` was made with; ConfigError where `wanted` differs."""
    file = folder / SETTINGS
    try:
        made: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"phantom release {folder}: no readable {SETTINGS} in it") from error
    for name, value in wanted.items():
        if made.get(name) != value:
            raise ConfigError(
                f"{name} {value}: phantom release {folder} was made with {made.get(name)}"
            )
    return made
