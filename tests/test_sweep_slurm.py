"""A sweep on a real Slurm of two nodes, whose workers die in every way: each trial ends once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        saved = set[str]()
        for each in (self.folder / "home").glob("runs/*/checkpoints/last.ckpt"):
            with suppress(FileNotFoundError):  # its training has ended meanwhile
                saved.add(json.loads((each.parents[1] / "run.json").read_text())["run_id"])
        for worker in self.workers():
            (trial,) = [each for each in self.study.trials if each.number == worker.trial]
            new = trial.number not in self.hit and worker.pid not in self.pids
            if new and trial.state.name == "RUNNING" and trial.user_attrs.get(RUN) in saved:
                return worker, trial
        return None


@contextmanager
def hurried(slurm: Slurm) -> Iterator[None]:
    """Start what is put back into the queue at once, not after two minutes."""
    over, since = threading.Event(), dict[str, float]()

    def hurry() -> None:
        while not over.wait(0.3):
            waits = slurm.ask("squeue", "-h", "-t", "PENDING", "-o", "%A %r", check=False)
            for line in waits.splitlines():
                job, _, reason = line.partition(" ")
                if "held" in reason:  # its node was not ready again
                    slurm.ask("scontrol", "release", job, check=False)
                elif reason != "BeginTime":
                    continue
                # what starts in the second in which it was put back has its credential revoked
                elif time.monotonic() - since.setdefault(job, time.monotonic()) > 2:
                    del since[job]
                    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    thread = threading.Thread(target=hurry)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def stopped(slurm: Slurm, node: str) -> Iterator[None]:
    """Take a node away."""
    slurm.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        yield
    finally:
        slurm.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")


def settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A study of small trainings, and the profile of jobs with one core and one GPU each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = write(tmp_path / "datasets")
    space = tmp_path / "space.yaml"
    space.write_text("loss: [ce, bce, focal]\nlr: {low: 0.0001, high: 0.01, log: true}\n")
    profile = tmp_path / "cluster.yaml"
    profile.write_text(yaml.safe_dump({"slurm": {"gpus": 1, "memory_gb": 0.4, **(limits or {})}}))
    training = {f"train_classifier__{name}": value for name, value in TINY.items()}
    training |= {"train_classifier__epochs": EPOCHS, "train_classifier__patience": 0}
    asked = {"data": data.folder, "space": space, "search": "random", "pruner": "none"}
    return {**asked, "study_name": "sweep", "launcher": "slurm", "cluster": profile, **training}


@contextmanager
def sweep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, Any] | None = None,
    **asked: Any,
) -> Iterator[Sweep]:
    command = doors.mammo_command("tune", **settings(tmp_path, monkeypatch, limits), **asked)
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
        jobs = slurm.ask("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i %N").splitlines()
        nodes = dict(line.split() for line in jobs)
        places = sorted((nodes[each.job], each.gpus) for each in together)
        assert places == [("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")]

        os.kill(going.in_training().pid, signal.SIGKILL)
        # as Slurm tells a job whose time is nearly over
        slurm.ask("scancel", "--signal=USR2", going.in_training().job)
        slurm.ask("scancel", going.in_training().job)
        lost = going.in_training()
        node = slurm.ask("squeue", "-h", "-j", lost.job, "-o", "%N")
        with stopped(slurm, node):
            going.until("an end on the node", lambda: not Path(f"/proc/{lost.pid}").exists())
            going.until("an empty node", lambda: not slurm.ask("squeue", "-h", "-w", node))
        pushed = going.in_training()
        node = slurm.ask("squeue", "-h", "-j", pushed.job, "-o", "%N")
        slurm.ask(*("sbatch", "-p", "urgent", "-w", node, "-c2", "-o", "/dev/null", "--wrap=true"))

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


def test_mlflow_run_sweeps_on_slurm(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    asked, before = settings(tmp_path, monkeypatch), jobs_of(slurm)
    done = doors.mlflow_run("tune", workers=2, n_trials=4, **asked)
    line = done.line
    assert line["metrics"]["trials/complete"] == 4
    (parent,) = [
        each for each in MlflowClient().search_runs(["0"]) if each.info.run_id == line["run_id"]
    ]
    assert parent.info.status == "FINISHED" and parent.data.tags["mammo.study"] == "sweep"
    children = children_of(line["run_id"])
    assert sorted(each.info.run_name for each in children) == [f"trial_{n}" for n in range(4)]
    states = [state for job, state in jobs_of(slurm).items() if job not in before]
    assert sorted(states) == ["mammo-tune COMPLETED"] * 2 + ["mammo-tune-gather COMPLETED"]
    shown = doors.here("status", line["run_id"])
    assert shown.code == 0 and "study sweep: 4 of 4 trials are over" in shown.out


def test_a_worker_whose_time_is_over_goes_on_in_a_further_start(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Slurm tells it a minute after each start; the trials take more than that together."""
    limits = {"minutes": 2, "save_s": 60}
    with hurried(slurm), sweep(tmp_path, monkeypatch, limits, n_trials=28, workers=1) as going:
        job = going.until("a worker", going.workers)[0].job
        going.until("a further start", lambda: started_again(slurm, job))
        assert going.process.wait(timeout=1200) == 0, (tmp_path / "tune.log").read_text()[-3000:]
    line = json.loads((tmp_path / "out").read_text().splitlines()[-1])
    assert line["metrics"]["trials/complete"] == 28
    children = children_of(line["run_id"])
    assert len(children) == 28 and {each.info.status for each in children} == {"FINISHED"}


def jobs_of(slurm: Slurm) -> dict[str, str]:
    """Name and state of all jobs, by number."""
    lines = slurm.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i %j %T").splitlines()
    return {number: told for number, _, told in (line.partition(" ") for line in lines)}


def started_again(slurm: Slurm, job: str) -> bool:
    told = slurm.ask("scontrol", "show", "job", "-o", job)
    return "JobState=RUNNING" in told and " Restarts=0 " not in told


def test_what_slurm_refuses_is_one_line_before_anything_is_launched(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    asked = settings(tmp_path, monkeypatch, {"partition": "nowhere"})
    refused = doors.here("tune", workers=2, **asked)
    (line,) = refused.err.strip().splitlines()
    assert refused.code == 2
    assert line.startswith("tune: launcher slurm: ")
    assert "Invalid partition name specified" in line
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        absent = doors.here("tune", workers=2, **asked)
    assert absent.code == 2
    assert absent.err.startswith("tune: launcher slurm needs Slurm, and sbatch, squeue, srun")
    assert not MlflowClient().search_runs(["0"])
    assert not (tmp_path / "home" / "studies.db").exists()


def children_of(run_id: str) -> list[Any]:
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return list(MlflowClient().search_runs(["0"], query))
