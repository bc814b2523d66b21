"""mini-MIAS: 322 digitised film mammograms, MLO, of 161 patients (Suckling et al. 1994)."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.release import Record, Release
from mammo.data.sources import require_file

OPTIONS: tuple[str, ...] = ()
CROP = "film"
_LABELS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "density2": lambda row: "dense" if row["tissue"] == "D" else "not_dense",
    "malignancy2": lambda row: row["label"] if row["label"] != "normal" else "",
    "normal_benign_malignant": lambda row: row["label"],
}
OFFERS = tuple(_LABELS)
_SIDE = 1024  # pixels of the release's square pictures, in which its circles are given
_PIXEL_MM = 0.2  # at that size


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read labels_per_image.csv and the pictures in png512/ (or any other copy of that size)."""
    table = require_file(folder, "labels_per_image.csv", "a row for each image")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    labelled = [row for row in rows if _LABELS[task](row)]
    pictures = folder / "png512"
    release = Release([], TASKS[task])
    for row in labelled:
        path = pictures / row["file"]
        if path.is_file():
            release.records.append(_record(row, path, _LABELS[task](row)))
        else:
            release.rejected.append((row["file"], "the file is missing"))
    if len(labelled) < len(rows):
        release.notes["left_out"] = f"{len(rows) - len(labelled)} images have no label of {task}"
    return release


def _record(row: Mapping[str, str], path: Path, label: str) -> Record:
    from PIL import Image

    with Image.open(path) as image:
        scale = image.width / _SIDE
    return Record(
        paths=(path,),
        patient=row["patient_id"],
        image=row["image_id"],
        label=label,
        laterality=row["laterality_info_txt"],
        view=row["view"],
        density=row["tissue"],
        pixel_mm=_PIXEL_MM / scale,
        circles=_circles(row["rois_cls_sev_x_ytop_r"], scale),
    )


def _circles(text: str, scale: float) -> tuple[tuple[float, float, float], ...]:
    """Circles of `CIRC:B:477:891:30;...` (class, severity, x, y from the top, radius)."""
    found = []
    for part in filter(None, text.split(";")):
        x, y, radius = (float(number) * scale for number in part.split(":")[2:5])
        found.append((x, y, radius))
    return tuple(found)
