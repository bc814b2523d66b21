"""Volumes of system 4: `<patient>/{bravo,seg}.nii.gz` of (H, W, D), each slice an image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mammo.data.disclosure import unlike_labels
from mammo.data.release import Record, Release
from mammo.data.slices import Volume, filled_slices
from mammo.data.sources import (
    LEAVE_OUT,
    VOLUME_SUFFIXES,
    Inside,
    class_map,
    parse_class_map,
    refuse_generated,
)
from mammo.data.sources.csv import SPLIT_WORDS
from mammo.data.tables import read_table
from mammo.errors import ConfigError, DataError

OPTIONS = (
    "channels", "mask_file", "slices", "planes", "csv", "patient_column", "label_column",
    "split_column", "class_map", "label_kind", "positive", "synthetic_origin",
)  # fmt: skip
CROP = "none"  # a slice of a volume has no chest wall to find
EMPTY, LESION = "no_lesion", "lesion"  # of a slice by its mask, where no table gives the label
CHANNEL, MASK = "bravo", "seg"  # the public system's names of files
SLICE, FILE = "slice", "file"  # columns of the table: a label for each slice, or for each file
_ROW = "\0row"  # where `read_table` puts the row's number; no header can hold a NUL
Labels = dict[int, tuple[str, str]]  # label and split by slice


def read(folder: Path, *, task: str, options: Mapping[str, str]) -> Release:
    """Read slices: `channels` (bravo by default), with the mask in `mask_file` (seg by default).

    The label of a slice is that of the table `csv` (by `patient_column` and a column `slice` if
    there is one; with `planes` by a column `file`), else whether its mask marks a lesion. With
    `planes` each file is one image, its channels and mask side by side as (H, W, planes), of the
    patient in `patient_column` or, without that, of nobody else's.
    """
    every = _every(options.get("slices", ""))
    refuse_generated([folder.name, Path(options.get("csv", "")).name], options)
    _refuse_without_table(options)
    told, people = _read_labels(folder, options) if "csv" in options else (None, {})
    if "planes" in options:
        volumes = _side_by_side(folder, options, told)
    else:
        volumes = _apart(folder, options)
    inside, rejected, left_out = Inside(folder), list[tuple[str, str]](), Counter[str]()
    found: list[tuple[Volume, int, str, str]] = []  # volume, slice, label, split
    for volume in volumes:
        try:
            if any(inside.leaves(path) for path in volume.files):
                raise DataError("a link that leads out of source; copy the file")
            labels = _labels(volume, told, left_out)
            taken = _taken(volume, labels, every, left_out)
        except DataError as error:
            rejected.append((volume.patient, str(error)))
            continue
        found += [(volume, number, *labels[number]) for number in taken]
    _refuse_unlike_labels([label for _, _, label, _ in found])
    values = sorted({label for _, _, label, _ in found})
    class_of = parse_class_map(options.get("class_map", ""), values)
    by_mask = told is None and "class_map" not in options
    classes = class_map(
        task,
        [EMPTY, LESION] if by_mask else list(class_of.values()),
        options.get("positive", LESION if by_mask and task == "label" else ""),
        options.get("label_kind", ""),
    )
    used = [each for each in found if class_of[each[2]] != LEAVE_OUT]
    left_out[f"of a class that is left out ({LEAVE_OUT})"] += len(found) - len(used)
    records = [
        _record(volume, people.get(volume.patient, volume.patient), number, class_of[label], split)
        for volume, number, label, split in used
    ]
    how = "image (no patient_column given)" if "planes" in options else "patient's folder"
    notes = {"group": "patient_column" if people else how}
    return Release(records, classes, rejected, notes, +left_out)


def _record(volume: Volume, patient: str, number: int, label: str, split: str) -> Record:
    return Record(
        paths=volume.paths,
        patient=patient,
        exam=volume.patient,
        image=f"{volume.patient}#{number}",
        label=label,
        masks=(volume.mask,) if volume.mask else (),
        slice_index=-1 if volume.planes else number,
        planes=volume.planes,
        split=split or volume.split,
    )


def _refuse_without_table(options: Mapping[str, str]) -> None:
    """Refuse columns of no table: a patient who is not read is a patient who may leak."""
    given = [name for name in options if name.endswith("_column")]
    if given and "csv" not in options:
        raise ConfigError(
            f"{given[0]} {options[given[0]]!r} has no effect without a table; name it with --csv"
        )


def _every(text: str) -> int:
    """Step between slices; 0 for those with a lesion alone."""
    if text == "marked":
        return 0
    if text and (not text.isdecimal() or int(text) == 0):
        raise ConfigError(f"slices {text!r}: give marked, or a number from 1 on for every so many")
    return int(text or 1)


def _apart(folder: Path, options: Mapping[str, str]) -> list[Volume]:
    """Volumes whose channels and mask are files of the patient's folder.

    Where the folders above the patients are called train, val or test, those are the splits.
    """
    channels = _listed(options.get("channels", CHANNEL))
    mask = options.get("mask_file", MASK)
    folders = sorted({path.parent for path in folder.rglob("*") if _bare(path) == channels[0]})
    if not folders:
        raise DataError(
            f"no volumes in {folder}: no file there is {channels[0]}.nii.gz; name the files of "
            "each patient's folder with --channels"
        )
    parts = {each: each.relative_to(folder).parts for each in folders}
    splits = all(len(part) > 1 and part[0].lower() in SPLIT_WORDS for part in parts.values())
    volumes = []
    for each in folders:
        here = {_bare(path): path for path in sorted(each.iterdir())}
        volume = Volume(
            patient="/".join(parts[each]) or folder.name,
            paths=tuple(here.get(name, each / name) for name in channels),
            mask=here.get(mask),
        )
        if splits:
            split, *patient = parts[each]
            volume = replace(volume, patient="/".join(patient), split=SPLIT_WORDS[split.lower()])
        volumes.append(volume)
    return volumes


def _side_by_side(
    folder: Path, options: Mapping[str, str], told: Mapping[str, Labels] | None
) -> list[Volume]:
    """Volumes of (H, W, planes), of one image each: those of the table, or all."""
    planes = _listed(options["planes"])
    mask = options.get("mask_file", MASK)
    others = [name for name in planes if name != mask]
    channels = _listed(options.get("channels", "")) or others
    if not channels or set(channels) - set(others):
        raise ConfigError(f"planes {options['planes']!r} does not name the channels and {mask}")
    numbers = [planes.index(name) for name in (*channels, *([mask] if mask in planes else []))]
    every = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if _bare(path)]
    inside = Inside(folder)
    return [
        Volume(
            patient=name,
            paths=(inside.path(name, "the table"),) * len(channels),
            mask=folder / name if mask in planes else None,
            planes=tuple(numbers),
        )
        for name in sorted(every if told is None else told)
    ]


def _bare(path: Path) -> str:
    """Name of a NIfTI file without its suffix; empty for any other or hidden file."""
    for suffix in VOLUME_SUFFIXES:
        if path.name.lower().endswith(suffix) and not path.name.startswith("."):
            return path.name[: -len(suffix)]
    return ""


def _read_labels(
    folder: Path, options: Mapping[str, str]
) -> tuple[dict[str, Labels], dict[str, str]]:
    """Label and split by volume and slice (-1 for all of a volume); with `planes` its patient."""
    person = options.get("patient_column", "")
    key, person = (FILE, person) if "planes" in options else (person, "")
    label, split = options.get("label_column", ""), options.get("split_column", "")
    if not key or not label:
        raise ConfigError("dataset nifti with a csv needs label_column, and patient_column")
    path = Inside(folder).path(options["csv"], "csv")
    needs = [name for name in (key, person, label, split) if name]
    known: dict[str, Labels] = {}
    people: dict[str, str] = {}
    for row in read_table(path, needs=needs, number_as=_ROW):
        where = f"row {row[_ROW]} of the table"
        place, cell = -1, row.get(SLICE, "")
        if cell:
            if not cell.isdecimal():
                raise DataError(f"{where} has no whole number as its slice")
            place = int(cell)
        said = row.get(split, "").lower()
        if said and said not in SPLIT_WORDS:
            raise DataError(f"{where} has a split other than train, val, test")
        told = (row[label], SPLIT_WORDS.get(said, ""))
        if known.setdefault(row[key], {}).setdefault(place, told) != told:
            raise DataError(f"{where} contradicts an earlier one; keep one")
        if person and not row[person]:
            raise DataError(f"{where} names no patient; fill the column or leave the image out")
        if person and people.setdefault(row[key], row[person]) != row[person]:
            raise DataError(f"{where} contradicts an earlier one; keep one")
    return known, people


def _labels(volume: Volume, told: Mapping[str, Labels] | None, left_out: Counter[str]) -> Labels:
    """Label and split of each slice that has a label."""
    depth = volume.depth()
    if told is None:
        marked, filled = volume.marked(), filled_slices(volume.paths[0])
        seen = [number for number in range(depth) if volume.planes or filled[number]]
        left_out["empty slices"] += depth - len(seen)
        return {number: (LESION if marked[number] else EMPTY, "") for number in seen}
    known = told.get(volume.patient, {})
    beyond = [number for number in known if number >= depth]
    if beyond:
        raise DataError(f"the table names slice {max(beyond)}, it has {depth}")
    labels = {number: known.get(number, known.get(-1, ("", ""))) for number in range(depth)}
    labels = {number: each for number, each in labels.items() if each[0]}
    left_out["without a label"] += depth - len(labels)
    return labels


def _taken(volume: Volume, labels: Labels, every: int, left_out: Counter[str]) -> list[int]:
    """Slices to take of those with a label."""
    if every:
        kept = [number for number in labels if number % every == 0]
        left_out[f"between the slices taken (slices={every})"] += len(labels) - len(kept)
        return kept
    marked = volume.marked()
    kept = [number for number in labels if marked[number]]
    left_out["without a lesion (slices=marked)"] += len(labels) - len(kept)
    return kept


def _refuse_unlike_labels(labels: Sequence[str]) -> None:
    unlike = unlike_labels(labels)
    if unlike:
        raise ConfigError(f"label_column has {unlike}; name the column of the label")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
