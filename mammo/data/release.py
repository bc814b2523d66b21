"""A release on disk as its adapter reads it: one record an image, with the original names in it.

Nothing here leaves the step `preprocess`, which hashes patients, exams and images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mammo.data.classes import ClassMap


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
    split: str = ""  # train, val or test where the release prescribes it
    extra: Mapping[str, str] = field(default_factory=dict)  # further columns of the manifest


@dataclass
class Release:
    """All images of a release that a task can use, and why the others cannot be used."""

    records: list[Record]  # in the order of the release, always the same
    classes: ClassMap
    rejected: list[tuple[str, str]] = field(default_factory=list)  # (original name, reason)
    notes: dict[str, str] = field(default_factory=dict)  # what the run must say, as `group: image`
