"""DDSM in film pictures: mini-DDSM (a table, JPEG or PNG) and converted cases of the original.

mini-DDSM: Benign/0029/C_0029_1.LEFT_CC.jpg, masks C_0029_1.LEFT_CC_Mask.jpg, DataWMask.xlsx.
Original (Heath et al. 2000): C_0029_1.LEFT_CC.OVERLAY (outlines and pathology by abnormality) and
C-0029-1.ics (age, density, size of the scans) beside pictures converted from its LJPEG files.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammo.data.classes import TASKS, class_of_density
from mammo.data.release import Record, Release
from mammo.data.sources import Inside, find_file, find_images
from mammo.data.tables import read_table, refuse_repeated
from mammo.errors import DataError

OFFERS = ("malignancy2", "normal_benign_malignant", "view", "density4", "density2")
OPTIONS: tuple[str, ...] = ()
CROP = "film"
_TABLES = ("DataWMask.xlsx", "DataWMask.csv")
_COLUMNS = ("fullPath", "Status", "Tumour_Contour")  # side and view are in the names too
_NAME = re.compile(
    r"(?P<case>[A-Z]_\d{4})_(?P<number>\d+)\.(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)(?P<rest>.*)",
    re.IGNORECASE,
)
_STATUS = {"normal": "normal", "benign": "benign", "cancer": "malignant"}
_PATHOLOGY = {  # UNPROVEN has no class
    "MALIGNANT": "malignant",
    "BENIGN": "benign",
    "BENIGN_WITHOUT_CALLBACK": "benign",
}
_GRAVITY = ("", "normal", "benign", "malignant")
_DENSITIES = {"1": "A", "2": "B", "3": "C", "4": "D"}
# Step (x, y) of each value of a chain code, y downwards: 0 is up, the others follow clockwise
_STEPS = ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1))
_SIDES = ("LEFT", "RIGHT")
_VIEWS = ("CC", "MLO")
_NO_NAME = "its name is not one of DDSM, as C_0029_1.LEFT_CC"
Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Film:
    """One picture with what table, overlay and case file tell of it."""

    path: Path
    case: str  # C_0029: the patient
    number: str  # of the case's films; 1 always
    side: str  # LEFT or RIGHT
    view: str  # CC or MLO
    status: str  # of the case: normal, benign or malignant; empty where unknown
    masks: tuple[Path, ...] = ()
    marked: bool = False  # a lesion is marked in it
    age: str = ""
    density: str = ""  # 1 to 4
    pathology: str = ""  # the gravest of its overlay
    polygons: tuple[Corners, ...] = ()
    pixel_mm: float = math.nan

    @property
    def name(self) -> str:
        """C_0029_1.LEFT_CC"""
        return f"{self.case}_{self.number}.{self.side}_{self.view}"


@dataclass(frozen=True)
class Scan:
    """What a case file (.ics) says of one film."""

    age: str
    density: str
    columns: int  # of the scan; a converted picture may be smaller
    resolution_um: float


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read the films of DataWMask.xlsx (or .csv) or, without it, those of the folders.

    The status of a case (table or folder) is not that of both breasts: only a breast with a
    marked lesion has it, the other one has no proven label. An overlay tells the pathology itself.
    """
    release = Release([], TASKS[task])
    table = find_file(folder, *_TABLES)
    films: dict[str, Film] = {}
    for film in _of_table(table, release) if table else _of_folders(folder, release):
        try:
            if film.name in films:
                raise DataError("two pictures are of the same film")
            films[film.name] = _with_original(film)
        except DataError as error:
            release.rejected.append((film.path.name, str(error)))
    pathologies = _of_breasts(films.values())
    for _, film in sorted(films.items()):
        pathology = pathologies[film.case, film.side]
        label = _label(task, film, pathology)
        if label in release.classes.names:
            release.records.append(_record(film, label))
        elif not pathology and "malignan" in task:
            release.left_out["of a breast with no proven lesion, in a case with one"] += 1
        else:
            release.left_out[f"without a label of {task}"] += 1
    return release


def _label(task: str, film: Film, pathology: str) -> str:
    if task == "view":
        return film.view
    if task in ("density2", "density4"):
        return class_of_density(task, _DENSITIES.get(film.density, ""))
    return pathology


def _of_breasts(films: Iterable[Film]) -> dict[tuple[str, str], str]:
    """Pathology of each breast (case, side), over its views; empty where none is proven."""
    found: dict[tuple[str, str], str] = {}
    for film in films:
        status = film.status if film.status == "normal" or film.marked else ""
        known = found.get((film.case, film.side), "")
        found[film.case, film.side] = max(known, film.pathology or status, key=_GRAVITY.index)
    return found


def _record(film: Film, label: str) -> Record:
    return Record(
        paths=(film.path,),
        patient=film.case,
        image=film.name,
        label=label,
        laterality=film.side[0],
        view=film.view,
        density=_DENSITIES.get(film.density, ""),
        age=float(film.age) if film.age.isdecimal() and int(film.age) else math.nan,
        pixel_mm=film.pixel_mm,
        masks=film.masks,
        polygons=film.polygons,
    )


