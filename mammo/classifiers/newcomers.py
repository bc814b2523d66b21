"""Images that no dataset holds: found in a folder, prepared as the training's were, and scored."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.pixels import is_dicom, read_header
from mammo.data.prepare import LeftOut, Recipe, Refused, prepare
from mammo.data.progress import Progress
from mammo.data.release import Record
from mammo.data.sources import IMAGE_SUFFIXES
from mammo.data.workers import cores, spread
from mammo.errors import CheckpointError, ConfigError, DataError
from mammo.models import SavedModel

if TYPE_CHECKING:
    from mammo.classifiers.predict import Classifier

PATIENTS = ("auto", "headers", "folders", "none")
Read = NDArray[np.float32] | LeftOut | Refused


@dataclass(frozen=True)
class Newcomer:
    """One image, by the name that the user gave it."""

    file: str  # of its first channel, below the folder
    paths: tuple[Path, ...]  # one a channel; fewer than the model's is told in `fault`
    fault: str = ""


@dataclass(frozen=True)
class Reader:
    """Reads a numbered image by `recipe`; travels to other processes."""

    recipe: Recipe

    def __call__(self, task: tuple[int, Newcomer]) -> tuple[int, Read]:
        number, image = task
        return number, Refused(image.fault) if image.fault else read(image.paths, self.recipe)


def recipe_of(saved: SavedModel) -> Recipe:
    """How the images were prepared that the model learned from."""
    try:
        # what is generated is read too, to be refused in words of our own
        return replace(Recipe.of(saved.about), generated=True)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"model {saved.run_id or saved.folder} does not say how its images were prepared "
            f"({type(error).__name__}: {error}); train it on a dataset that preprocess made"
        ) from None


def read(paths: Sequence[Path], recipe: Recipe) -> Read:
    """The image in `paths`, one a channel, (C, H, W) in [0, 1] as a dataset would hold it."""
    found = prepare(Record(tuple(paths), patient="", image="", label=""), recipe)
    if isinstance(found, LeftOut):
        flag = found.reason.partition(" ")[0]
        return LeftOut(f"{flag}: the training left such images out")
    if isinstance(found, Refused):  # what it advises to give are settings of preprocess
        return Refused(found.reason.partition("; give ")[0])
    if found.header.synthetic:
        return Refused("it says that it is a synthetic image")
    values = found.image.astype(np.float32)
    values /= np.float32(np.iinfo(found.image.dtype).max)
    return values


def find(folder: Path, *, channels: Sequence[str] = ()) -> list[Newcomer]:
    """The images in `folder` (or that file alone), sorted by name; hidden files left out.

    `channels` are the ends of the names of files that are one image, in the channels' order.
    """
    if folder.is_file():
        files = {folder.name: folder}
    else:
        below = sorted(each for each in folder.rglob("*") if each.is_file())
        named = {each.relative_to(folder).as_posix(): each for each in below}
        files = {name: path for name, path in named.items() if _is_image(name, path)}
    if not files:
        raise DataError(
            f"no images in {folder}: no file there is DICOM or ends in {', '.join(IMAGE_SUFFIXES)}"
        )
    return _joined(files, channels) if channels else [Newcomer(n, (p,)) for n, p in files.items()]


def refuse_channels(channels: Sequence[str], count: int) -> None:
    """ConfigError where `channels` does not fit a model of `count` channels."""
    if count == 1 and channels:
        raise ConfigError("channels has no effect: the model takes images of one channel")
    if count > 1 and len(set(channels)) != count:
        given = ",".join(channels) or "none"
        raise ConfigError(
            f"channels {given}: the model takes images of {count} channels; give the ends of their "
            "files' names in the channels' order, as _low,_subtracted"
        )


def told_apart(images: Sequence[Newcomer], how: str) -> tuple[list[str], str]:
    """The patient of each image, and by which of `PATIENTS` they were told apart.

    Of `headers` it is a running number: a PatientID never leaves its file. Of `folders` it is the
    name of the sub-folder. "" is an image that is of nobody known.
    """
    by_folder = [name.partition("/")[0] if "/" in name else "" for name in _names(images)]
    if how in ("auto", "headers"):
        found = [_patient_id(image.paths[0]) for image in images]
        known = [each for each in found if each]
        missing = sum(each == "" for each in found)
        if known and not missing:
            numbers = {each: str(place) for place, each in enumerate(dict.fromkeys(known), 1)}
            return [numbers.get(each or "", "") for each in found], "headers"
        if how == "headers":
            raise DataError(
                f"patients headers: {missing} of {len(images)} files tell no PatientID; "
                "use patients folders or none"
            )
    if how != "none" and all(by_folder):
        return by_folder, "folders"
    if how == "folders":
        raise DataError(
            f"patients folders: {by_folder.count('')} of {len(images)} images lie in no "
            "sub-folder; use patients headers or none"
        )
    return [""] * len(images), "none"


def joined(images: Sequence[Newcomer], patients: Sequence[str], unit: str) -> list[str]:
    """The set of each image that a model pools by the `unit` of mammo.data.UNITS.

    An image of nobody known, or of neither breast, is a set of its own.
    """
    sides = [_laterality(image.paths[0]) for image in images] if unit == "breast" else patients
    return [
        f"of {patient} {side}" if patient and side else f"image {place}"
        for place, (patient, side) in enumerate(zip(patients, sides, strict=True))
    ]


def score(
    classifier: "Classifier",
    images: Sequence[Newcomer],
    recipe: Recipe,
    *,
    keys: Sequence[str],
    workers: int,
    batch_size: int,
) -> pd.DataFrame:
    """Columns file, what the classifier tells (nan where it does not), reason and refused.

    A batch holds the images in their order, so that no score depends on `workers`. Images with the
    same of `keys` are a set, for a model of several views.
    """
    import torch

    reasons, refused = [""] * len(images), [False] * len(images)
    waiting: dict[int, NDArray[np.float32]] = {}
    scored: list[int] = []
    seen = [classifier.see(np.empty((0, *classifier.shape)))]

    def look() -> None:
        seen.append(classifier.see(np.stack(list(waiting.values())), batch_size=batch_size))
        scored.extend(waiting)
        waiting.clear()

    with Progress("predict", len(images)) as progress:
        for number, found in _in_order(Reader(recipe), images, workers or cores()):
            progress.advance(1)
            if isinstance(found, LeftOut | Refused):
                reasons[number], refused[number] = found.reason, isinstance(found, Refused)
            else:
                waiting[number] = found
            if len(waiting) == batch_size:
                look()
    if waiting:
        look()
    told = classifier.told(torch.cat(seen), [keys[number] for number in scored])
    # objects, for pandas' own texts hold no name that is not UTF-8
    frame = pd.DataFrame({"file": pd.Series(_names(images), dtype=object)})
    frame = frame.join(pd.DataFrame(told, index=scored))
    return frame.assign(reason=reasons, refused=refused)


def _in_order(
    reader: Reader, images: Sequence[Newcomer], workers: int
) -> Iterator[tuple[int, Read]]:
    ready: dict[int, Read] = {}
    turn = 0
    with closing(spread(reader, enumerate(images), workers=min(workers, len(images)))) as made:
        for number, found in made:
            ready[number] = found
            while turn in ready:
                yield turn, ready.pop(turn)
                turn += 1


def _is_image(name: str, path: Path) -> bool:
    """By its suffix or, as exports of a PACS often have none, by DICOM's magic."""
    parts = name.split("/")
    if any(part.startswith(".") for part in parts) or parts[-1].upper() == "DICOMDIR":
        return False
    try:
        return name.lower().endswith(IMAGE_SUFFIXES) or is_dicom(path)
    except DataError:  # it cannot be opened: told in the file's own line
        return True


