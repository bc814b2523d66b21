"""BUSI: 780 breast ultrasound images, normal, benign and malignant (Al-Dhabyani et al. 2020)."""

import csv
from collections.abc import Mapping
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.release import Record, Release
from mammo.data.sources import require_file

OFFERS = ("normal_benign_malignant", "malignancy2")
OPTIONS: tuple[str, ...] = ()
CROP = "none"  # an ultrasound fan has no chest wall at a side


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read labels.csv, images256/ and masks256/; the release names no patients."""
    table = require_file(folder, "labels.csv", "a row for each image")
    classes = TASKS[task]
    release = Release([], classes, notes={"group": "image (the release names no patients)"})
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in classes.names]
    for row in rows:
        name = f"{row['image_id']}.png"
        path, mask = folder / "images256" / name, folder / "masks256" / name
        if not path.is_file():
            release.rejected.append((name, "the file is missing"))
            continue
        release.records.append(
            Record(
                paths=(path,),
                patient=row["image_id"],
                image=row["image_id"],
                label=row["label"],
                masks=(mask,) if int(row["mask_px"]) and mask.is_file() else (),
            )
        )
    return release
