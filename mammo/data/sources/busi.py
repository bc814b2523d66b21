"""BUSI: 780 breast ultrasound images, normal, benign and malignant (Al-Dhabyani et al. 2020).

Read as it was released (Dataset_BUSI_with_GT, a folder a class) and as a table with 256x256
copies (labels.csv, images256/ and masks256/). A mask belongs to the picture of its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.release import Record, Release
from mammo.data.sources import Inside, find_images
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError

OFFERS = ("normal_benign_malignant", "malignancy2")
OPTIONS: tuple[str, ...] = ()
CROP = "none"  # an ultrasound fan has no chest wall at a side
_CLASSES = ("benign", "malignant", "normal")
# benign (4).png, its mask benign (4)_mask.png, its second one benign (4)_mask_1.png
_NAME = re.compile(
    r"(?P<label>benign|malignant|normal) ?\((?P<number>\d+)\)(?P<mask>_mask(?:_\d+)?)?"
)
_COLUMNS = ("image_id", "label", "mask_px", "coloured_px")
_MARKED_PX = 50  # coloured pixels from which on a picture counts as drawn into


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read labels.csv or, without that, the folders benign, malignant and normal.

    The release names no patients. Marks drawn into a picture are flagged where the table counts
    coloured pixels; the release itself says nothing of them.
    """
    release = Release([], TASKS[task], notes={"group": "image (the release names no patients)"})
    table = folder / "labels.csv"
    found = _of_table(folder, table) if table.is_file() else _of_folders(folder, release)
    for record in sorted(found, key=lambda record: record.image):
        if record.label not in release.classes.names:
            release.left_out[f"without a label of {task}"] += 1
        elif not record.paths[0].is_file():
            release.rejected.append((record.paths[0].name, "the file is missing"))
        else:
            release.records.append(record)
    return release


def _of_table(folder: Path, table: Path) -> list[Record]:
    kind = "labels.csv (a row for each image)"
    rows = read_table(table, needs=_COLUMNS, kind=kind)
    refuse_repeated(rows, "image_id", kind=kind)
    inside = Inside(folder)
    records = []
    for row in rows:
        name = f"{row['image_id']}.png"
        mask = inside.path(f"masks256/{name}", "labels.csv")
        records.append(
            Record(
                paths=(inside.path(f"images256/{name}", "labels.csv"),),
                patient=row["image_id"],
                image=row["image_id"],
                label=row["label"],
                masks=(mask,) if row["mask_px"] not in ("", "0") and mask.is_file() else (),
                flags=("marked",) if _count(row["coloured_px"]) > _MARKED_PX else (),
            )
        )
    return records


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _of_folders(folder: Path, release: Release) -> list[Record]:
    """Pictures of the release's folders with all their masks; other files are rejected."""
    pictures: dict[tuple[str, int], Path] = {}
    masks: dict[tuple[str, int], list[Path]] = {}
    for path in find_images(folder):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            release.rejected.append((path.name, "its name is not one of BUSI, as `benign (1).png`"))
            continue
        if path.parent.name.lower() in _CLASSES and path.parent.name.lower() != name["label"]:
            release.rejected.append((path.name, "its folder is of another class than its name"))
            continue
        key = (name["label"], int(name["number"]))
        if name["mask"]:
            masks.setdefault(key, []).append(path)
        elif key in pictures:
            release.rejected.append((path.name, "two pictures have this name"))
        else:
            pictures[key] = path
    if not pictures:
        raise DataError(f"{folder} has no picture named as those of BUSI, `benign (1).png`")
    for key in sorted(set(masks) - set(pictures)):
        release.rejected += [(path.name, "a mask without its picture") for path in masks[key]]
    return [
        Record(
            paths=(path,),
            patient=f"{label}_{number:03d}",
            image=f"{label}_{number:03d}",
            label=label,
            # the masks of normal pictures are empty; several lesions have a mask each
            masks=tuple(sorted(masks.get((label, number), ()))) if label != "normal" else (),
        )
        for (label, number), path in pictures.items()
    ]
