"""Datasets with planted faults: phantom breasts, with the columns a manifest gets from files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.phantom import draw_patient, render
from mammo.data.writer import DatasetWriter

Values = NDArray[np.float32]
SIZE = (64, 48)
SPLITS = ("train", "val", "test")


def breast(number: int, *, height: int = SIZE[0]) -> Values:
    """A left breast, MLO, of phantom patient `number`."""
    picture: Values = render(draw_patient(number, seed=9), "L", "MLO", image_size=height)[0]
    return picture


def rows_of(patients: int, images: int = 1, **columns: Any) -> list[dict[str, Any]]:
    """Patients of alternating class, `images` of each; both classes in every split."""
    return [
        {
            "group_id": f"patient{number:04d}",
            "image_id": f"image{number:04d}-{image}",
            "label": ("benign", "malignant")[number % 2],
            "label_kind": "pathology",
            "split": SPLITS[number // 2 % 3],
            "laterality": "L",
            "view": "MLO",
            "vendor": "AB"[number // 2 % 2],
            **columns,
        }
        for number in range(patients)
        for image in range(images)
    ]


def cmmd_rows(patients: int, *, confounded: bool, seed: int = 0) -> list[dict[str, Any]]:
    """CMMD in small: D1 half malignant with two views, D2 98.4 % malignant with four.

    Not `confounded`, both parts have half malignant patients and two to four views by chance.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        second = number % 7 >= 4  # 749 of 1,775 patients
        share = 0.984 if second and confounded else 0.5
        label = "malignant" if rng.random() < share else "benign"
        four = second if confounded else rng.random() < 0.4
        for image in range(4 if four else 2):
            row = {"group_id": f"p{number}", "image_id": f"p{number}-{image}", "label": label}
            row |= {"subset": "D2" if second else "D1", "laterality": "LR"[image // 2]}
            row |= {"view": ("CC", "MLO")[image % 2], "file_bits": 8, "split": "train"}
            rows.append(row | {"birads": "5" if label == "malignant" else "2"})
    return rows


def store(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    picture: Callable[[int], Values],
    **about: Any,
) -> Dataset:
    """A dataset of `rows`; `picture` gives that of row n, (H, W) in [0, 1]."""
    height, width = picture(0).shape
    writer = DatasetWriter(
        folder / "new.partial",
        name="planted",
        classes=TASKS["malignancy2"],
        shape=(1, height, width),
        dtype="uint8",
        about={"crop": "breast", "salt": "salt", "intensity": {"policy": "header"}, **about},
    )
    for number, row in enumerate(rows):
        writer.add(np.rint(picture(number) * 255).astype(np.uint8)[None], row)
    return writer.finish(folder)
