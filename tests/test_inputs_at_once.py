"""Runs that declare one dataset at the same moment all keep it, though MLflow refuses one."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import BAD_REQUEST, MlflowException

from mammo.errors import TrackingError
from mammo.tracking import TrackedRun, Tracking

pytestmark = pytest.mark.doors
REFUSED = "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name"


@pytest.mark.parametrize(("message", "kept"), [(REFUSED, 1), ("the disk is on fire", 0)])
def test_a_dataset_that_another_run_has_just_declared(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, kept: int
) -> None:
    log_inputs = MlflowClient.log_inputs
    refused = []

    def late(client: MlflowClient, run_id: str, datasets: Any) -> None:
        if run_id == second.id and not refused:
            refused.append(run_id)
            log_inputs(client, first.id, datasets)
            raise MlflowException(message, error_code=BAD_REQUEST)
        log_inputs(client, run_id, datasets)

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    with Tracking(tmp_path) as tracking:
        ids = [tracking.create_run(name, "test") for name in ("first", "second")]
        first, second = (
            TrackedRun(tracking, each, folder=tmp_path / each, work=tmp_path, inputs={})
            for each in ids
        )
        second.input("busi", "d" * 8, 9, "training")
        if kept:
            tracking.settle()
        else:
            with pytest.raises(TrackingError, match=message):
                tracking.settle()
        inputs = [tracking.get(each).inputs.dataset_inputs for each in ids]
        for each in ids:
            tracking.set_status(each, "FINISHED")
    assert refused and [len(each) for each in inputs] == [1, kept]
