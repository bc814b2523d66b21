"""Launchers and profiles without a cluster: processes, what they are given, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mammo import cli
from mammo.errors import ConfigError
from mammo.launch import Local, Order, SlurmSettings, at_its_place, commands_of, open_launcher
from mammo.launch.profile import PROFILES, Profile, read_profile
from mammo.run import MemoryRun, Stopped

SHELL = ["sh", "-c"]


def local(tmp_path: Path) -> Any:
    return open_launcher("local", Profile(), tmp_path)


def written(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "place.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_each_process_tells_its_end_and_its_last_line(tmp_path: Path) -> None:
    scripts = ["echo one; echo two", "echo step: wrong >&2; exit 2", "kill -9 $$"]
    commands = commands_of([[*SHELL, each] for each in scripts], tmp_path / "logs")
    ends = local(tmp_path).start(commands, name="test").wait()
    assert [(end.code, end.told) for end in ends] == [(0, "two"), (2, "step: wrong"), (-9, "")]
    assert (tmp_path / "logs" / "0000.log").read_text() == "one\ntwo\n"


def test_processes_at_once_share_gpus_and_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = "echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"
    commands = commands_of([[*SHELL, script]] * 3, tmp_path / "logs")
    told = [end.told for end in local(tmp_path).start(commands, name="test").wait()]
    assert told == ["4 1", "7 1", "4 1"]
    (only,) = local(tmp_path).start(commands[:1], name="test", at_once=1).wait()
    assert only.told == "4 1"
    undealt = Local(deals_gpus=False).start(commands, name="test")  # where one of them is named
    assert [end.told for end in undealt.wait()] == ["4,7 1"] * 3


def test_no_more_processes_run_than_are_allowed_at_once(tmp_path: Path) -> None:
    """mkdir fails where another process still holds the lock."""
    script = f"mkdir {tmp_path}/lock && sleep 0.05 && rmdir {tmp_path}/lock"
    commands = commands_of([[*SHELL, script]] * 4, tmp_path / "logs")
    ends = local(tmp_path).start(commands, name="test", at_once=1).wait()
    assert all(end.done for end in ends)


def test_who_is_told_to_stop_ends_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"trap 'echo saved; exit 143' TERM; touch {tmp_path}/on; while :; do sleep 0.02; done"
    commands = commands_of([[*SHELL, script]], tmp_path / "logs")
    launched = local(tmp_path).start(commands, name="test")
    advance = launched.advance

    def stopped() -> None:
        advance()
        if (tmp_path / "on").exists():
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(launched, "advance", stopped)
    with pytest.raises(Stopped):
        launched.wait()
    assert commands[0].told() == "saved"


def test_all_are_told_to_stop_before_one_is_waited_for(tmp_path: Path) -> None:
    """Each ends well only when the other has been told too."""
    scripts = [
        f"trap 'touch {tmp_path}/{me}; while [ ! -e {tmp_path}/{other} ]; do sleep 0.02; done; "
        f"echo saved; exit 143' TERM; touch {tmp_path}/on-{me}; while :; do sleep 0.02; done"
        for me, other in ((0, 1), (1, 0))
    ]
    commands = commands_of([[*SHELL, each] for each in scripts], tmp_path / "logs")
    for command in commands:
        command.patience_s = 2
    launched = local(tmp_path).start(commands, name="test")
    while len([*tmp_path.glob("on-*")]) < 2:
        time.sleep(0.01)
    launched.cancel()
    assert [each.told() for each in commands] == ["saved", "saved"]


PART = """
import os, signal, sys, types
from mammo import cli, driver
def part(*args):
    print(os.getpid(), flush=True)
    signal.pause()
driver.step_module = lambda step: types.SimpleNamespace(part=part, run=part)
sys.exit(cli.main(["part", sys.argv[1], "0"]))
"""
LAUNCHER = """
import sys
from pathlib import Path
from mammo.launch import Profile, commands_of, open_launcher
commands = commands_of([[sys.executable, "-c", sys.argv[2], sys.argv[1]]], Path(sys.argv[1]))
open_launcher("local", Profile(), Path(sys.argv[1])).start(commands, name="test").wait()
"""


@pytest.mark.doors
def test_a_part_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Which was killed: the same command would start the part again beside it."""
    run = MemoryRun(tmp_path)
    Order.of(run, "sample", {}, 1).write()
    words = [sys.executable, "-c", LAUNCHER, str(run.folder), PART]
    with subprocess.Popen(words) as launcher:
        log = run.folder / "0000.log"
        until(lambda: log.exists() and log.read_text().endswith("\n"))
        launcher.kill()
    number = int(log.read_text().split()[0])
    until(lambda: not Path(f"/proc/{number}").exists())
    assert log.read_text().splitlines()[-1] == (
        "part: stopped by signal 15; the same command continues"
    )


