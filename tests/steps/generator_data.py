"""A tiny real dataset whose classes are told apart by one number: the brightness."""

from pathlib import Path

import numpy as np

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.writer import DatasetWriter
from mammo.run import MemoryRun, Reference

SIDE = 8
TINY = {  # settings of a network that learns in seconds
    "channels": "16,16",
    "attention": 0,
    "patch": 1,
    "batch_size": 8,
    "sample_every": 0,
    "device": "cpu",
}


def brightness(label_id: int, classes: int) -> float:
    """Level of class `label_id`: evenly spaced from 0.1 to 0.9."""
    return 0.1 + 0.8 * label_id / (classes - 1)


def write_data(
    folder: Path,
    *,
    task: str = "malignancy2",
    patients: int = 16,
    synthetic: int = 0,
    dtype: str = "uint16",
    views: bool = False,
    only: int = 0,
) -> Dataset:
    """A hold-out of flat images: patient i has class i modulo the classes, each 4th validates.

    With `views` four patients of a class have CC, then four MLO, which is brighter by 0.4 where
    classes differ by half of what they do without. With `only` the classes behind it stay empty.
    """
    classes = TASKS[task]
    writer = DatasetWriter(
        folder / "data.partial",
        name="levels",
        classes=classes,
        shape=(1, SIDE, SIDE),
        dtype=dtype,
        about={"salt": "pepper", "split_seed": 3, "intensity": "window"},
    )
    count = only or len(classes.names)
    for patient in range(patients + synthetic):
        level = brightness(patient % count, len(classes.names))
        view = ("CC", "MLO")[patient // count // 4 % 2] if views else ""
        if views:
            level = level / 2 + 0.4 * (view == "MLO")
        image = np.full((1, SIDE, SIDE), level * np.iinfo(dtype).max + patient, dtype)
        fake = patient >= patients
        writer.add(
            image,
            {
                "group_id": f"p{patient}",
                "image_id": f"i{patient}",
                "view": view,
                "label": classes.names[patient % count],
                "label_kind": classes.label_kind,
                "split": "train" if fake or patient // count % 4 else "val",
                "is_synthetic": fake,
                "generator_run_id": "earlier" if fake else "",
            },
        )
    test = {
        "group_id": "held-out",
        "image_id": "test",
        "label": classes.names[0],
        "label_kind": classes.label_kind,
        "split": "test",
    }
    writer.add(np.full((1, SIDE, SIDE), 7, dtype), test)
    return writer.finish(folder / "datasets")


def run_on(folder: Path, setting: str, path: Path, digest: str = "d") -> MemoryRun:
    """A run in `folder` whose setting `setting` names what lies in `path`."""
    folder.mkdir(parents=True, exist_ok=True)
    return MemoryRun(folder, {setting: [Reference(str(path), path, digest)]})