def _of_table(table: Path, release: Release) -> Iterator[Film]:
    """Films of mini-DDSM's table; its paths have backslashes and `-` stands for no mask."""
    kind = "DataWMask (a row for each image)"
    rows = read_table(table, needs=_COLUMNS, kind=kind)
    refuse_repeated(rows, "fullPath", kind=kind)
    inside = Inside(table.parent)
    for row in rows:
        path = _present(inside.path(row["fullPath"], "column fullPath of DataWMask"))
        if path is None or (name := _NAME.fullmatch(path.stem)) is None:
            reason = "the file is missing" if path is None else _NO_NAME
            release.rejected.append((row["fullPath"], reason))
            continue
        contours = [row[column] for column in row if column.startswith("Tumour_Contour")]
        masks = [
            _present(inside.path(contour, "a column Tumour_Contour of DataWMask"))
            for contour in contours
            if contour not in ("", "-")
        ]
        yield Film(
            path=path,
            case=name["case"].upper(),
            number=name["number"],
            side=_one_of(_SIDES, row.get("Side", ""), name["side"]),
            view=_one_of(_VIEWS, row.get("View", ""), name["view"]),
            status=_STATUS.get(row["Status"].lower(), ""),
            masks=tuple(mask for mask in masks if mask),
            marked=bool(masks),
            age=row.get("Age", ""),
            density=row.get("Density", ""),
        )


def _one_of(known: Sequence[str], *texts: str) -> str:
    """The first of `texts` that is one of `known`."""
    return next((text.upper() for text in texts if text.upper() in known), "")


def _present(path: Path) -> Path | None:
    """`path`, or its copy in 16-bit PNG, which the release's table names as if it were JPEG."""
    return next((each for each in (path, path.with_suffix(".png")) if each.is_file()), None)


def _of_folders(folder: Path, release: Release) -> list[Film]:
    """Films below `folder` by their names, the status by the folders' names."""
    films: list[Film] = []
    masks: dict[str, list[Path]] = {}
    for path in find_images(folder):
        name = _NAME.fullmatch(path.stem)
        if name is None or not re.match(r"$|\.|_mask", name["rest"].lower()):
            release.rejected.append((path.name, _NO_NAME))
            continue
        folders = " ".join(path.relative_to(folder).parts[:-1]).lower()
        status = next((_STATUS[word] for word in _STATUS if word in folders), "")
        case, number, side, view = (text.upper() for text in name.groups()[:4])
        film = Film(path, case, number, side, view, status)
        if name["rest"].lower().startswith("_mask"):
            masks.setdefault(film.name, []).append(path)
        else:
            films.append(film)
    return [
        replace(film, masks=tuple(masks.get(film.name, ())), marked=film.name in masks)
        for film in films
    ]


def _with_original(film: Film) -> Film:
    """`film` with what the original's files beside it tell; unchanged where there are none."""
    scan = _scan(film)
    overlay = film.path.with_name(f"{film.name}.OVERLAY")
    if scan:
        film = replace(film, age=film.age or scan.age, density=film.density or scan.density)
    scale = _width(film.path) / scan.columns if scan and scan.columns else 1.0
    if scan and scan.resolution_um:
        film = replace(film, pixel_mm=scan.resolution_um / 1000 / scale)
    if not overlay.is_file():
        return film
    pathologies, outlines = read_overlay(overlay.read_text(encoding="latin-1"))
    gravest = max((_PATHOLOGY.get(each, "") for each in pathologies), key=_GRAVITY.index)
    scaled = (tuple((x * scale, y * scale) for x, y in outline) for outline in outlines)
    return replace(film, pathology=gravest, polygons=tuple(scaled))


def _width(path: Path) -> int:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width
    except (OSError, ValueError):
        raise DataError("its size cannot be read, which its overlay needs") from None


def _scan(film: Film) -> Scan | None:
    """The film's part of its case file, C-0029-1.ics; the dates in it are left alone."""
    case = film.path.with_name(f"{film.case.replace('_', '-')}-{film.number}.ics")
    if not case.is_file():
        return None
    told: dict[str, list[str]] = {}
    for line in case.read_text(encoding="latin-1").splitlines():
        words = line.split()
        if words:
            told[words[0]] = words[1:]
    image = told.get(f"{film.side}_{film.view}", [])
    values = dict(zip(image[::2], image[1::2], strict=False))
    try:
        return Scan(
            age=next(iter(told.get("PATIENT_AGE", [])), ""),
            density=next(iter(told.get("DENSITY", [])), ""),
            columns=int(values.get("PIXELS_PER_LINE", 0)),
            resolution_um=float(values.get("RESOLUTION", 0)),
        )
    except ValueError:
        raise DataError("its case file (.ics) has no numbers for the size of the scan") from None


def read_overlay(text: str) -> tuple[list[str], list[Corners]]:
    """Pathologies and outer outlines of an overlay file, in pixels of the original scan.

    The core of a lesion, where it has one, lies within its boundary and is left alone.
    """
    words = text.split()
    pathologies, outlines = [], []
    for place, word in enumerate(words):
        if word == "PATHOLOGY":
            pathologies.append(words[place + 1] if place + 1 < len(words) else "")
        elif word == "BOUNDARY":
            end = words.index("#", place) if "#" in words[place:] else len(words)
            outlines.append(follow_chain(words[place + 1 : end]))
    if not pathologies:
        raise DataError("its overlay names no pathology")
    return pathologies, outlines


def follow_chain(words: Sequence[str]) -> Corners:
    """Corners (x, y) of a chain code: the first pixel, then a direction for each step."""
    try:
        x, y, *directions = (int(word) for word in words)
        corners = [(float(x), float(y))]
        for place, direction in enumerate(directions):
            if direction < 0:
                raise IndexError
            x, y = x + _STEPS[direction][0], y + _STEPS[direction][1]
            if directions[place + 1 : place + 2] != [direction]:  # else within a straight run
                corners.append((float(x), float(y)))
    except (ValueError, IndexError):
        raise DataError("its overlay has an outline that is no chain code") from None
    return tuple(corners[:-1] if len(corners) > 1 and corners[-1] == corners[0] else corners)
