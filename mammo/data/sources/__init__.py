"""Adapters, one data set a file: each reads a release on disk as a list of records.

An adapter is a module with `read(folder, *, task, options) -> Release` and these constants:
`OFFERS`, the tasks it has labels for, and `OPTIONS`, the settings it understands (without them
`read` itself refuses what it does not know); `CROP`, the crop that suits its pictures;
`FRAMES`, what to take of its multi-frame files (of pixels.FRAMES); `GENERATES`, where
`generate(folder, *, options)` can make the release.
"""

import fnmatch
import importlib
import logging
import os
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import ModuleType

from mammo.data.classes import TASKS, ClassMap
from mammo.data.disclosure import sayable
from mammo.errors import ConfigError, DataError

LOG = logging.getLogger("mammo")
ADAPTERS = tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))
VOLUME_SUFFIXES = (".nii", ".nii.gz")
IMAGE_SUFFIXES = (
    *(".dcm", ".dicom", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff"),
    *VOLUME_SUFFIXES,
)
_LONGEST_PATH = 4095  # bytes, of Linux; other systems allow less
_GENERATED = re.compile(r"(synthetic|augmented|generated)(?![a-z])", re.IGNORECASE)
LEAVE_OUT = "leave_out"  # a class in a class_map: its images are no part of the task


def open_adapter(name: str) -> ModuleType:
    """The module of adapter `name`; ConfigError lists the known ones."""
    if name not in ADAPTERS:
        raise ConfigError(f"unknown dataset {name!r}; choose one of {', '.join(ADAPTERS)}")
    return importlib.import_module(f"{__name__}.{name}")


def check_request(name: str, task: str, options: Mapping[str, str]) -> None:
    """Refuse a task or an option that adapter `name` does not know; `options` holds those given."""
    adapter = open_adapter(name)
    offers = getattr(adapter, "OFFERS", ())
    if offers and _by_assessment(adapter, task) not in offers:
        raise ConfigError(f"task {task!r} has no labels in {name}; it offers {', '.join(offers)}")
    known = getattr(adapter, "OPTIONS", None)
    foreign = [] if known is None else sorted(set(options) - set(known))
    if foreign:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ConfigError(f"{foreign[0]} is not an option of dataset {name}; {takes}")


def task_of(name: str, task: str) -> str:
    """The task that adapter `name` reads for `task`: the one by BI-RADS where that is all it has.

    A release without pathology cannot mean anything else by malignancy2; the classes are the same,
    the kind of label is another, and what is recorded is the task that was read. A release with
    both kinds keeps them apart by their names.
    """
    read = _by_assessment(open_adapter(name), task)
    if read != task:
        LOG.warning(
            "preprocess: %s has no proven %s, its labels are assessments: read as task %s",
            *(name, task, read),
        )
    return read


def _by_assessment(adapter: ModuleType, task: str) -> str:
    offers = getattr(adapter, "OFFERS", ())
    return f"{task}_birads" if task not in offers and f"{task}_birads" in offers else task


def find_images(folder: Path) -> list[Path]:
    """Image files below `folder`, sorted; hidden ones left out. DataError when there is none."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(IMAGE_SUFFIXES)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise DataError(f"no images in {folder}: no file there ends in {', '.join(IMAGE_SUFFIXES)}")
    return found


def require_file(folder: Path, name: str, what: str) -> Path:
    """The file `name` in `folder` or nearest below it; DataError tells what it should hold."""
    found = find_file(folder, name)
    if found is None:
        raise DataError(f"{folder} has no {name} ({what}); is it the folder of the release?")
    return found


def find_file(folder: Path, *names: str) -> Path | None:
    """The file nearest below `folder` that has one of `names`, patterns in letters of any case.

    Of files equally near the first name counts; DataError where it has several, which may be of two
    releases. Folders deeper than the file are not looked into: a release may have half a million.
    """
    level = [folder]
    while level:
        below, here = list[Path](), list[Path]()
        for place in level:
            _, folders, files = next(os.walk(place), ("", [], []))
            # what archives and editors leave is no part of a release
            below += [place / name for name in folders if not name.startswith((".", "__"))]
            here += [place / name for name in files if not name.startswith((".", "__"))]
        for name in names:
            found = [p for p in here if fnmatch.fnmatchcase(p.name.lower(), name.lower())]
            if len(found) > 1:
                raise DataError(
                    f"{folder} holds {len(found)} files {name}; give the folder of one release"
                )
            if found:
                return found[0]
        level = [place for place in below if not place.is_symlink()]
    return None


def refuse_generated(names: Iterable[str], options: Mapping[str, str]) -> None:
    """Refuse a folder or table of generated images, by its name, that would pass for patients."""
    found = [name for name in names if _GENERATED.match(name)]
    if found and "synthetic_origin" not in options:
        raise ConfigError(
            f"{found[0]} holds generated images by its name; name their origin with "
            "synthetic_origin (as 'guidance 3 on EMBED') to import them as synthetic, "
            "or give the real ones alone"
        )


def class_map(task: str, names: list[str], positive: str, label_kind: str = "") -> ClassMap:
    """The map of a known task, or for task `label` one made of the release's own `names`.

    Those are sorted; the positive one is `positive`, else malignant if present, else the last.
    `label_kind` says what told the classes apart; a task has its own, and for `label` it is reader.
    """
    names = sorted(set(names) - {LEAVE_OUT})
    if task == "label":
        if len(names) < 2:
            raise DataError(f"task label needs 2 classes or more, there are {len(names)}")
        usual = "malignant" if "malignant" in names else names[-1]
        if not positive and usual != "malignant":  # as normal of cancer and normal
            said = (
                "preprocess: the positive class is %s, the last by name; --positive names another"
            )
            LOG.warning(said, usual)
        return ClassMap("label", tuple(names), positive or usual, label_kind or "reader")
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; choose label or one of {', '.join(TASKS)}")
    known = TASKS[task]
    unknown = [name for name in names if name not in known.names]
    if unknown:
        raise DataError(
            f"class {sayable(unknown[0])} is not of task {task!r} ({', '.join(known.names)}); "
            f"{len(unknown)} of {len(names)} are not: give a class_map, or task=label to take "
            "the names as they are"
        )
    if positive and positive != known.positive:
        raise ConfigError(f"positive {positive!r}: task {task!r} has {known.positive!r}")
    return replace(known, label_kind=label_kind or known.label_kind)


def parse_class_map(text: str, values: list[str]) -> dict[str, str]:
    """Class of each of the release's `values`; `text` is `malignant=1,benign=0,benign=2`.

    A pair may also be written the other way round (`1=malignant`); without a text each value is
    its own class. What is mapped to `leave_out` is no part of the task. A text that gives a label
    two classes, or that means one thing forth and another back, is refused.
    """
    if not text:
        return {value: value for value in values}
    pairs = [tuple(side.strip() for side in pair.split("=")) for pair in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ConfigError(f"class_map {text!r}: pairs as malignant=1,benign=0 are needed")
    forth, back = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for left, right in pairs:
        forth[right].add(left)
        back[left].add(right)
    told = [
        {value: sorted(each[value]) for value in values}
        for each in (forth, back)
        if set(values) <= set(each)
    ]
    if told:
        twofold = [value for value in values if len(told[0][value]) > 1 or told[0] != told[-1]]
        if twofold:
            raise ConfigError(
                f"class_map {text!r} gives the label {sayable(twofold[0])} two classes, or can be "
                "read both ways; name each label once, as malignant=1,benign=0,benign=2"
            )
        return {value: classes[0] for value, classes in told[0].items()}
    missing = min((sorted(set(values) - set(each)) for each in (forth, back)), key=len)
    raise DataError(
        f"class_map {text!r} has no class for the label {sayable(missing[0])} "
        f"({len(missing)} of {len(values)} labels); name it, or leave it out as {LEAVE_OUT}=…"
    )


class Inside:
    """Paths below `folder`: what leads out of it, by its name or by a link, is refused."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._folder = folder
        self._outside: dict[Path, bool] = {}  # of folders that were looked at

    def path(self, name: str, where: str) -> Path:
        """`folder`/`name`; DataError says `where` the name stands, not the name."""
        pure = PurePosixPath(name.strip().replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise DataError(
                f"a path in {where} is empty or leads out of source; give paths below it"
            )
        if any(len(part.encode()) > 255 for part in pure.parts) or not name.isprintable():
            raise DataError(f"a path in {where} is no file's name; is the column right?")
        if any(part.startswith(".") for part in pure.parts):
            raise DataError(
                f"a path in {where} is hidden: a name in it starts with a dot; rename what it names"
            )
        path = self._folder.joinpath(*pure.parts)
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise DataError(f"a path in {where} is no file's name; is the column right?")
        if self.leaves(path):
            raise DataError(
                f"a path in {where} is a link that leads out of source; copy the files there"
            )
        return path

    def leaves(self, path: Path) -> bool:
        """Whether a link on the way, or at its end, leads out of the folder."""
        if path.is_symlink():
            return not _resolved(path).is_relative_to(self._root)
        parent = path.parent
        if parent not in self._outside:
            self._outside[parent] = not _resolved(parent).is_relative_to(self._root)
        return self._outside[parent]


class Files:
    """Image files anywhere below `folder`, told by the ends of their paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = Inside(folder)
        self._by_stem: defaultdict[str, list[Path]] = defaultdict(list)
        self._looked = False

    def find(self, *ends: str, at: Path | None = None) -> Path:
        """The file `at`, else that of the first of `ends` which any has, as `10006/462822612`.

        It may have any image's suffix; of a DICOM file and its copies the DICOM file is meant.
        DataError where none fits, or several.
        """
        if at is not None and at.is_file():
            return at
        if not self._looked:  # a release as it was published is never searched
            self._look()
        for end in ends:
            parts = tuple(end.split("/"))
            named = self._by_stem.get(parts[-1], [])
            found = [path for path in named if path.parts[-len(parts) : -1] == parts[:-1]]
            dicoms = [path for path in found if path.suffix.lower() in (".dcm", ".dicom")]
            found = dicoms or found
            if len(found) > 1:
                raise DataError(f"the file is there {len(found)} times")
            if found:
                if self._inside.leaves(found[0]):
                    raise DataError("a link that leads out of source; copy the file")
                return found[0]
        raise DataError("the file is missing")

    def _look(self) -> None:
        for path in sorted(self._folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self._folder).parts)
            if path.name.lower().endswith(IMAGE_SUFFIXES) and not hidden:
                self._by_stem[stem_of(path.name)].append(path)
        self._looked = True


def stem_of(name: str) -> str:
    """`name` of a file without an image's suffix; other dots are part of it, as in a UID."""
    suffix = next((each for each in IMAGE_SUFFIXES if name.lower().endswith(each)), "")
    return name[: -len(suffix)] if suffix else name


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links that lead to each other
        raise DataError("a folder or file of source is a link that leads to itself") from None
