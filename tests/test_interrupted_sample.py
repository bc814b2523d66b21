"""A sampling that is killed again and again ends with the digest of one that nobody disturbed."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import doors
import pytest
import small
from mlflow import MlflowClient

pytestmark = pytest.mark.doors

GENERATOR: dict[str, Any] = {
    "channels": "8,16",
    "attention": 0,
    "batch_size": 4,
    "epochs": 1,
    "sample_every": 0,
    "device": "cpu",
}
CHUNKS = 12


@pytest.fixture
def settings(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of sample for a generator of 32 pixels, trained for one epoch."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = small.real_rows({"benign": [1] * 12, "malignant": [1] * 12})
    for number, row in enumerate(rows):
        row["split"] = "train" if number % 3 else "val"
    data = small.dataset(tmp_path / "elsewhere", rows, shape=(1, 32, 32))
    trained = doors.mammo("train_generator", data=data.folder, **GENERATOR)
    counts = {"counts": "benign=20,malignant=28", "batch_size": 4, "steps": 30}
    return {"generator": trained.uri, "device": "cpu", **counts}


def kept(home: Path) -> list[tuple[Path, int]]:
    """The chunks that are there, and when each was written."""
    return [(path, path.stat().st_mtime_ns) for path in sorted(home.glob("runs/*/drawn/*.npz"))]


def killed_at(settings: dict[str, Any], home: Path, chunks: int, number: int) -> int:
    """Start sample and signal it when `chunks` are there; returns its exit code."""
    process = subprocess.Popen(
        doors.mammo_command("sample", **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=doors.environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(kept(home)) < chunks:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it drew no chunk"
        time.sleep(0.005)
    os.killpg(process.pid, number)
    return process.wait(timeout=60)


def digest_of(outcome: doors.Outcome) -> str:
    return str(MlflowClient().get_run(outcome.run_id).data.tags["mammo.digest"])


def test_trap_t0f_a_killed_sampling_goes_on_where_it_was(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    assert killed_at(settings, home, 3, signal.SIGKILL) == -signal.SIGKILL
    first = kept(home)
    assert 3 <= len(first) < CHUNKS
    assert killed_at(settings, home, len(first) + 2, signal.SIGTERM) == 143
    second = kept(home)
    assert second[: len(first)] == first  # neither drawn again nor written again
    assert len(second) < CHUNKS
    again = doors.mammo("sample", **settings)
    there = 4 * len(second)
    assert f"{there} of 48 images are there already and are kept" in again.err
    assert again.metrics["images"] == 48
    assert again.metrics["count/malignant"] == 28
    runs = [
        run for run in MlflowClient().search_runs(["0"]) if run.data.tags["mammo.step"] == "sample"
    ]
    assert [run.info.run_id for run in runs] == [again.run_id]  # one run, continued twice
    assert not kept(home)
    with monkeypatch.context() as patch:
        patch.setenv("MAMMO_HOME", str(tmp_path / "untouched"))
        whole = doors.mammo("sample", reuse=False, **settings)
    assert "already" not in whole.err
    assert digest_of(whole) == digest_of(again)
