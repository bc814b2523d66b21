"""Small datasets that a classifier can learn: a malignant image has a bright spot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import small

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.manifest import make_manifest
from mammo.data.splits import assign_folds, hold_out
from mammo.data.writer import DatasetWriter
from mammo.run import MemoryRun, Reference
from mammo.steps import train_classifier

# timm's own tiny network, two epochs: what is tested is what surrounds the network
TINY: dict[str, Any] = {
    "model_name": "test_resnet",
    "epochs": 2,
    "batch_size": 8,
    "augment": "none",
    "device": "cpu",
}
SIDE = 32


def picture(image_id: str, label: str) -> np.ndarray[Any, Any]:
    """Noise that follows from the image id, with a spot where the label is malignant."""
    image = small.pixels(image_id, (1, SIDE, SIDE), "uint8") // 4
    if label == "malignant":
        image[:, 10:20, 10:20] += 120
    return image


def write(
    folder: Path,
    *,
    folds: int = 0,
    patients: int = 12,
    changed: Mapping[int, int] | None = None,
    rows: list[dict[str, Any]] | None = None,
) -> Dataset:
    """`patients` of each class with two images; `changed` blackens the fold of that number."""
    task = TASKS["malignancy2"]
    given = rows or small.real_rows({"benign": [2] * patients, "malignant": [2] * patients})
    frame = make_manifest(given)
    if folds:
        frame["fold"] = assign_folds(frame, k=folds, seed=1, positive="malignant")
    elif not frame["is_synthetic"].any():
        frame["split"] = hold_out(
            frame, val_fraction=0.25, test_fraction=0.2, seed=1, positive="malignant"
        )
    writer = DatasetWriter(
        folder / "new.partial",
        name="spots",
        classes=task,
        shape=(1, SIDE, SIDE),
        dtype="uint8",
        about={"salt": "salt", "split_seed": 7},
    )
    for row in frame.drop(columns=["shard", "index", "sha256", "mask_sha256"]).to_dict("records"):
        image = picture(row["image_id"], row["label"])
        if changed and row["fold"] in changed:
            image = np.full_like(image, changed[row["fold"]])
        writer.add(image, row)
    seen = small.seen_by("run1", ["elsewhere"])
    import pandas as pd

    training = pd.DataFrame(seen) if frame["is_synthetic"].any() else None
    return writer.finish(folder, generator_training=training)


def tracked(folder: Path, data: Dataset, *synthetic: Dataset) -> MemoryRun:
    """A run whose inputs are `data` and, where given, `synthetic`."""
    inputs = {"data": [Reference("runs:/abc/dataset", data.folder, data.digest, "abc")]}
    if synthetic:
        inputs["synthetic"] = [Reference("", each.folder, each.digest) for each in synthetic]
    return MemoryRun(folder, inputs)


def train(run: MemoryRun, **settings: Any) -> Any:
    """The step with the tiny network; its own check comes first, as on the command line."""
    from mammo.driver import defaults

    given = {**defaults(train_classifier), "data": "data", **TINY, **settings}
    train_classifier.check(given)
    return train_classifier.run(run, **given)
