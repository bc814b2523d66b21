"""The launcher of a real Slurm: each command's end is told, and what is put back goes on."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm import Slurm

from mammo.errors import ConfigError
from mammo.launch import Command, End, Launched, Profile, SlurmSettings, check_launcher
from mammo.launch import slurm as launcher
from mammo.launch.command import commands_of
from mammo.run import Stopped

pytestmark = pytest.mark.doors


@pytest.fixture(autouse=True)
def _asks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_SQUEUE_S", (0.5, 1.0))
    monkeypatch.setattr(launcher, "_LEAVE_S", 3.0)


def scripts(tmp_path: Path, *texts: str) -> list[Command]:
    return commands_of([["sh", "-c", each] for each in texts], tmp_path / "logs")


def opened(tmp_path: Path, **asked: Any) -> launcher.Slurm:
    settings = SlurmSettings(**{"minutes": 5, "memory_gb": 0.1, **asked})
    return launcher.Slurm(Profile(slurm=settings), tmp_path / "jobs")


def in_thread(launched: Launched) -> Callable[[], list[End]]:
    """Wait in a thread; calling what is returned gives the ends."""
    ends: list[End] = []
    thread = threading.Thread(target=lambda: ends.extend(launched.wait()), daemon=True)
    thread.start()

    def joined() -> list[End]:
        thread.join(120)
        assert not thread.is_alive()
        return ends

    return joined


def until(path: Path, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


def said(command: Command) -> list[str]:
    """The words of its log, but for the shell's about a child that was told to stop first."""
    return [word for word in command.log.read_text().split() if word != "Terminated"]


def test_each_task_of_an_array_has_a_gpu_of_its_own(slurm: Slurm, tmp_path: Path) -> None:
    """Four at a time, for each waits until four have come."""
    here = tmp_path / "here"
    here.mkdir()
    script = (
        f"echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; touch {here}/$SLURM_ARRAY_TASK_ID; "
        f"while [ $(ls {here} | wc -l) -lt 4 ]; do sleep 0.05; done; tail -n 1 {tmp_path}/logs/"
        "000$SLURM_ARRAY_TASK_ID.log"
    )
    launched = opened(tmp_path, gpus=1).start(scripts(tmp_path, *[script] * 4), name="test")
    ends = launched.wait()
    assert sorted(end.told for end in ends) == ["n1 0", "n1 1", "n2 0", "n2 1"]


def test_each_end_is_told_and_the_gathering_comes_after_all(slurm: Slurm, tmp_path: Path) -> None:
    texts = ["sleep 1; echo fine", "echo part: wrong; exit 2", "kill -9 $$"]
    cluster = opened(tmp_path)
    parts = cluster.start(scripts(tmp_path, *texts), name="test")
    count = f"ls {tmp_path}/logs/*.end | wc -l"
    gather = Command(["sh", "-c", count], tmp_path / "gather.log")
    (last,) = cluster.start([gather], name="gather", after=parts).wait()
    assert last == End(0, "3")
    told = [(end.code, end.told) for end in parts.wait()]
    assert told == [(0, "fine"), (2, "part: wrong"), (-9, "")]


def test_a_task_that_is_cancelled_has_no_end_or_a_stopped_one(slurm: Slurm, tmp_path: Path) -> None:
    # exec, for a shell whose child is the first to hear of it says 143
    launched = opened(tmp_path).start(scripts(tmp_path, "exec sleep 60", "echo fine"), name="test")
    slurm.until(launched.jobs[1], "COMPLETED")
    slurm.ask("scancel", launched.jobs[0])
    cancelled, fine = launched.wait()
    assert fine == End(0, "fine")
    assert not cancelled.done and cancelled.code in (None, -signal.SIGTERM, -signal.SIGKILL)


