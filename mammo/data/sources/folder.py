"""A folder a class: `<class>/<file>` or `<class>/<sample>/<file>`, also below `original/`."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mammo.data.disclosure import unlike_labels
from mammo.data.pixels import is_dicom, read_header
from mammo.data.release import Record, Release
from mammo.data.sources import (
    LEAVE_OUT,
    VOLUME_SUFFIXES,
    Inside,
    class_map,
    find_images,
    parse_class_map,
    refuse_generated,
)
from mammo.errors import ConfigError, DataError

LOG = logging.getLogger("mammo")
OPTIONS = ("positive", "class_map", "label_kind", "patient_pattern", "synthetic_origin")
_MASK = re.compile(r"_mask(_\d+)?$")  # `x_mask.png` and `x_mask_1.png` belong to `x.png`


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read all images; the folder's name, or what `class_map` makes of it, is the class.

    Of a sample's folder with NIfTI files the first by name is the image. The patient is the group
    of the regular expression `patient_pattern` in the file's path below its class; without one it
    is the PatientID of DICOM files, and any other image is taken for a patient of its own.
    """
    root = _root(folder, options)
    files = find_images(root)
    stray = sum(1 for path in files if path.parent == root)
    if stray == len(files):
        raise DataError(f"{root} has {stray} images but no class folders; put each in its class's")
    files = [path for path in files if path.parent != root]
    masks = _masks(files)
    images, further = _firsts([path for path in files if not _MASK.search(_stem(path))], root)
    kinds = [path.relative_to(root).parts[0] for path in images]
    unlike = unlike_labels(kinds)
    if unlike:
        raise DataError(
            f"the folders in {root} have {unlike}; put each image into the folder of its class"
        )
    named = sorted(set(kinds))
    class_of = parse_class_map(options.get("class_map", ""), named)
    classes = class_map(
        task, list(class_of.values()), options.get("positive", ""), options.get("label_kind", "")
    )
    missing = [name for name in classes.names if name not in class_of.values()]
    if missing:
        LOG.warning("preprocess: no folder holds images of class %s", ", ".join(missing))
    patients, how = _patients(images, root, options.get("patient_pattern", ""))
    release = Release([], classes, notes={"group": how})
    release.left_out["beside the first volume of a sample"] += further
    release.left_out["beside the class folders"] += stray
    inside = Inside(root)
    for path in images:
        inner = path.relative_to(root)
        patient = patients[path]
        if class_of[inner.parts[0]] == LEAVE_OUT:
            release.left_out[f"of a class that is left out ({LEAVE_OUT})"] += 1
        elif any(inside.leaves(each) for each in (path, *masks[_bare(path)])):
            release.rejected.append((str(inner), "a link that leads out of source; copy the file"))
        elif patient is None:
            release.rejected.append((str(inner), "its header cannot be read: truncated or broken"))
        else:
            release.records.append(
                Record(
                    paths=(path,),
                    patient=patient,
                    image=str(inner),
                    label=class_of[inner.parts[0]],
                    masks=tuple(masks[_bare(path)]),
                )
            )
    release.left_out += Counter()  # drops the counts of 0
    return release


def _root(folder: Path, options: Mapping[str, str]) -> Path:
    """The folder of the class folders: of the real images, or of generated ones on request."""
    real = folder / "original"
    if "synthetic_origin" in options and real.is_dir():
        raise ConfigError(
            "source holds the real images too (original); with synthetic_origin give the folder of "
            "the generated ones"
        )
    root = real if real.is_dir() else folder
    below = sorted(path.name for path in root.iterdir() if path.is_dir())
    refuse_generated([root.name, *below], options)
    return root


def _stem(path: Path) -> str:
    """The file's name without its suffix, which for a volume may be `.nii.gz`."""
    ending = next((each for each in VOLUME_SUFFIXES if path.name.lower().endswith(each)), "")
    return path.name[: -len(ending)] if ending else path.stem


def _bare(path: Path) -> Path:
    return path.with_name(_stem(path))


def _masks(files: Sequence[Path]) -> defaultdict[Path, list[Path]]:
    """Mask files by the path of their image, without its suffix."""
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        if _MASK.search(_stem(path)):
            found[path.with_name(_MASK.sub("", _stem(path)))].append(path)
    return found


def _firsts(images: Sequence[Path], root: Path) -> tuple[list[Path], int]:
    """`images` with the first volume alone of each sample's folder, and how many that leaves."""
    kept, seen = [], set[Path]()
    for path in images:  # sorted
        volume = path.name.lower().endswith(VOLUME_SUFFIXES)
        if volume and path.parent.parent != root:
            if path.parent in seen:
                continue
            seen.add(path.parent)
        kept.append(path)
    return kept, len(images) - len(kept)


def _patients(
    images: Sequence[Path], root: Path, pattern: str
) -> tuple[dict[Path, str | None], str]:
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
