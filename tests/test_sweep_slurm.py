"""A sweep on a real Slurm of two nodes, whose workers die in every way: each trial ends once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import doors
import optuna
import pytest
import yaml
from mlflow import MlflowClient
from slurm import Slurm

sys.path.insert(0, str(Path(__file__).resolve().parent / "steps"))

from classifier_data import TINY, write

from mammo.errors import ConfigError
from mammo.search.status import WorkerSeen, status_of
from mammo.search.storage import open_storage
from mammo.search.study import join_study
from mammo.search.worker import RUN

pytestmark = pytest.mark.doors
EPOCHS = 12


@dataclass
class Sweep:
    """A tune that goes on, and what its study tells."""

    process: subprocess.Popen[bytes]
    folder: Path
    hit: dict[int, str] = field(default_factory=dict)  # run in MLflow by the trial's number
    pids: set[int] = field(default_factory=set)  # of their workers

    def __post_init__(self) -> None:
        self.until("study", lambda: (self.folder / "home" / "studies.db").is_file())
        self.until("plan", self._join)

    def _join(self) -> bool:
        storage = open_storage(f"sqlite:///{self.folder}/home/studies.db")
        try:
            self.study, self.plan = join_study("sweep", storage)
        except ConfigError:  # it is not there, or not whole
            return False
        return True

    def until(self, what: str, found: Callable[[], Any], *, timeout_s: float = 400) -> Any:
        """Wait for a condition, and return what it gives."""
        deadline = time.monotonic() + timeout_s
        while not (value := found()):
            log = (self.folder / "tune.log").read_text()[-3000:]
            assert self.process.poll() is None and time.monotonic() < deadline, f"{what}: {log}"
            time.sleep(0.1)
        return value

    def trials(self, state: str) -> list[Any]:
        return self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState[state],))

    def workers(self) -> list[WorkerSeen]:
        """Those with a trial in their hands."""
        seen = status_of(self.study, self.plan).workers
        return [each for each in seen if each.state == "works"]

    def in_training(self) -> WorkerSeen:
        """A worker whose trial has a checkpoint and is not done, none of those seen before."""
        worker, trial = self.until("a trial in training", self._in_training)
        self.hit[trial.number] = trial.user_attrs[RUN]
        self.pids.add(worker.pid)
        return worker

    def _in_training(self) -> tuple[WorkerSeen, Any] | None:
        saved = {
            json.loads((each.parents[1] / "run.json").read_text())["run_id"]
            for each in (self.folder / "home").glob("runs/*/checkpoints/last.ckpt")
        }
        for worker in self.workers():
            (trial,) = [each for each in self.study.trials if each.number == worker.trial]
            new = trial.number not in self.hit and worker.pid not in self.pids
            if new and trial.state.name == "RUNNING" and trial.user_attrs.get(RUN) in saved:
                return worker, trial
        return None


@contextmanager
def hurried(slurm: Slurm) -> Iterator[None]:
    """Start what is put back into the queue at once, not after two minutes."""
    over = threading.Event()

    def hurry() -> None:
        while not over.wait(0.3):
            waits = slurm.ask("squeue", "-h", "-t", "PENDING", "-o", "%A %r", check=False)
            for line in waits.splitlines():
                job, _, reason = line.partition(" ")
                if reason == "BeginTime":
                    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    thread = threading.Thread(target=hurry)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Sweep]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = write(tmp_path / "datasets")
    space = tmp_path / "space.yaml"
    space.write_text("loss: [ce, bce, focal]\nlr: {low: 0.0001, high: 0.01, log: true}\n")
    profile = tmp_path / "cluster.yaml"
    profile.write_text(yaml.safe_dump({"slurm": {"gpus": 1, "memory_gb": 0.4}}))
    training = {f"train_classifier__{name}": value for name, value in TINY.items()}
    training |= {"train_classifier__epochs": EPOCHS, "train_classifier__patience": 0}
    asked = {"data": data.folder, "space": space, "search": "random", "pruner": "none"}
    asked |= {"study_name": "sweep", "launcher": "slurm", "cluster": profile}
    command = doors.mammo_command("tune", **asked, **training, **settings)
    with (tmp_path / "tune.log").open("wb") as log, (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=log, env=doors.environment())
    try:
        yield Sweep(process, tmp_path)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


def test_a_sweep_ends_each_trial_once_whatever_happens_to_its_workers(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    with hurried(slurm), sweep(tmp_path, monkeypatch, n_trials=24, workers=4) as going:
        together = going.until("four workers", lambda: len(w := going.workers()) == 4 and w)
        jobs = slurm.ask("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%A %N").splitlines()
        nodes = dict(line.split() for line in jobs)
        places = sorted((nodes[each.job], each.gpus) for each in together)
        assert places == [("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")]

        os.kill(going.in_training().pid, signal.SIGKILL)
        # as Slurm tells a job whose time is nearly over
        slurm.ask("scancel", "--signal=USR2", going.in_training().job)
        slurm.ask("scancel", going.in_training().job)
        node = slurm.ask("squeue", "-h", "-j", going.in_training().job, "-o", "%N")
        slurm.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        slurm.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
        going.in_training()
        slurm.ask("sbatch", "-p", "urgent", "-N2", "-c2", "-o", "/dev/null", "--wrap=true")

        assert going.process.wait(timeout=600) == 0, (tmp_path / "tune.log").read_text()[-3000:]
    line = json.loads((tmp_path / "out").read_text().splitlines()[-1])
    assert line["metrics"]["trials/complete"] == 24 == len(going.trials("COMPLETE"))
    assert [each.number for each in going.study.trials] == list(range(24))
    children = {each.info.run_name: each for each in children_of(line["run_id"])}
    assert sorted(children) == sorted(f"trial_{number}" for number in range(24))
    assert len(children_of(line["run_id"])) == 24  # none was trained twice
    client = MlflowClient()
    for each in going.study.trials:
        run = children[f"trial_{each.number}"]
        assert (run.info.status, run.info.run_id) == ("FINISHED", each.user_attrs[RUN])
        assert run.data.metrics["best/val/auc"] == each.value
        steps = [at.step for at in client.get_metric_history(run.info.run_id, "val/auc")]
        assert sorted(set(steps)) == list(range(1, EPOCHS + 1)), steps
    for number, run_id in going.hit.items():
        assert children[f"trial_{number}"].info.run_id == run_id  # it went on in its run
    assert len(going.hit) == 5


def children_of(run_id: str) -> list[Any]:
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return list(MlflowClient().search_runs(["0"], query))
