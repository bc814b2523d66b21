"""Training on several machines of a real Slurm: the numbers of one process, one end for all."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import doors
import pytest
from slurm import Slurm
from test_training_processes import is_running, train, wait_for

from mammo.errors import ConfigError, DataError
from mammo.launch import Command, Launched, Profile, SlurmSettings
from mammo.launch import slurm as launcher
from mammo.training.nodes import across

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