def test_a_job_that_is_pushed_out_starts_again_and_ends_once(slurm: Slurm, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo start; while [ ! -e {go} ]; do sleep 0.05; done; echo end"
    (command,) = scripts(tmp_path, script)
    launched = opened(tmp_path).start([command], name="test")
    ends = in_thread(launched)
    until(command.log)
    urgent = opened(tmp_path / "urgent", partition="urgent", cpus=2)
    urgent.start(scripts(tmp_path / "urgent", "true", "true"), name="urgent").wait()
    slurm.hurry(launched.jobs[0])
    go.touch()
    assert ends() == [End(0, "end")]
    assert said(command) == ["start", "start", "end"]


def test_a_job_that_is_given_time_to_go_saves_and_starts_again(
    slurm: Slurm, tmp_path: Path
) -> None:
    """It would have ended well, as far as Slurm can tell, and not be put back."""
    saved = tmp_path / "saved"
    script = (
        f"[ -e {saved} ] && echo end && exit 0; trap 'touch {saved}; echo saved; exit 143' TERM; "
        "echo start; while :; do sleep 0.05; done"
    )
    (command,) = scripts(tmp_path, script)
    launched = opened(tmp_path, partition="spare", cpus=2).start([command], name="test")
    ends = in_thread(launched)
    until(command.log)
    urgent = opened(tmp_path / "urgent", partition="urgent", cpus=2)
    urgent.start(scripts(tmp_path / "urgent", "true", "true"), name="urgent").wait()
    slurm.hurry(launched.jobs[0])
    assert ends() == [End(0, "end")]
    assert said(command) == ["start", "saved", "end"]


def test_a_job_whose_node_fails_starts_again_and_ends_once(slurm: Slurm, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo $SLURMD_NODENAME; while [ ! -e {go} ]; do sleep 0.05; done; echo end"
    (command,) = scripts(tmp_path, script)
    launched = opened(tmp_path).start([command], name="test")
    ends = in_thread(launched)
    until(command.log)
    while not command.told():
        time.sleep(0.05)
    node = f"NodeName={command.told()}"
    slurm.ask("scontrol", "update", node, "State=DOWN", "Reason=test")
    try:
        slurm.hurry(launched.jobs[0])
        go.touch()
        assert ends() == [End(0, "end")]
    finally:
        slurm.ask("scontrol", "update", node, "State=RESUME")
    assert sorted(set(said(command))) == ["end", "n1", "n2"]


def test_a_job_whose_time_is_over_saves_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    """Slurm tells it `save_s` before its minute is over."""
    saved = tmp_path / "saved"
    script = (
        f"[ -e {saved} ] && echo done && exit 0; trap 'touch {saved}; echo saved; exit 143' TERM; "
        "while :; do sleep 0.1; done"
    )
    (command,) = scripts(tmp_path, script)
    launched = opened(tmp_path, minutes=1, save_s=50).start([command], name="test")
    ends = in_thread(launched)
    until(saved, timeout_s=90)
    slurm.hurry(launched.jobs[0])
    assert ends() == [End(0, "done")]
    assert command.log.read_text().split() == ["saved", "done"]


def test_who_is_told_to_stop_cancels_the_jobs(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = opened(tmp_path).start(scripts(tmp_path, "sleep 60", "sleep 60"), name="test")

    def stopped(jobs: list[str]) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(launcher, "_queued", stopped)
    with pytest.raises(Stopped):
        launched.wait()
    slurm.until(launched.jobs[0].partition("_")[0], "CANCELLED")


def test_who_cancels_waits_until_the_jobs_have_saved(slurm: Slurm, tmp_path: Path) -> None:
    text = "trap 'sleep 1; echo saved; exit 143' TERM; echo on; while :; do sleep 0.05; done"
    cluster, commands = opened(tmp_path), scripts(tmp_path, text, text)
    parts = cluster.start(commands, name="test")
    gather = Command(["echo", "gathered"], tmp_path / "logs" / "gather.log")
    last = cluster.start([gather], name="gather", after=parts)
    for command in commands:
        until(command.log)
        while not command.told():
            time.sleep(0.05)
    last.cancel()
    assert [each.told() for each in commands] == ["saved", "saved"]
    assert slurm.ask("squeue", "-h") == "" and gather.end() is None


def test_parts_whose_gathering_was_cancelled_are_not_left_beside_new_ones(
    slurm: Slurm, tmp_path: Path
) -> None:
    cluster, commands = opened(tmp_path), scripts(tmp_path, "sleep 60", "sleep 60")
    parts = cluster.start(commands, name="test")
    assert cluster.again(commands[:1], [], before=parts.jobs) is None
    assert slurm.ask("squeue", "-h") == ""


def test_jobs_on_their_way_are_found_again(slurm: Slurm, tmp_path: Path) -> None:
    go = tmp_path / "go"
    commands = scripts(tmp_path, f"while [ ! -e {go} ]; do sleep 0.05; done; echo end")
    cluster = opened(tmp_path)
    launched = cluster.start(commands, name="test")
    found = cluster.again(commands, launched.jobs, before=[])
    assert found is not None
    go.touch()
    assert found.wait() == [End(0, "end")]
    slurm.until(launched.jobs[0], "COMPLETED")
    assert cluster.again(commands, launched.jobs, before=[]) is None
    assert cluster.again(commands, ["99999"], before=[]) is None


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"partition": "nowhere"}, "Invalid partition name specified"),
        ({"minutes": 600}, "Requested time limit is invalid"),
        ({"gpus": 9}, "Requested node configuration is not available"),
        ({"constraint": "a100"}, "Invalid feature specification"),
    ],
)
def test_a_cluster_that_refuses_is_told_in_one_line(
    slurm: Slurm, tmp_path: Path, asked: dict[str, Any], text: str
) -> None:
    import yaml

    path = tmp_path / "place.yaml"
    path.write_text(yaml.safe_dump({"slurm": asked}))
    with pytest.raises(ConfigError, match=text) as caught:
        check_launcher({"launcher": "slurm", "cluster": str(path)})
    assert "\n" not in str(caught.value)
    assert slurm.ask("squeue", "-h") == ""


def test_without_submitit_it_is_told(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match="needs the package submitit, which is not installed"):
        check_launcher({"launcher": "slurm"})