def _joined(files: dict[str, Path], ends: Sequence[str]) -> list[Newcomer]:
    """Images of several channels: files whose names differ in their end alone."""
    found: dict[str, dict[str, str]] = {}
    strange = []
    for name in files:
        bare = _bare(name)
        end = max((each for each in ends if bare.endswith(each)), key=len, default="")
        if end:
            found.setdefault(bare.removesuffix(end), {})[end] = name
        else:
            fault = f"its name ends in none of {', '.join(ends)}"
            strange.append(Newcomer(name, (files[name],), fault))
    images = []
    for held in found.values():
        lacking = [each for each in ends if each not in held]
        fault = f"there is no file ending in {lacking[0]} with it" if lacking else ""
        names = [held[each] for each in ends if each in held]
        images.append(Newcomer(names[0], tuple(files[each] for each in names), fault))
    return sorted([*images, *strange], key=lambda image: image.file)


def _bare(name: str) -> str:
    ending = next((each for each in IMAGE_SUFFIXES if name.lower().endswith(each)), "")
    return name[: -len(ending)] if ending else name


def _names(images: Sequence[Newcomer]) -> list[str]:
    return [image.file for image in images]


def _patient_id(path: Path) -> str | None:
    """PatientID of a DICOM file; "" of any other and where there is none, None if unreadable."""
    try:
        return _said(path, "PatientID")
    except DataError:
        return None


def _laterality(path: Path) -> str:
    """L or R of a DICOM file; "" of any other, and where there is none."""
    try:
        side = _said(path, "ImageLaterality") or _said(path, "Laterality")
    except DataError:
        return ""
    return side if side in ("L", "R") else ""


def _said(path: Path, tag: str) -> str:
    """What a DICOM file says under `tag`; "" of any other file and where it says nothing."""
    return str(read_header(path, [tag]).get(tag) or "").strip() if is_dicom(path) else ""
