"""Steps on a real Slurm of two nodes: what an array makes is what one process makes."""

from pathlib import Path
from typing import Any

import doors
import pytest
import small
import yaml
from mlflow import MlflowClient
from slurm import Slurm

from mammo.data.dataset import Dataset

pytestmark = pytest.mark.doors

GENERATOR: dict[str, Any] = {
    "channels": "8,16",
    "attention": 0,
    "batch_size": 4,
    "epochs": 1,
    "sample_every": 0,
    "device": "cpu",
}


@pytest.fixture
def cluster(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> str:
    """The profile of jobs with one core and one GPU each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return profile(tmp_path)


def profile(folder: Path, **asked: Any) -> str:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"slurm": {"gpus": 1, "memory_gb": 0.4, **asked}}))
    return str(path)


def tags(run_id: str) -> dict[str, str]:
    return dict(MlflowClient().get_run(run_id).data.tags)


def test_sample_as_an_array_of_four_has_the_pixels_of_one_task(
    slurm: Slurm, cluster: str, tmp_path: Path
) -> None:
    rows = small.real_rows({"benign": [1] * 12, "malignant": [1] * 12})
    for number, row in enumerate(rows):
        row["split"] = "train" if number % 3 else "val"
    data = small.dataset(tmp_path / "elsewhere", rows, shape=(1, 32, 32))
    trained = doors.here("train_generator", data=data.folder, **GENERATOR)
    asked = {
        "generator": trained.uri,
        "counts": "benign=14,malignant=22",
        "batch_size": 4,
        "steps": 4,
        "device": "cpu",
    }
    spread = doors.here("sample", launcher="slurm", cluster=cluster, workers=4, **asked)
    alone = doors.here("sample", work_dir=tmp_path / "other", reuse=False, **asked)
    assert digest(spread) == digest(alone)
    one, other = pixels(spread), pixels(alone)
    assert one.shape == (36, 1, 32, 32) and (one == other).all()
    states = slurm.ask("squeue", "-h", "-r", "-t", "all", "-o", "%j %T").splitlines()
    assert states.count("mammo-sample COMPLETED") == 4
    assert states.count("mammo-sample-gather COMPLETED") == 1
    assert tags(spread.run_id)["mammo.digest"] == digest(spread)
    assert MlflowClient().get_run(spread.run_id).info.status == "FINISHED"


def digest(outcome: doors.Outcome) -> str:
    return tags(outcome.run_id)["mammo.digest"]


def pixels(outcome: doors.Outcome) -> Any:
    folder = MlflowClient().download_artifacts(outcome.run_id, "dataset")
    data = Dataset(Path(folder))
    return data.raw(range(len(data)))
