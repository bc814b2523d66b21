"""Trials as processes: what a crash leaves, and what trials at once share and compute once."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import doors
import optuna
import pytest
import small
from drawn import trained
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).resolve().parent / "steps"))

from classifier_data import TINY, write

from mammo import cli
from mammo.steps import train_classifier

pytestmark = pytest.mark.doors
TRAINING = {f"train_classifier__{name}": value for name, value in TINY.items()}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(doors.ROOT))


def children_of(run_id: str) -> list[Any]:
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return list(reversed(MlflowClient().search_runs(["0"], query)))


def processes_below(pid: int) -> list[int]:
    """Processes that `pid` has started, and those that these have started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *processes_below(child)]
    return found


def trainings() -> list[int]:
    """Processes below this one that are forks of another: those of trials."""
    words = {}
    for pid in processes_below(os.getpid()):
        try:
            words[pid] = Path(f"/proc/{pid}/cmdline").read_text(), Path(f"/proc/{pid}/stat")
        except FileNotFoundError:
            continue
    parents = {pid: int(stat.read_text().rsplit(")", 1)[1].split()[1])
               for pid, (_, stat) in words.items() if stat.exists()}  # fmt: skip
    return [
        pid
        for pid, (line, _) in words.items()
        if line and words.get(parents.get(pid, 0), ("",))[0] == line
    ]


def test_a_killed_trial_has_failed_with_its_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    data = write(tmp_path / "datasets")
    (tmp_path / "space.yaml").write_text("loss: [ce, focal]\n")
    killed = []

    def kill() -> None:
        """Kill the first trial once it has a checkpoint."""
        while not killed:
            if list((tmp_path / "home").glob("runs/*/checkpoints/last.ckpt")):
                killed.extend(trainings()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    threading.Thread(target=kill, daemon=True).start()
    asked = {"data": data.folder, "space": tmp_path / "space.yaml", "n_trials": 2}
    asked |= {"search": "grid", "pruner": "none", "study_name": "killed"}
    training = {**TRAINING, "train_classifier__epochs": 12, "train_classifier__patience": 0}
    done = doors.here("tune", **asked, **training)
    assert (done.metrics["trials/complete"], done.metrics["trials/failed"]) == (1, 1)
    kept = f"sqlite:///{tmp_path}/home/studies.db"
    failed, fine = optuna.load_study(study_name="killed", storage=kept).trials
    reason = "its process was ended by SIGKILL; was the machine out of memory?"
    assert (failed.state.name, failed.user_attrs["error"]) == ("FAIL", reason)
    assert fine.state.name == "COMPLETE"
    assert sorted(fine.intermediate_values) == list(range(12))  # as pruners count epochs
    first, second = children_of(done.run_id)
    assert (first.info.run_name, first.info.status) == ("trial_0", "FAILED")
    assert first.data.tags["error"] == reason
    assert (second.info.run_name, second.info.status) == ("trial_1", "FINISHED")
    assert second.info.run_id == fine.user_attrs["run_id"]
    contexts = {tag.value for each in second.inputs.dataset_inputs for tag in each.tags}
    assert {"training", "validation"} <= contexts


def test_trials_at_once_draw_what_they_share_once(tmp_path: Path) -> None:
    """Four trials over two ways to draw, two seeds each, by two workers: eight trainings."""
    real = small.real_rows({"benign": [1] * 12, "malignant": [1] * 12})
    for number, row in enumerate(real):
        row["split"] = "train" if number % 3 else "val"
    data = small.dataset(tmp_path / "real", real, shape=(1, 32, 32))
    space = "sample.steps: [2, 4]\nloss: [ce, focal]\n"
    (tmp_path / "space.yaml").write_text(space)
    asked = {"data": data.folder, "generator": trained(tmp_path), "seeds": "0,1", "workers": 2}
    asked |= {"space": tmp_path / "space.yaml", "search": "grid", "pruner": "none"}
    asked |= {"n_trials": 4, "sample__count": 16, "train_classifier__real_percentage": 0.5}
    asked |= {"study_name": "shared", "device": "cpu"}
    done = doors.here("tune", **asked, **TRAINING)
    assert done.metrics["trials/complete"] == 4, done.err[-3000:]
    runs = children_of(done.run_id)
    assert sorted(each.info.run_name for each in runs) == [f"trial_{n}" for n in range(4)]
    trained_ones = 0
    for trial in runs:
        assert trial.info.status == "FINISHED"
        below = children_of(trial.info.run_id)
        own = [each for each in below if each.data.tags["mammo.step"] == "train_classifier"]
        assert sorted(each.info.run_name for each in own) == ["seed-0", "seed-1"]
        values = [each.data.metrics["best/val/auc"] for each in own]
        assert trial.data.metrics["best/val/auc"] == pytest.approx(sum(values) / 2)
        trained_ones += len(own)
    assert trained_ones == 8
    query = "tags.`mammo.step` = 'sample' and tags.`mammo.fingerprint` != ''"
    drawn = MlflowClient().search_runs(["0"], query)
    assert {each.info.status for each in drawn} == {"FINISHED"}
    assert sorted(each.data.params["steps"] for each in drawn) == ["2", "4"]
    said = MlflowClient().download_artifacts(done.run_id, "study/best.yaml", str(tmp_path))
    best = cli.parse("train_classifier", ["--config", said])
    train_classifier.check(best)
    assert best["synthetic"] in {f"runs:/{each.info.run_id}/dataset" for each in drawn}
