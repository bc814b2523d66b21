"""Runs that declare one dataset at the same moment all keep it, though MLflow refuses one."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mammo.tracking import TrackedRun, Tracking

pytestmark = pytest.mark.doors
REFUSED = "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name"


@pytest.mark.parametrize(("message", "kept"), [(REFUSED, 1), ("the disk is on fire", 0)])
def test_a_dataset_that_another_run_has_just_declared(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, kept: int
) -> None:
    tracking = Tracking()
    ids = [tracking.create_run(name, "test") for name in ("first", "second")]
    first, second = (
        TrackedRun(tracking, each, folder=tmp_path / each, work=tmp_path, inputs={}) for each in ids
    )
    log_inputs = MlflowClient.log_inputs
    refused = []

    def late(client: MlflowClient, run_id: str, datasets: Any) -> None:
        if not refused:
            refused.append(run_id)
            first.input("busi", "d" * 8, 9, "training")
            raise MlflowException(message)
        log_inputs(client, run_id, datasets)

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    if kept:
        second.input("busi", "d" * 8, 9, "training")
    else:
        with pytest.raises(MlflowException, match=message):
            second.input("busi", "d" * 8, 9, "training")
    inputs = [tracking.get(each).inputs.dataset_inputs for each in ids]
    assert [len(each) for each in inputs] == [1, kept]