def until(found: Any, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_can_be_read_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    profile = read_profile(name)
    assert profile != Profile()
    assert "$" not in profile.work_dir


def test_a_profile_asks_slurm_for_what_it_says(tmp_path: Path) -> None:
    slurm = {"partition": "gpu", "gpus": 2, "memory_gb": 1.5, "further": {"mail-user": "me"}}
    asked = read_profile(written(tmp_path, {"slurm": slurm})).slurm.asked()
    assert asked == {
        "partition": "gpu",
        "gpus-per-node": 2,
        "cpus-per-task": 1,
        "mem": "1536M",
        "time": 60,
        "mail-user": "me",
    }
    assert SlurmSettings().asked() == {"cpus-per-task": 1, "time": 60}


def test_paths_of_a_profile_are_taken_where_nothing_else_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISK", "/disk")
    monkeypatch.delenv("MAMMO_HOME")
    content = {"work_dir": "$DISK/work", "sources": {"busi": "/data/busi"}}
    settings = {"cluster": written(tmp_path, content), "dataset": "busi", "source": ""}
    placed = at_its_place({**settings, "work_dir": ""})
    assert (placed["work_dir"], placed["source"]) == ("/disk/work", "/data/busi")
    given = at_its_place({**settings, "work_dir": "mine", "source": "there"})
    assert (given["work_dir"], given["source"]) == ("mine", "there")
    monkeypatch.setenv("MAMMO_HOME", "elsewhere")
    assert at_its_place({**settings, "work_dir": ""})["work_dir"] == ""


def test_a_profile_names_the_tracking_server_unless_the_environment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"cluster": written(tmp_path, {"tracking_uri": "http://login1:5000"})}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:5000")
    at_its_place(settings)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mine:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    at_its_place(settings)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://login1:5000"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"slum": {}}, "slum is not known; choose among work_dir, tracking_uri, sources, slurm"),
        ({"slurm": {"queue": "gpu"}}, "slurm.queue is not known; choose among partition, account"),
        ({"slurm": {"minutes": "1:00"}}, "slurm.minutes is '1:00'; it must be a whole number"),
        ({"slurm": {"gpus": -1}}, "slurm.gpus is -1"),
        ({"slurm": {"partition": True}}, "slurm.partition is True; it must be a text"),
        ({"slurm": {"save_s": 0}}, "slurm.save_s is 0; give 1 or more"),
        ({"slurm": {"memory_gb": float("inf")}}, "slurm.memory_gb is inf; it must be a number"),
        ({"slurm": {"setup": [{"export A": "b"}]}}, "slurm.setup is .* must be a list of texts"),
        ({"work_dir": "$NO_DISK/a"}, r"work_dir is '\$NO_DISK/a', and NO_DISK is not set"),
        ({"sources": {"busi": "${NO_DISK}"}}, "sources.busi is .*, and NO_DISK is not set"),
        ({"slurm": {"minutes": 0}}, "slurm.minutes is 0; give 1 or more"),
        ({"slurm": {"gpus": 1, "gres": "gpu:1"}}, "both ask for GPUs"),
        ({"slurm": {"minutes": 1, "save_s": 60}}, "save_s 60 leaves nothing of slurm.minutes 1"),
        ({"slurm": 3}, "slurm is not a mapping"),
        ([1], "is not a mapping of settings"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, content: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        read_profile(written(tmp_path, content))


def refused(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that `mammo sample` ends with."""
    assert cli.main(["sample", "--generator", "0" * 32, "--count", "4", *words]) == 2
    return capsys.readouterr().err.strip()


def test_an_unknown_launcher_or_profile_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("--launcher", "ray", capsys=capsys) == (
        "sample: launcher 'ray' is not known; choose one of local, slurm, none"
    )
    assert "cluster nowhere is no file here and no profile" in refused(
        "--cluster", "nowhere", capsys=capsys
    )


def test_a_machine_without_slurm_is_told_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refused("--launcher", "slurm", capsys=capsys)
    assert line.startswith("sample: launcher slurm needs Slurm, and sbatch, squeue, srun cannot be")
    assert "\n" not in line
