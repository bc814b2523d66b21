"""CDD-CESM: contrast-enhanced mammograms, low-energy and subtracted (Khaled et al. 2022)."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.release import Record, Release
from mammo.data.sources import require_file
from mammo.errors import ConfigError

OFFERS = ("view", "density4", "density2", "birads")
OPTIONS = ("channels",)
KINDS = ("low_energy", "subtracted")
Rows = list[dict[str, str]]


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read labels.csv; option `channels` names the pictures of one breast that go together.

    Density is given with the low-energy picture only and is taken from there for both.
    """
    kinds = tuple(part.strip() for part in options.get("channels", "low_energy").split(","))
    wrong = sorted(set(kinds) - set(KINDS))
    if wrong or len(set(kinds)) < len(kinds):
        raise ConfigError(f"channels {','.join(kinds)!r}: each of {', '.join(KINDS)} at most once")
    table = require_file(folder, "labels.csv", "a row for each image")
    exposures: dict[tuple[str, str, str], dict[str, dict[str, str]]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["patient_id"], row["laterality"], row["view"])
            exposures.setdefault(key, {})[row["type"]] = row
    release = Release([], TASKS[task])
    unpaired = unlabelled = 0
    for key, found in sorted(exposures.items()):
        if any(kind not in found for kind in kinds):
            unpaired += 1
            continue
        record = _record(folder, key, [found[kind] for kind in kinds], found, task)
        missing = [path.name for path in record.paths if not path.is_file()]
        if missing:
            release.rejected.append((missing[0], "the file is missing"))
        elif record.label:
            release.records.append(record)
        else:
            unlabelled += 1
    if unpaired or unlabelled:
        release.notes["left_out"] = (
            f"{unpaired} without {' and '.join(kinds)}, {unlabelled} without a label of {task}"
        )
    return release


def _record(
    folder: Path,
    key: tuple[str, str, str],
    rows: Rows,
    found: Mapping[str, Mapping[str, str]],
    task: str,
) -> Record:
    patient, side, view = key
    low_energy = found.get("low_energy", {})
    density = low_energy.get("density_acr", "_").strip("_")
    birads = _worst(rows[0]["birads"])
    labels = {
        "view": view,
        "density4": density,
        "density2": {"A": "not_dense", "B": "not_dense", "C": "dense", "D": "dense"}.get(density),
        "birads": birads,
    }
    masks = (folder / row["mask"] for row in rows if row["mask"])
    return Record(
        paths=tuple(folder / row["file"] for row in rows),
        patient=patient,
        image="+".join(row["image_id"] for row in rows),
        label=labels[task] or "",
        laterality=side,
        view=view,
        birads=birads,
        density=density,
        age=float(rows[0]["age"]) if rows[0]["age"].isdigit() else math.nan,
        subset=f"machine {rows[0]['machine']}",
        masks=tuple(mask for mask in masks if mask.is_file()),
    )


def _worst(text: str) -> str:
    """The highest BI-RADS of several findings (`4$2`)."""
    return max(text.strip("_").split("$"))
