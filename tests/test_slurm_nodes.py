"""Training on several machines of a real Slurm: the numbers of one process, one end for all."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import doors
import pytest
import small
import torch
import yaml
from mlflow import MlflowClient
from safetensors.torch import load_file
from slurm import Slurm
from test_training_processes import is_running, train, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parent / "steps"))

from classifier_data import TINY, write

from mammo.errors import ConfigError, DataError
from mammo.launch import Command, Launched, Profile, SlurmSettings
from mammo.launch import slurm as launcher
from mammo.training import nodes
from mammo.training.nodes import across
from mammo.training.processes import ALONE

pytestmark = pytest.mark.doors


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{doors.ROOT}")
    monkeypatch.setattr(launcher, "_SQUEUE_S", (0.5, 1.0))


def job(tmp_path: Path, trouble: str, *, devices: int = 1) -> tuple[Launched, Path]:
    """Let two machines train together; `trouble` is a function of this file, called by each."""
    script = "import test_slurm_nodes as here; here.all_train"
    script += f"({str(tmp_path)!r}, here.{trouble}, {devices})"
    command = Command([sys.executable, "-c", script], tmp_path / "script.log", 2)
    asked = SlurmSettings(minutes=5, memory_gb=0.9, gpus=devices, cpus=devices)
    slurm = launcher.Slurm(Profile(slurm=asked), tmp_path / "jobs")
    return slurm.start([command], name="test"), command.log


def all_train(folder: str, trouble: Any, devices: int) -> None:
    """Train in this process and in those on both machines, and print how it ends."""
    work = partial(train, Path(folder), partial(trouble, folder))
    try:
        with across(2, devices, work) as team:
            work(team)
    except (ConfigError, DataError) as error:
        print(type(error).__name__, error, *getattr(error, "__notes__", [])[:1])


def tells_its_place(folder: str, rank: int) -> None:
    place = f"{os.environ['SLURMD_NODENAME']} {os.environ['CUDA_VISIBLE_DEVICES']}"
    Path(folder, f"{rank}.place").write_text(place)


def refuses(folder: str, rank: int) -> None:
    if rank == 1:
        raise DataError("image 7 is broken; fetch it again")


def is_killed(folder: str, rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def kills_the_first(folder: str, rank: int) -> None:
    Path(folder, f"{rank}.pid").write_text(str(os.getpid()))
    if rank == 0:
        wait_for(lambda: Path(folder, "1.pid").exists())
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_the_processes_of_both_machines_have_their_own_ranks_and_gpus(
    slurm: Slurm, tmp_path: Path
) -> None:
    launched, log = job(tmp_path, "tells_its_place", devices=2)
    assert launched.wait()[0].code == 0, log.read_text()
    places = {rank: (tmp_path / f"{rank}.place").read_text() for rank in range(4)}
    assert places == {0: "n1 0,1", 1: "n1 0,1", 2: "n2 0,1", 3: "n2 0,1"}


def test_the_mistake_that_another_machine_meets_is_raised_with_its_message(
    slurm: Slurm, tmp_path: Path
) -> None:
    launched, log = job(tmp_path, "refuses")
    launched.wait()
    assert "DataError image 7 is broken; fetch it again on machine 2:" in log.read_text()


def test_a_process_that_the_system_ends_on_another_machine_is_one_line(
    slurm: Slurm, tmp_path: Path
) -> None:
    launched, log = job(tmp_path, "is_killed")
    launched.wait()
    assert "ConfigError nodes 2: the system ended a process on another machine" in log.read_text()


def test_the_other_machines_do_not_outlive_a_killed_first_process(
    slurm: Slurm, tmp_path: Path
) -> None:
    launched, _ = job(tmp_path, "kills_the_first")
    assert launched.wait()[0].code == -signal.SIGKILL
    other = int((tmp_path / "1.pid").read_text())
    wait_for(lambda: not is_running(other), seconds=20)


@pytest.fixture
def asked(store: str, tmp_path: Path) -> dict[str, Any]:
    """Settings of a tiny generator on 24 images of 32 pixels."""
    rows = small.real_rows({"benign": [1] * 16, "malignant": [1] * 16})
    for place, row in enumerate(rows):
        row["split"] = "train" if place % 4 else "val"
    data = small.dataset(tmp_path / "elsewhere", rows, shape=(1, 32, 32))
    asked = {"data": data.folder, "channels": "8,16", "attention": 0, "batch_size": 6, "ema": 0.9}
    return {**asked, "epochs": 2, "sample_every": 0, "device": "cpu", "upload_minutes": 0}


def cluster(tmp_path: Path) -> dict[str, str]:
    """Settings of the launcher; a machine gives its core, its GPUs and a part of its memory."""
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({"slurm": {"gpus": 1, "memory_gb": 0.9}}))
    return {"launcher": "slurm", "cluster": str(path)}


def test_two_machines_train_as_one_process_and_as_one_machine_with_the_same_global_batch(
    slurm: Slurm, tmp_path: Path, asked: dict[str, Any]
) -> None:
    across = doors.here("train_generator", **asked, nodes=2, **cluster(tmp_path))
    alone = doors.here("train_generator", **asked)
    both = doors.here("train_generator", **asked, devices=2)
    assert len({each.run_id for each in (across, alone, both)}) == 3
    assert_same_training(across.run_id, alone.run_id)
    assert_same_training(across.run_id, both.run_id)
    assert across.metrics["images_seen"] == alone.metrics["images_seen"] == 48
    jobs = slurm.ask("scontrol", "show", "job", "-o").splitlines()
    job = [each for each in jobs if "JobName=mammo-train_generator-gather" in each][-1]
    assert "JobState=COMPLETED" in job and "NodeList=n[1-2]" in job


@pytest.mark.slow
def test_a_training_on_two_machines_that_is_stopped_and_pushed_out_goes_on_in_its_run(
    slurm: Slurm, tmp_path: Path, asked: dict[str, Any]
) -> None:
    """First it is told that its time is over, as Slurm tells it; then it is put back at once."""
    asked["epochs"] = 40
    command = doors.mammo_command("train_generator", **asked, nodes=2, **cluster(tmp_path))
    log = tmp_path / "caller.log"
    with log.open("wb") as errors:
        caller = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        folder = first_epoch(tmp_path, caller)
        number = json.loads((folder / "launch/jobs.json").read_text())["gather"][0]
        slurm.ask("scancel", "--signal=USR2", number)
        slurm.hurry(number, timeout_s=180)
        before = (folder / "checkpoints/last.ckpt").stat().st_mtime_ns
        wait_for(lambda: (folder / "checkpoints/last.ckpt").stat().st_mtime_ns > before, 180)
        slurm.ask("scontrol", "requeue", number)
        slurm.hurry(number, timeout_s=180)
        out, _ = caller.communicate(timeout=300)
    finally:
        caller.kill()
    assert caller.returncode == 0, log.read_text()
    run_id = json.loads(out.splitlines()[-1])["run_id"]
    (run,) = MlflowClient().search_runs(["0"])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert_same_training(run_id, doors.here("train_generator", **asked).run_id)


def first_epoch(tmp_path: Path, caller: subprocess.Popen[bytes]) -> Path:
    """The folder of the run, as soon as it has a checkpoint."""

    def found() -> list[Path]:
        assert caller.poll() is None, (tmp_path / "caller.log").read_text()
        return sorted((tmp_path / "home").glob("runs/*/checkpoints/last.ckpt"))

    wait_for(found, 180)
    return found()[0].parents[1]


def assert_same_training(one: str, other: str) -> None:
    """Epochs, losses and saved weights of two runs agree to rounding."""
    client = MlflowClient()
    losses = [
        [(each.step, each.value) for each in client.get_metric_history(run, name)]
        for run in (one, other)
        for name in ("train/loss", "val/loss")
    ]
    for mine, theirs in zip(losses[:2], losses[2:], strict=True):
        assert [step for step, _ in mine] == [step for step, _ in theirs]
        assert [each for _, each in mine] == pytest.approx([each for _, each in theirs], rel=1e-4)
    first, second = [
        load_file(client.download_artifacts(run, "model/weights.safetensors"))
        for run in (one, other)
    ]
    assert first.keys() == second.keys()
    mine, theirs = [
        torch.cat([each[name].flatten().double() for name in sorted(first)])
        for each in (first, second)
    ]
    assert float((mine - theirs).norm() / mine.norm()) < 1e-4


@pytest.mark.parametrize("held", ["", "1"])
def test_machines_that_are_not_there_are_told_in_one_line(
    store: str, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], held: str
) -> None:
    if held:
        monkeypatch.setenv("SLURM_JOB_NUM_NODES", held)
    refused = doors.here("train_generator", **asked, nodes=2)
    assert refused.code == 2
    (line,) = refused.err.strip().splitlines()
    assert line.startswith("train_generator: nodes 2: ") and "use launcher=slurm" in line


def test_what_a_site_prints_into_its_jobs_is_no_word_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a prolog of Slurm may."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\necho Welcome; echo 7; echo '{}'; head -c 1\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setattr(nodes, "START_S", 2.0)
    step = nodes._Step(1)
    try:
        step.give(print, ALONE)
    finally:
        step.end()
    assert step.exitcode == 0


def test_a_login_node_that_holds_machines_is_told_to_begin_on_one_of_them(
    store: str, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    """As after salloc, where its shell stays where it was."""
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    refused = doors.here("train_generator", **asked, nodes=2)
    assert refused.code == 2
    (line,) = refused.err.strip().splitlines()
    assert line.startswith("train_generator: nodes 2: this process runs outside of the machines")
    assert not MlflowClient().search_runs(["0"])


def test_more_machines_than_the_cluster_has_are_told_before_anything_is_launched(
    slurm: Slurm, tmp_path: Path, asked: dict[str, Any]
) -> None:
    refused = doors.here("train_generator", **asked, nodes=3, **cluster(tmp_path))
    assert refused.code == 2
    assert "Node count specification invalid; change nodes or the profile" in refused.err
    assert slurm.ask("squeue", "-h") == "" and not MlflowClient().search_runs(["0"])


def test_a_classifier_trains_on_two_machines_as_in_one_process(
    slurm: Slurm, store: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "datasets", patients=11)
    asked = {**TINY, "data": data.folder, "model_name": "test_convnext", "batch_size": 6}
    across = doors.here("train_classifier", **asked, nodes=2, **cluster(tmp_path))
    alone = doors.here("train_classifier", **asked)
    assert_same_training(across.run_id, alone.run_id)
    assert across.metrics == pytest.approx(alone.metrics, rel=1e-4)
