"""Small datasets for tests: rows in a sentence, pixels that follow from the image id."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.classes import TASKS, ClassMap
from mammo.data.dataset import Dataset
from mammo.data.manifest import make_manifest
from mammo.data.writer import DatasetWriter

TWO = TASKS["malignancy2"]
SHAPE = (1, 8, 8)


def real_rows(patients: Mapping[str, Sequence[int]], **columns: Any) -> list[dict[str, Any]]:
    """Rows of `{"benign": [2, 1]}`: a benign patient with two images and one with one."""
    return [
        {
            "group_id": f"{label}-{number}",
            "image_id": f"{label}-{number}-{image}",
            "label": label,
            "label_kind": "pathology",
            "split": "train",
            **columns,
        }
        for label, sizes in patients.items()
        for number, size in enumerate(sizes)
        for image in range(size)
    ]


def synthetic_rows(counts: Mapping[str, int], run_id: str = "run1") -> list[dict[str, Any]]:
    """Rows of `{"benign": 3}`: three synthetic images of generator `run_id`."""
    return [
        {
            "group_id": f"{run_id}-{label}-{number}",
            "image_id": f"{run_id}-{label}-{number}",
            "label": label,
            "label_kind": "pathology",
            "split": "train",
            "is_synthetic": True,
            "generator_run_id": run_id,
            "sample_seed": number,
        }
        for label, count in counts.items()
        for number in range(count)
    ]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return make_manifest(rows)


def pixels(image_id: str, shape: tuple[int, int, int] = SHAPE, dtype: str = "uint16") -> NDArray:
    """The image that `dataset` stores under `image_id`."""
    seed = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8])
    top = int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def dataset(
    datasets: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str = "small",
    classes: ClassMap = TWO,
    shape: tuple[int, int, int] = SHAPE,
    dtype: str = "uint16",
    salt: str = "salt",
    seen: Sequence[Mapping[str, str]] = (),
    about: Mapping[str, Any] | None = None,
) -> Dataset:
    """Write a dataset of `rows` into `datasets`/<digest>; `seen` is what its generators saw."""
    writer = DatasetWriter(
        datasets / "new.partial",
        name=name,
        classes=classes,
        shape=shape,
        dtype=dtype,
        about={"salt": salt, "split_seed": 7, **(about or {})},
    )
    for row in rows:
        writer.add(pixels(row["image_id"], shape, dtype), row)
    training = pd.DataFrame(list(seen), columns=["run_id", "salt", "group_id", "sha256"])
    return writer.finish(datasets, generator_training=training.astype("str"))


def seen_by(run_id: str, group_ids: Sequence[str], salt: str = "salt") -> list[dict[str, str]]:
    """Generator training rows: `run_id` saw one image of each patient."""
    return [
        {"run_id": run_id, "salt": salt, "group_id": each, "sha256": f"sha-{each}"}
        for each in group_ids
    ]
