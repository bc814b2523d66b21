"""SIGKILL and the same command again: the same MLflow run, the weights of an uninterrupted one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import doors
import torch
from classifier_data import TINY, write
from safetensors.torch import load_file

import mammo


def command(data: Path) -> dict[str, object]:
    return {**TINY, "data": data, "epochs": 4, "augment": "strong", "dropout": 0.2}


def killed_after(epoch: int, home: Path, settings: dict[str, object]) -> None:
    """Run the command until it has logged `epoch`, then kill it."""
    given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "mammo", "train_classifier", *given],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MAMMO_HOME": str(home), "PYTHONPATH": str(doors.ROOT)},
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if f"epoch {epoch}/4" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


def test_a_killed_classifier_continues_its_run_to_the_same_bits(tmp_path, monkeypatch):
    data = write(tmp_path / "datasets").folder
    settings = command(data)
    killed_after(2, tmp_path / "home", settings)
    monkeypatch.setenv("MAMMO_HOME", str(tmp_path / "home"))
    from mlflow import MlflowClient

    (unfinished,) = MlflowClient().search_runs(["0"])
    continued = doors.mammo("train_classifier", **settings)
    assert continued.run_id == unfinished.info.run_id
    assert "continuing after epoch" in continued.err
    monkeypatch.setenv("MAMMO_HOME", str(tmp_path / "other"))
    whole = doors.mammo("train_classifier", **settings, reuse=False)
    assert whole.run_id != continued.run_id
    assert continued.metrics == whole.metrics
    found = [
        load_file(mammo.load_classifier(run.uri).saved.folder / "weights.safetensors")
        for run in (continued, whole)
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])
