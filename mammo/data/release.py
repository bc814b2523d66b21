"""A release on disk as its adapter reads it: one record an image, with the original names in it.

Nothing here leaves the step `preprocess`, which hashes patients, exams and images.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mammo.data.classes import ClassMap
from mammo.errors import ConfigError

# What may be wrong with an image for the question at hand; the setting `exclude` leaves them out.
FLAGS = (
    "implant",  # an implant in the picture, displaced views included
    "magnification",
    "spot",  # spot compression
    "biopsy",  # taken after a biopsy, or of a specimen
    "marked",  # lines, callipers or words drawn into the picture
)
STRATA = ("label", "vendor", "subset", "density", "birads")  # what patients can be stratified by


@dataclass(frozen=True)
class Record:
    """One image of a release: its files, whose it is, what it shows. Empty text means unknown."""

    paths: tuple[Path, ...]  # one file a channel, all of the same size
    patient: str  # original ids: never logged, never stored outside private/
    image: str  # unique in the release
    label: str  # a class name of the release's class map
    exam: str = ""
    laterality: str = ""  # L or R
    view: str = ""  # CC or MLO
    birads: str = ""
    density: str = ""  # A to D, or the release's own letters
    age: float = float("nan")  # years
    vendor: str = ""
    subset: str = ""  # a named part of the release
    pixel_mm: float = float("nan")  # of the files; nan lets the file's own header speak
    masks: tuple[Path, ...] = ()  # lesions, 0 outside; several are joined
    circles: tuple[tuple[float, float, float], ...] = ()  # lesions (x, y, radius) in file pixels
    polygons: tuple[tuple[tuple[float, float], ...], ...] = ()  # lesions, corners (x, y)
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # lesions, x0, y0, x1, y1 (outside)
    slice_index: int = -1  # of a volume (NIfTI, multi-frame DICOM); -1 leaves it to `frames`
    may_be_turned: bool = False  # stored upside down where the wall is not on laterality's side
    planes: tuple[int, ...] = ()  # slices of `paths`, then of `masks`, where one file holds all
    flags: tuple[str, ...] = ()  # of FLAGS
    split: str = ""  # train, val or test where the release prescribes it
    extra: Mapping[str, str] = field(default_factory=dict)  # further columns of the manifest


@dataclass
class Release:
    """All images of a release that a task can use, and why the others cannot be used."""

    records: list[Record]  # in the order of the release, always the same
    classes: ClassMap
    rejected: list[tuple[str, str]] = field(default_factory=list)  # (original name, reason)
    notes: dict[str, str] = field(default_factory=dict)  # what the run must say, as `group: image`
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> images; no names in it


def select(release: Release, *, subsets: frozenset[str], exclude: frozenset[str]) -> None:
    """Keep the records of `subsets` (empty: all) that bear no flag of `exclude`; count the rest."""
    known = {record.subset for record in release.records}
    if subsets - known:
        raise ConfigError(
            f"subset {min(subsets - known)!r} is not in the release; "
            f"it has {', '.join(sorted(known - {''})) or 'none'}"
        )
    kept = []
    for record in release.records:
        flags = exclude.intersection(record.flags)
        if subsets and record.subset not in subsets:
            release.left_out["of another subset"] += 1
        elif flags:
            release.left_out[f"{min(flags)} (exclude)"] += 1
        else:
            kept.append(record)
    release.records = kept
