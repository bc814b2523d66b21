"""System 4: `<patient>/{bravo,seg}.nii.gz` volumes of (H, W, D), generated ones side by side."""

import numpy as np
import pandas as pd

from mammo.data.layouts import Export, Image
from mammo.data.provenance import MASK_PLANE

SYSTEM = "system4"
HOLDS = frozenset({"real", "channels", "masks", "patients", "splits"})
TABLE, MASK, GENERATED = "slices.csv", "seg", "generated"


def channel_names(count: int) -> list[str]:
    """File names of the channels: bravo, or t1_pre and t1_gd, as the public system has them."""
    known = {1: ["bravo"], 2: ["t1_pre", "t1_gd"]}
    return known.get(count) or [f"channel{number}" for number in range(1, count + 1)]


def write(export: Export) -> None:
    """The images of a patient are slices of a volume; slices.csv has label, split and place."""
    lines: list[dict[str, object]] = []
    for patient, rows in export.rows(synthetic=False).groupby("group_id", sort=True):
        images = list(export.images(rows))
        _write_volume(export, str(patient), images)
        lines += [
            {"patient": patient, "slice": number, "split": each.row.split, **_told(each)}
            for number, each in enumerate(images)
        ]
    if lines:
        export.table(pd.DataFrame(lines), TABLE)
    _write_generated(export)


def reading(export: Export) -> dict[str, str]:
    """Settings of preprocess that read the real images again."""
    return {
        "dataset": "nifti",
        "csv": TABLE,
        "patient_column": "patient",
        "label_column": "label",
        "split_column": "split",
        "channels": ",".join(channel_names(export.data.shape[0])),
    }


def _write_volume(export: Export, patient: str, images: list[Image]) -> None:
    """A file a channel, and the masks where the patient has any; empty slices have none."""
    stacked = np.stack([each.pixels for each in images], axis=-1)  # (C, H, W, D)
    spacing = images[0].row.pixel_mm
    for name, volume in zip(channel_names(len(stacked)), stacked, strict=True):
        export.nifti(volume, patient, f"{name}.nii.gz", pixel_mm=spacing)
    if any(each.mask is not None for each in images):
        masks = np.stack([_mask(each) for each in images], axis=-1)
        export.nifti(masks, patient, f"{MASK}.nii.gz", pixel_mm=spacing)


def _write_generated(export: Export) -> None:
    """Each generated image a file of (H, W, planes): its channels, then its mask if any has one."""
    rows = export.rows(synthetic=True)
    if not len(rows):
        return
    masked = (rows["mask_sha256"] != "").any()
    lines = []
    for number, each in enumerate(export.images(rows), start=1):
        planes, names = list(each.pixels), each.planes
        if masked:  # in the picture's depth, whose white is 65535 in 16 bits
            kind = each.pixels.dtype  # of a mix the real images may have another one
            planes.append(_mask(each).astype(kind) * kind.type(np.iinfo(kind).max // 255))
        voxels, name = np.stack(planes, axis=-1), f"{number:05d}.nii.gz"
        shown = [*names, MASK_PLANE] if masked else names
        record = export.record(each, np.stack(planes), shown)
        file = export.nifti(voxels, GENERATED, name, pixel_mm=each.row.pixel_mm, record=record)
        lines.append({"file": file, **_told(each)})
    export.table(pd.DataFrame(lines), f"{GENERATED}.csv")


def _told(image: Image) -> dict[str, str]:
    names = ("label", "laterality", "view")
    return {"image": image.row.image_id} | {name: getattr(image.row, name) for name in names}


def _mask(image: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.zeros(image.pixels.shape[1:], np.uint8) if image.mask is None else image.mask
