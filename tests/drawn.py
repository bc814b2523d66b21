"""A tiny trained generator for tests of sample, and what the runs of sample have made."""

from pathlib import Path
from typing import Any

import doors
import small
from mlflow import MlflowClient

from mammo.data.dataset import Dataset


def trained(tmp_path: Path) -> str:
    """Address of a generator of 32 pixels that was trained for one epoch."""
    rows = small.real_rows({"benign": [1] * 12, "malignant": [1] * 12})
    for number, row in enumerate(rows):
        row["split"] = "train" if number % 3 else "val"
    data = small.dataset(tmp_path / "elsewhere", rows, shape=(1, 32, 32))
    network = {"channels": "8,16", "attention": 0, "batch_size": 4, "epochs": 1}
    settings = {**network, "sample_every": 0, "device": "cpu"}
    return doors.here("train_generator", data=data.folder, **settings).uri


def digest(run_id: str) -> str:
    """Digest of what a run has made."""
    return str(MlflowClient().get_run(run_id).data.tags["mammo.digest"])


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


def pixels(run_id: str) -> Any:
    """Stored images (N, C, H, W) of the dataset that a run has uploaded."""
    data = Dataset(Path(MlflowClient().download_artifacts(run_id, "dataset")))
    return data.raw(range(len(data)))
