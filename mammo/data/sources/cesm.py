"""CDD-CESM: contrast-enhanced mammograms, low-energy and subtracted (Khaled et al. 2022).

Read as it was released (Radiology-manual-annotations.xlsx, two folders of JPEGs named
P1_L_DM_MLO.jpg, the radiologist's outlines beside them) and as a table with 512x512 copies
(labels.csv, images/ and masks/). A text of several values has `$` between them.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mammo.data.classes import TASKS, class_of_density
from mammo.data.release import Record, Release
from mammo.data.sources import Inside, find_file, find_images
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import ConfigError, DataError

OFFERS = (
    *("view", "density4", "density2", "birads"),
    *("normal_benign_malignant", "malignancy2"),
)
OPTIONS = ("channels",)
KINDS = ("low_energy", "subtracted")
_COPIES = (
    *("image_id", "file", "mask", "patient_id", "laterality", "view", "type", "age"),
    *("density_acr", "birads", "machine", "pathology"),
)
_PATHOLOGY = "Pathology Classification/ Follow up"
_RELEASED = (
    *("Image_name", "Patient_ID", "Side", "Type", "Age", "Breast density (ACR)", "BIRADS"),
    *("View", "Machine", _PATHOLOGY),
)
_TYPES = {"DM": "low_energy", "CESM": "subtracted", "CM": "subtracted"}
_GRAVITY = ("", "normal", "benign", "malignant")
_CORNERS = 64  # of the polygon that stands for an ellipse
Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Shapes:
    """Outlines drawn on one picture, in its pixels."""

    polygons: tuple[Corners, ...] = ()
    circles: tuple[tuple[float, float, float], ...] = ()  # x, y, radius


@dataclass(frozen=True)
class Picture:
    """One row of a table: a low-energy or a subtracted picture."""

    image: str
    path: Path
    patient: str
    side: str
    view: str
    kind: str  # of KINDS
    age: str
    density: str
    birads: str
    machine: str
    pathology: str
    masks: tuple[Path, ...] = ()
    shapes: Shapes = field(default_factory=Shapes)

    @property
    def exposure(self) -> tuple[str, str, str, str]:
        """What a pair shares; the end of the name tells repeated views apart (`..._MLO_2`)."""
        again = re.sub(r"^.*_(?:DM|CM)_(?:CC|MLO)", "", self.image)
        return self.patient, self.side, self.view, again


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the pictures; option `channels` names those of one exposure that go together.

    Density is told of the low-energy picture only and is taken from there for both. Of the
    pathologies of the channels the gravest counts.
    """
    kinds = tuple(part.strip() for part in options.get("channels", "low_energy").split(","))
    wrong = sorted(set(kinds) - set(KINDS))
    if wrong or len(set(kinds)) < len(kinds):
        raise ConfigError(f"channels {','.join(kinds)!r}: each of {', '.join(KINDS)} at most once")
    copies = folder / "labels.csv"
    pictures = _copies(folder, copies) if copies.is_file() else _released(folder)
    exposures: dict[tuple[str, str, str, str], dict[str, Picture]] = {}
    for picture in pictures:
        exposures.setdefault(picture.exposure, {})[picture.kind] = picture
    release = Release([], TASKS[task])
    for _, found in sorted(exposures.items()):
        if any(kind not in found for kind in kinds):
            release.left_out[f"without {' and '.join(kinds)}"] += 1
            continue
        record = _record([found[kind] for kind in kinds], found, task)
        missing = [path.name for path in record.paths if not path.is_file()]
        if record.label not in release.classes.names:
            release.left_out[f"without a label of {task}"] += 1
        elif missing:
            release.rejected.append((missing[0], "the file is missing"))
        else:
            release.records.append(record)
    return release


def _record(pictures: Sequence[Picture], found: Mapping[str, Picture], task: str) -> Record:
    first = pictures[0]
    low_energy = found.get("low_energy")
    density = low_energy.density if low_energy else ""
    pathology = max((picture.pathology for picture in pictures), key=_GRAVITY.index)
    labels = {"view": first.view, "birads": first.birads}
    label = labels.get(task, class_of_density(task, density) if "density" in task else pathology)
    return Record(
        paths=tuple(picture.path for picture in pictures),
        patient=first.patient,
        image="+".join(picture.image for picture in pictures),
        label=label,
        laterality=first.side,
        view=first.view,
        birads=first.birads,
        density=density,
        age=float(first.age) if first.age.isdecimal() else math.nan,
        subset=f"machine {first.machine}" if first.machine.isdecimal() else "",
        masks=tuple(mask for picture in pictures for mask in picture.masks),
        polygons=tuple(each for picture in pictures for each in picture.shapes.polygons),
        circles=tuple(each for picture in pictures for each in picture.shapes.circles),
    )


