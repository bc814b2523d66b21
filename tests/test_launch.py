"""Launchers and profiles without a cluster: processes, what they are given, and what is refused."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from mammo import cli
from mammo.errors import ConfigError
from mammo.launch import Order, SlurmSettings, at_its_place, commands_of, open_launcher
from mammo.launch.profile import PROFILES, Profile, read_profile
from mammo.run import MemoryRun, Reference, Stopped

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


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    given = [Reference("runs:/a/dataset", tmp_path, "d1", "a"), Reference("b", tmp_path, "d2")]
    run = MemoryRun(tmp_path, {"data": given})
    order = Order.of(run, "sample", {"count": 3, "guidance": 1.5}, 4)
    order.write()
    assert Order.read(run.folder) == order
    parts, gather = order.commands()
    assert [each.words[-1] for each in [*parts, gather]] == ["0", "1", "2", "3", "gather"]


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ("echo 'part: count 0 is wrong' >&2; exit 2", ConfigError, "^count 0 is wrong$"),
        ("exit 1", RuntimeError, "part 1 of 2 failed; its traceback is in .*0001.log"),
        ("kill -9 $$", ConfigError, r"part 1 of 2 was ended from outside \(exit code -9\)"),
    ],
)
def test_what_went_wrong_in_a_part_is_raised(
    tmp_path: Path, script: str, error: type[Exception], text: str
) -> None:
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 2)
    commands, _ = order.commands()
    for command, words in zip(commands, ["true", script], strict=True):
        command.words = [*SHELL, words]
    local(tmp_path).start(commands, name="test").wait()
    with pytest.raises(error, match=text):
        order.refuse_undone()


def test_a_part_that_never_ended_is_told(tmp_path: Path) -> None:
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 1)
    with pytest.raises(ConfigError, match=r"part 0 of 1 was ended from outside \(without a word\)"):
        order.refuse_undone()


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


def test_a_part_of_no_order_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["part", str(tmp_path), "0"]) == 2
    assert "is no order of a launcher; give the folder of a run" in capsys.readouterr().err
