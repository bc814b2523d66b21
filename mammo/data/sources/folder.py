"""A folder a class: `<class>/<file>` or `<class>/<sample>/<file>`, also below `original/`."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mammo.data.pixels import is_dicom, read_header
from mammo.data.release import Record, Release
from mammo.data.sources import class_map, find_images, parse_class_map
from mammo.errors import ConfigError, DataError

OPTIONS = ("positive", "class_map", "patient_pattern")
_MASK = re.compile(r"_mask(_\d+)?$")  # `x_mask.png` and `x_mask_1.png` belong to `x.png`


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read all images; the folder's name, or what `class_map` makes of it, is the class.

    The patient is the group of the regular expression `patient_pattern` in the file's path below
    its class; without one it is the PatientID of DICOM files, and any other image is taken for a
    patient of its own.
    """
    root = folder / "original" if (folder / "original").is_dir() else folder
    files = find_images(root)
    stray = sum(1 for path in files if path.parent == root)
    if stray == len(files):
        raise DataError(f"{root} has {stray} images but no class folders; put each in its class's")
    files = [path for path in files if path.parent != root]
    masks = _masks(files)
    images = [path for path in files if not _MASK.search(path.stem)]
    named = sorted({path.relative_to(root).parts[0] for path in images})
    class_of = parse_class_map(options.get("class_map", ""), named)
    classes = class_map(task, sorted(set(class_of.values())), options.get("positive", ""))
    patients, how = _patients(images, root, options.get("patient_pattern", ""))
    release = Release([], classes, notes={"group": how})
    for path in images:
        inner = path.relative_to(root)
        patient = patients[path]
        if patient is None:
            release.rejected.append((str(inner), "its header cannot be read: truncated or broken"))
            continue
        release.records.append(
            Record(
                paths=(path,),
                patient=patient,
                image=str(inner),
                label=class_of[inner.parts[0]],
                masks=tuple(masks[path.with_suffix("")]),
            )
        )
    return release


def _masks(files: list[Path]) -> defaultdict[Path, list[Path]]:
    """Mask files by the path of their image, without its suffix."""
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        if _MASK.search(path.stem):
            found[path.with_name(_MASK.sub("", path.stem))].append(path)
    return found


def _patients(images: list[Path], root: Path, pattern: str) -> tuple[dict[Path, str | None], str]:
    """Patient of each image (None: unreadable), and how they were told apart."""
    inner = {path: path.relative_to(root) for path in images}
    if pattern:
        return _by_pattern(inner, pattern), "patient_pattern"
    if all(is_dicom(path) for path in images):
        told = {path: _patient_id(path) for path in images}
        if all(patient != "" for patient in told.values()):
            return dict(told), "PatientID of the headers"
    return {path: str(name) for path, name in inner.items()}, "image (no patient_pattern given)"


def _by_pattern(inner: Mapping[Path, Path], pattern: str) -> dict[Path, str | None]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"patient_pattern {pattern!r} is no regular expression: {error}"
        ) from None
    if expression.groups != 1:
        raise ConfigError(
            f"patient_pattern {pattern!r} has {expression.groups} groups; 1 is needed"
        )
    found = {path: expression.search("/".join(name.parts[1:])) for path, name in inner.items()}
    missed = sum(match is None or not match.group(1) for match in found.values())
    if missed:
        raise DataError(
            f"patient_pattern {pattern!r} finds no patient in {missed} of {len(found)} paths; "
            "it is matched against the path below the class folder"
        )
    return {path: match.group(1) for path, match in found.items() if match}


def _patient_id(path: Path) -> str | None:
    try:
        return str(read_header(path, ["PatientID"]).get("PatientID") or "")
    except DataError:
        return None
