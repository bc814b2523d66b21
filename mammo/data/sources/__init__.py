"""Adapters, one data set a file: each reads a release on disk as a list of records.

An adapter is a module with `read(folder, *, task, options) -> Release` and these constants:
`OFFERS`, the tasks it has labels for, and `OPTIONS`, the settings it understands (without them
`read` itself refuses what it does not know); `CROP`, the crop that suits its pictures;
`FRAMES`, what to take of its multi-frame files (of prepare.FRAMES); `GENERATES`, where
`generate(folder, *, options)` can make the release.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from mammo.data.classes import TASKS, ClassMap
from mammo.errors import ConfigError, DataError

ADAPTERS = tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))
IMAGE_SUFFIXES = (".dcm", ".dicom", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff")


def open_adapter(name: str) -> ModuleType:
    """The module of adapter `name`; ConfigError lists the known ones."""
    if name not in ADAPTERS:
        raise ConfigError(f"unknown dataset {name!r}; choose one of {', '.join(ADAPTERS)}")
    return importlib.import_module(f"{__name__}.{name}")


def check_request(name: str, task: str, options: Mapping[str, str]) -> None:
    """Refuse a task or an option that adapter `name` does not know; `options` holds those given."""
    adapter = open_adapter(name)
    offers = getattr(adapter, "OFFERS", ())
    if offers and task not in offers:
        raise ConfigError(f"task {task!r} has no labels in {name}; it offers {', '.join(offers)}")
    known = getattr(adapter, "OPTIONS", None)
    foreign = [] if known is None else sorted(set(options) - set(known))
    if foreign:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ConfigError(f"{foreign[0]} is not an option of dataset {name}; {takes}")


def find_images(folder: Path) -> list[Path]:
    """Image files below `folder`, sorted; hidden ones left out. DataError when there is none."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise DataError(f"no images in {folder}: no file there ends in {', '.join(IMAGE_SUFFIXES)}")
    return found


def require_file(folder: Path, name: str, what: str) -> Path:
    """`folder`/`name`; DataError tells what the release should hold there."""
    path = folder / name
    if not path.exists():
        raise DataError(f"{folder} has no {name} ({what}); is it the folder of the release?")
    return path


def class_map(task: str, names: list[str], positive: str) -> ClassMap:
    """The map of a known task, or for task `label` one made of the release's own `names`.

    Those are sorted; the positive one is `positive`, else malignant if present, else the last.
    """
    if task == "label":
        ordered = tuple(sorted(names))
        usual = "malignant" if "malignant" in ordered else ordered[-1]
        return ClassMap("label", ordered, positive or usual, "reader")
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; choose label or one of {', '.join(TASKS)}")
    known = TASKS[task]
    unknown = sorted(set(names) - set(known.names))
    if unknown:
        raise DataError(
            f"class {unknown[0]!r} is not of task {task!r} ({', '.join(known.names)}); "
            "give task=label to take the names as they are, or a class_map"
        )
    if positive and positive != known.positive:
        raise ConfigError(f"positive {positive!r}: task {task!r} has {known.positive!r}")
    return known


def parse_class_map(text: str, values: list[str]) -> dict[str, str]:
    """Class of each of the release's `values`; `text` is `malignant=1,benign=0,benign=2`.

    A pair may also be written the other way round (`1=malignant`); without a text each value is
    its own class.
    """
    if not text:
        return {value: value for value in values}
    pairs = [tuple(side.strip() for side in pair.split("=")) for pair in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ConfigError(f"class_map {text!r}: pairs as malignant=1,benign=0 are needed")
    forth = {pair[1]: pair[0] for pair in pairs}
    back = {pair[0]: pair[1] for pair in pairs}
    for mapping in (forth, back):
        if set(values) <= set(mapping):
            return {value: mapping[value] for value in values}
    missing = sorted(set(values) - set(forth))
    raise DataError(f"class_map {text!r} has no class for the label {missing[0]!r}")
