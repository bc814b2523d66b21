"""Write phantoms to disk as a hospital would hand them over: DICOM files, masks and a table."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammo.data.observer import ideal_auc, known_answer_images
from mammo.data.phantom import HEIGHT_MM, SIDES, VIEWS, Patient, draw_patient, render
from mammo.data.phantom_dicom import Header, write_mammogram
from mammo.errors import DataError

TABLE, SETTINGS = "images.csv", "phantom.json"
_FULL = (0, 4095)
_WINDOWS = {"PhantomA": _FULL, "PhantomB": (150, 3800), "PhantomC": (320, 4000)}
_NOISE_REACH = 7.0  # standard deviations that fit between black and white: 1 pixel in 4e11 does not


@dataclass(frozen=True)
class Row:
    """One line of the release's table; `file` and `mask` are relative to its folder."""

    patient: str
    image: str
    file: str
    laterality: str
    view: str
    label: str  # of this breast: the unaffected one is normal
    density: str
    age: int
    vendor: str
    mask: str  # empty without a lesion
    kind: str  # mass or calcification; empty without a lesion


def write_release(
    folder: Path, *, patients: int, image_size: int = 256, contrast: float = 1.0, seed: int = 0
) -> None:
    """Write four mammograms (both sides, CC and MLO) of each of `patients` to the new `folder`.

    Pictures are (image_size, 3/4 image_size). Everything follows from `seed`: the first patients
    of a larger release are those of a smaller one.
    """
    settings = {"variant": "breast", "patients": patients, "image_size": image_size}
    settings |= {"contrast": contrast, "seed": seed}

    def write(place: Path) -> list[Row]:
        rows = []
        for index in range(patients):
            patient = draw_patient(index, seed=seed)
            for side in SIDES:
                for view in VIEWS:
                    rows.append(_write_view(place, patient, side, view, image_size, contrast))
        return rows

    _write_whole(folder, settings, write)


def write_known_answer(
    folder: Path, *, images: int, image_size: int = 64, contrast: float = 1.0, seed: int = 0
) -> None:
    """Write `images` of `known_answer_images` to the new `folder`, one a patient, none clipped.

    Malignant means that the signal is there. Black to white spans the noise's `_NOISE_REACH`
    standard deviations to both sides and the signal's peak. The settings file tells the ideal AUC.
    """
    known = known_answer_images(images, contrast=contrast, seed=seed, size=image_size)
    settings: dict[str, Any] = {"variant": "known", "patients": images, "image_size": image_size}
    settings |= {"contrast": contrast, "seed": seed}
    settings["ideal_auc"] = ideal_auc(known.signal, known.spectrum)
    reach = 2 * (_NOISE_REACH + float(np.abs(known.signal).max()))

    def write(place: Path) -> list[Row]:
        rows = []
        for index, (image, label) in enumerate(zip(known.images, known.labels, strict=True)):
            name = f"K{index:05d}"
            header = Header(
                patient=name,
                image=name,
                release=f"known {settings}",
                laterality="L",
                view="CC",
                age=50,
                vendor="PhantomA",
                inverted=False,
                window=_FULL,
                pixel_mm=HEIGHT_MM / image_size,
            )
            file = f"images/{name}.dcm"
            write_mammogram(place / file, 0.5 + image / reach, header)
            mask = _write_mask(place, name, known.signal > known.signal.max() / 2) if label else ""
            truth, kind = ("malignant", "mass") if label else ("benign", "")
            rows.append(Row(name, name, file, "L", "CC", truth, "", 50, header.vendor, mask, kind))
        return rows

    _write_whole(folder, settings, write)


def _write_view(
    place: Path, patient: Patient, side: str, view: str, image_size: int, contrast: float
) -> Row:
    picture, mask = render(patient, side, view, image_size=image_size, contrast=contrast)
    person = f"P{patient.index:05d}"
    name = f"{person}_{side}_{view}"
    header = Header(
        patient=person,
        image=name,
        release=f"breast {patient.seed} {image_size} {contrast}",
        laterality=side,
        view=view,
        age=patient.age,
        vendor=patient.vendor,
        inverted=patient.inverted,
        window=_WINDOWS[patient.vendor],
        pixel_mm=HEIGHT_MM / image_size,
    )
    file = f"images/{name}.dcm"
    write_mammogram(place / file, picture, header)
    return Row(
        patient=person,
        image=name,
        file=file,
        laterality=side,
        view=view,
        label=patient.label_of(side),
        density=patient.density,
        age=patient.age,
        vendor=patient.vendor,
        mask="" if mask is None else _write_mask(place, name, mask),
        kind="" if mask is None else patient.lesion.kind,
    )


def _write_mask(place: Path, name: str, mask: np.ndarray[Any, Any]) -> str:
    """Write `mask` (H, W), 0 or 1, as 8-bit PNG of 0 and 255; returns its path in the release."""
    from PIL import Image

    file = f"masks/{name}.png"
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(place / file)
    return file


def _write_whole(
    folder: Path, settings: dict[str, Any], write: Callable[[Path], list[Row]]
) -> None:
    """Let `write` fill a folder beside `folder`, add the table and settings, then rename it."""
    if folder.exists():
        raise DataError(f"phantom release {folder}: exists already, name a new folder")
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for part in ("images", "masks"):
            (partial / part).mkdir(parents=True)
        rows = [asdict(row) for row in write(partial)]
        with (partial / TABLE).open("w", newline="", encoding="utf-8") as handle:
            table = csv.DictWriter(handle, fieldnames=list(Row.__annotations__))
            table.writeheader()
            table.writerows(rows)
        (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        _rename(partial, folder)
    except OSError as error:
        raise DataError(f"phantom release {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first with the same release
            raise
