"""A training that is killed in the middle and started again ends as if nothing had happened."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import doors
import pytest
import small
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

pytestmark = pytest.mark.doors

pytestmark = pytest.mark.doors
EPOCHS = 8
GENERATOR: dict[str, Any] = {
    "channels": "8,16",
    "attention": 0,
    "batch_size": 4,
    "epochs": EPOCHS,
    "sample_every": 0,
    "device": "cpu",
}
CLASSIFIER: dict[str, Any] = {
    "model_name": "test_resnet",  # timm's own tiny network
    "augment": "strong",
    "dropout": 0.2,
    "batch_size": 4,
    "epochs": EPOCHS,
    "device": "cpu",
}


@pytest.fixture
def settings(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The setting `data`: 24 images of noise, a third of them for validation."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = small.real_rows({"benign": [1] * 12, "malignant": [1] * 12})
    for number, row in enumerate(rows):
        row["split"] = "train" if number % 3 else "val"
    data = small.dataset(tmp_path / "elsewhere", rows, shape=(1, 32, 32))
    return {"data": data.folder}


def interrupted(command: Sequence[str], home: Path, number: int) -> int:
    """Start `command`, signal its whole process group in mid-training; returns the exit code."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=doors.environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(home.glob("runs/*/checkpoints/last.ckpt")):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline, "it wrote no checkpoint"
        time.sleep(0.01)
    os.killpg(process.pid, number)
    return process.wait(timeout=60)


def weights_of(outcome: doors.Outcome, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the model in the store."""
    path = f"{outcome.uri.partition(f'{outcome.run_id}/')[2]}/weights.safetensors"
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    return load_file(client.download_artifacts(outcome.run_id, path, str(folder)))


def uninterrupted(
    entry: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """The weights of the same training in a store and a work folder of its own."""
    place = tmp_path / "untouched"
    place.mkdir()
    (place / "mlflow.db").write_bytes((tmp_path / "mlflow.db").read_bytes())
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "untouched")
        patch.setenv("MAMMO_HOME", str(place / "home"))
        patch.chdir(place)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as OMP_NUM_THREADS says to the processes
        outcome = doors.here(entry, **settings)
        torch.set_num_threads(threads)
        assert "continu" not in outcome.err
        return weights_of(outcome, place)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_killed_generator_continues_its_run_to_the_same_bits(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= GENERATOR
    command = doors.mammo_command("train_generator", **settings)
    assert interrupted(command, tmp_path / "home", signal.SIGKILL) == -signal.SIGKILL
    client = MlflowClient()
    (unfinished,) = client.search_runs(["0"])
    assert unfinished.info.status == "RUNNING"  # nobody was left to say otherwise
    again = doors.mammo("train_generator", **settings)
    assert again.run_id == unfinished.info.run_id
    assert "continuing after epoch" in again.err
    assert client.get_run(again.run_id).info.status == "FINISHED"
    found = weights_of(again, tmp_path)
    assert_equal(found, uninterrupted("train_generator", settings, tmp_path, monkeypatch))


def test_mlflow_run_finishes_the_run_that_was_killed_with_it(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= CLASSIFIER
    command = doors.mlflow_command("train_classifier", **settings)
    assert interrupted(command, tmp_path / "home", signal.SIGKILL) == -signal.SIGKILL
    client = MlflowClient()
    (unfinished,) = client.search_runs(["0"])
    again = doors.mlflow_run("train_classifier", **settings)
    assert again.run_id == unfinished.info.run_id
    assert "continuing after epoch" in again.err
    runs = {run.info.run_id: run for run in client.search_runs(["0"])}
    assert runs.pop(again.run_id).info.status == "FINISHED"
    (empty,) = runs.values()  # the one that the second `mlflow run` opened
    assert empty.info.status == "FINISHED"
    assert empty.data.tags["mammo.continues"] == again.run_id
    found = weights_of(again, tmp_path)
    assert_equal(found, uninterrupted("train_classifier", settings, tmp_path, monkeypatch))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_says_so_and_continues(
    number: int, code: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= CLASSIFIER
    command = doors.mammo_command("train_classifier", **settings)
    assert interrupted(command, tmp_path / "home", number) == code
    client = MlflowClient()
    (stopped,) = client.search_runs(["0"])
    assert stopped.info.status == "KILLED"
    assert stopped.data.tags["mammo.stopped"] == f"signal {number}"
    again = doors.here("train_classifier", **settings)
    assert again.run_id == stopped.info.run_id
    assert "continuing after epoch" in again.err
    (finished,) = client.search_runs(["0"])
    assert finished.info.status == "FINISHED"
    steps = [each.step for each in client.get_metric_history(again.run_id, "val/loss")]
    assert sorted(set(steps)) == list(range(1, EPOCHS + 1))