def _copies(folder: Path, table: Path) -> list[Picture]:
    kind = "labels.csv (a row for each image)"
    rows = read_table(table, needs=_COPIES, kind=kind)
    refuse_repeated(rows, "image_id", kind=kind)
    inside = Inside(folder)
    pictures = []
    for row in rows:
        mask = inside.path(row["mask"], "column mask of labels.csv") if row["mask"] else None
        pictures.append(
            Picture(
                image=row["image_id"],
                path=inside.path(row["file"], "column file of labels.csv"),
                patient=row["patient_id"],
                side=_one_of(row["laterality"], ("L", "R")),
                view=_one_of(row["view"], ("CC", "MLO")),
                kind=row["type"],
                age=row["age"],
                density=row["density_acr"].strip("_"),
                birads=_worst(row["birads"]),
                machine=row["machine"],
                pathology=_pathology(row["pathology"]),
                masks=(mask,) if mask and mask.is_file() else (),
            )
        )
    return pictures


def _released(folder: Path) -> list[Picture]:
    kind = "annotations (Radiology-manual-annotations, a row for each image)"
    rows = read_table(_find(folder, "annotations"), needs=_RELEASED, kind=kind)
    refuse_repeated(rows, "Image_name", kind=kind)
    paths = {path.stem.strip(): path for path in find_images(folder)}
    shapes = _outlines(folder)
    return [
        Picture(
            image=row["Image_name"],  # stripped: some have a blank at their end
            path=paths.get(row["Image_name"], folder / f"{row['Image_name']}.jpg"),
            patient=f"P{row['Patient_ID']}",
            side=_one_of(row["Side"], ("L", "R")),
            view=_one_of(row["View"], ("CC", "MLO")),
            kind=_TYPES.get(row["Type"], ""),
            age=row["Age"],
            density=row["Breast density (ACR)"].strip("_"),
            birads=_worst(row["BIRADS"]),
            machine=row["Machine"],
            pathology=_pathology(row[_PATHOLOGY]),
            shapes=shapes.get(row["Image_name"], Shapes()),
        )
        for row in rows
        if row["Image_name"] == Path(row["Image_name"]).name
    ]


def _find(folder: Path, what: str) -> Path:
    """The table of the release with `what` in its name, .xlsx before .csv; DataError without."""
    found = find_file(folder, f"*{what}*.xlsx", f"*{what}*.csv")
    if found is None:
        raise DataError(
            f"{folder} has no labels.csv and no Radiology-manual-annotations.xlsx or .csv; "
            "is it the folder of the release?"
        )
    return found


def _one_of(text: str, allowed: Sequence[str]) -> str:
    return text if text in allowed else ""


def _worst(text: str) -> str:
    """The highest BI-RADS of several findings (`4$2`)."""
    return max(text.strip("_").split("$"))


def _pathology(text: str) -> str:
    return _one_of(text.lower(), _GRAVITY)


def _outlines(folder: Path) -> dict[str, Shapes]:
    """Shapes by image from the segmentations as VIA exports them; empty without such a file."""
    tables = sorted(folder.rglob("Radiology_hand_drawn_segmentations*.csv"))
    kind = "segmentations (Radiology_hand_drawn_segmentations, a row for each outline)"
    shapes: dict[str, Shapes] = {}
    for table in tables[-1:]:  # the last version where there are several
        columns = ("#filename", "region_shape_attributes")
        for row in read_table(table, needs=columns, kind=kind, number_as="row"):
            image = Path(row["#filename"]).stem.strip()
            known = shapes.get(image, Shapes())
            try:
                drawn = _shapes(json.loads(row["region_shape_attributes"] or "{}"))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise DataError(
                    f"row {row['row']} of the segmentations is no shape of VIA"
                ) from None
            shapes[image] = Shapes(known.polygons + drawn.polygons, known.circles + drawn.circles)
    return shapes


def _shapes(region: dict[str, Any]) -> Shapes:
    """A region of VIA; single points and what is no area count as none."""
    name = region.get("name", "")
    if name in ("polygon", "polyline"):
        corners = zip(region["all_points_x"], region["all_points_y"], strict=True)
        return Shapes(polygons=(tuple((float(x), float(y)) for x, y in corners),))
    if name == "circle":
        return Shapes(circles=((float(region["cx"]), float(region["cy"]), float(region["r"])),))
    if name == "ellipse":
        return Shapes(polygons=(_ellipse(region),))
    return Shapes()


def _ellipse(region: dict[str, Any]) -> Corners:
    cx, cy, rx, ry = (float(region[key]) for key in ("cx", "cy", "rx", "ry"))
    turned = float(region.get("theta", 0.0))  # radians, clockwise as y points down
    corners = []
    for step in range(_CORNERS):
        angle = 2 * math.pi * step / _CORNERS
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        corners.append(
            (
                cx + x * math.cos(turned) - y * math.sin(turned),
                cy + x * math.sin(turned) + y * math.cos(turned),
            )
        )
    return tuple(corners)
