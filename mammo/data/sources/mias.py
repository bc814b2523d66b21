"""mini-MIAS: 322 digitised film mammograms, MLO, of 161 patients (Suckling et al. 1994).

Read as it was released (Info.txt and the PGM files) and as a table with smaller copies
(labels_per_image.csv and png512/); both give the same records.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammo.data.classes import TASKS
from mammo.data.release import Record, Release
from mammo.data.sources import find_file, find_images, require_file
from mammo.data.tables import read_table
from mammo.errors import DataError

OPTIONS: tuple[str, ...] = ()
CROP = "film"
_SIDE = 1024  # pixels of the release's square pictures, in which its circles are given
_PIXEL_MM = 0.2  # at that size
_TABLE = "labels_per_image.csv"
_COLUMNS = ("image_id", "tissue", "label", "rois_cls_sev_x_ytop_r")
# mdb005 F CIRC B 477 133 30; a normal film ends after NORM, `*NOTE 3*` stands for no circle
_FINDING = re.compile(
    r"(?P<image>mdb(?P<number>\d{3}))\s+(?P<tissue>[FGD])\s+(?P<kind>[A-Z]{4})"
    r"(?:\s+(?P<severity>[BM]))?(?:\s+(?P<x>\d+)\s+(?P<y>\d+)\s+(?P<r>\d+))?(?:\s*\*NOTE 3\*)?\s*"
)


@dataclass(frozen=True)
class Film:
    """What a table says of one image; circles (x, y, r) in pixels of the release, y downwards."""

    image: str
    tissue: str  # F, G or D: fatty, fatty-glandular, dense-glandular
    label: str  # normal, benign or malignant; the worst of several findings
    circles: tuple[tuple[float, float, float], ...]


_LABELS: dict[str, Callable[[Film], str]] = {
    "density2": lambda film: "dense" if film.tissue == "D" else "not_dense",
    "malignancy2": lambda film: film.label if film.label != "normal" else "",
    "normal_benign_malignant": lambda film: film.label,
}
OFFERS = tuple(_LABELS)


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the films of labels_per_image.csv or, without that, of Info.txt.

    The pictures may lie anywhere below `folder`, of any size; a PGM file goes before a copy.
    """
    table = find_file(folder, _TABLE)
    films = _of_table(table) if table else _of_info(folder)
    pictures: dict[str, Path] = {}
    for path in sorted(find_images(folder), key=lambda path: (path.suffix.lower() != ".pgm", path)):
        pictures.setdefault(path.stem.lower(), path)
    release = Release([], TASKS[task])
    for film in films:
        label = _LABELS[task](film)
        if not label:
            release.left_out[f"without a label of {task}"] += 1
        elif film.image in pictures:
            release.records.append(_record(film, pictures[film.image], label))
        else:
            release.rejected.append((film.image, "the file is missing"))
    return release


def _of_table(table: Path) -> list[Film]:
    kind = f"{_TABLE} (a row for each image)"
    films = []
    for row in read_table(table, needs=_COLUMNS, kind=kind, number_as="row"):
        told = (row["image_id"], row["tissue"], row["label"])
        if not re.fullmatch(r"mdb\d{3}", told[0]) or told[2] not in _severities().values():
            raise DataError(f"row {row['row']} of {_TABLE} has no mdbNNN with a label of MIAS")
        films.append(Film(*told, tuple(_circles(row["rois_cls_sev_x_ytop_r"], row["row"]))))
    return films


def _severities() -> dict[str, str]:
    return {"": "normal", "B": "benign", "M": "malignant"}


def _circles(text: str, row: str) -> Iterator[tuple[float, float, float]]:
    """Circles of `CIRC:B:477:891:30;...`: class, severity, x, y from the top, radius."""
    for part in filter(None, text.split(";")):
        try:
            x, y, radius = (float(number) for number in part.split(":")[2:5])
        except ValueError:
            raise DataError(f"row {row} of {_TABLE} has a circle without x, y and r") from None
        yield x, y, radius


def _of_info(folder: Path) -> list[Film]:
    """Films of Info.txt, a row a finding; its y counts from the bottom."""
    info = require_file(folder, "Info.txt", "a row for each finding")
    found: dict[str, list[re.Match[str]]] = {}
    # latin-1 reads any byte: the prose around the rows may be of any encoding
    for number, line in enumerate(info.read_text(encoding="latin-1").splitlines(), start=1):
        if not re.match(r"mdb\d", line):
            continue
        finding = _FINDING.fullmatch(line.strip())
        if finding is None or (finding["kind"] == "NORM") != (finding["severity"] is None):
            raise DataError(f"line {number} of Info.txt is no finding as mini-MIAS writes it")
        found.setdefault(finding["image"], []).append(finding)
    if not found:
        raise DataError("Info.txt has no finding; a line is `mdb001 G CIRC B 535 425 197`")
    return [_film(image, findings) for image, findings in found.items()]


def _film(image: str, findings: list[re.Match[str]]) -> Film:
    worst = max(finding["severity"] or "" for finding in findings)  # "" < B < M
    circles = tuple(
        (float(each["x"]), _SIDE - float(each["y"]), float(each["r"]))
        for each in findings
        if each["x"]
    )
    return Film(image, findings[0]["tissue"], _severities()[worst], circles)


def _record(film: Film, path: Path, label: str) -> Record:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            scale = image.width / _SIDE
    except (OSError, UnidentifiedImageError, ValueError):
        scale = 1.0  # the decoder will tell what is wrong with the file
    number = int(film.image[3:])
    return Record(
        paths=(path,),
        patient=f"MIAS{(number + 1) // 2:03d}",  # films 2k-1 and 2k are the breasts of one patient
        image=film.image,
        label=label,
        laterality="R" if number % 2 else "L",
        view="MLO",
        density=film.tissue,
        pixel_mm=_PIXEL_MM / scale,
        circles=tuple((x * scale, y * scale, r * scale) for x, y, r in film.circles),
    )
