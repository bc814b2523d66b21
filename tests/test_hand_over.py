"""A run that jobs do has one writer at a time: the command, the gathering, or who is left."""

import errno
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import doors
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import TEMPORARILY_UNAVAILABLE, MlflowException

from mammo import driver, launching
from mammo.errors import TrackingError
from mammo.launch import Command, End
from mammo.run import Result, Run, Stopped
from mammo.tracking import Share, TrackedRun, Tracking, ownership
from mammo.tracking.ownership import HEARTBEAT, OWNER

pytestmark = pytest.mark.doors


TROUBLES: list[Exception] = []  # that the second part meets


def run(tracked: Run, *, value: float = 1.0, source: str = "") -> Result:
    """Add up what the parts have written."""
    found = sorted(tracked.folder.glob("part-*"))
    total = sum(float(each.read_text()) for each in found)
    tracked.metrics({"total": total})
    return Result({}, {"total": total}, "d" * 32)


def parts(tracked: Run, settings: Any) -> int:
    tracked.metrics({"planned": 2.0})
    return 2


def part(tracked: Run, number: int, of: int, *, value: float, source: str) -> None:
    tracked.metrics({"nobody": 1.0})  # not of the run: this process is not its writer
    if number and TROUBLES:
        raise TROUBLES.pop()
    with tracked.child(f"fold {number}", "train_classifier", {"fold": number}) as child:
        child.metrics({"fold/auc": number / of})
    (tracked.folder / f"part-{number}").write_text(str(value * (number + 1)))


@dataclass
class Elsewhere:
    """A launcher whose commands run in this process, as if it were others with their own names."""

    before: Callable[[str], Any]  # of a command, as its last word
    patch: pytest.MonkeyPatch
    jobs: list[str] = field(default_factory=lambda: ["1"])

    def start(self, commands: Sequence[Command], **about: Any) -> "Elsewhere":
        self.commands, self.earlier = list(commands), about.get("after")
        return self

    def again(self, commands: Sequence[Command], jobs: Sequence[str], **about: Any) -> None:
        return None

    def cancel(self) -> None: ...

    def wait(self) -> list[End]:
        return [self._done(each) for each in self.commands]

    def _done(self, command: Command) -> End:
        word = command.words[-1]
        stop = self.before(word)
        if isinstance(stop, BaseException):
            raise stop
        if isinstance(stop, End):
            return stop
        with self.patch.context() as other:
            other.setattr(ownership, "_TOKEN", f"token{word}")
            other.setattr(launching, "open_launcher", None)
            try:
                done = doors.here(*command.words[3:])
            except Exception as bug:  # noqa: BLE001 - with which a process would end
                done = doors.Outcome(1, "", repr(bug))
        command.forget()
        command.log.write_text(done.err)
        command.note(done.code)
        return End(done.code, command.told())


class Cluster:
    """The launchers that a command opens: parts, then their gathering."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch, self.seen = patch, list[str]()
        self.before: Callable[[str], Any] = self.seen.append

    def open(self, name: str, profile: Any, folder: Path) -> "Cluster":
        return self

    def again(self, commands: Sequence[Command], jobs: Sequence[str], **about: Any) -> None:
        return None

    def start(self, commands: Sequence[Command], **about: Any) -> Elsewhere:
        launched = Elsewhere(self.before, self.patch).start(commands, **about)
        if about.get("after") is None:
            launched.wait()
        return launched


@pytest.fixture
def cluster(store: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    toy = ModuleType("toy")
    for each in (run, parts, part):
        setattr(toy, each.__name__, each)
    monkeypatch.setattr(driver, "step_module", lambda step: toy)
    monkeypatch.setattr(driver, "check_launcher", lambda settings: None)
    found = Cluster(monkeypatch)
    monkeypatch.setattr(launching, "open_launcher", found.open)
    return found


def call(**settings: Any) -> doors.Outcome:
    return doors.here("evaluate", launcher="slurm", **settings)


def only_parent() -> Any:
    runs = MlflowClient().search_runs(["0"])
    (found,) = (each for each in runs if "mlflow.parentRunId" not in each.data.tags)
    return found


def test_the_gathering_alone_writes_the_run(cluster: Cluster, tmp_path: Path) -> None:
    states: dict[str, tuple[str, str]] = {}

    def note(word: str) -> None:
        found = only_parent()
        spool = tmp_path / "home" / "spool"
        states[word] = (found.info.status, " ".join(each.name for each in spool.glob("*")))

    cluster.before = note
    line = call(value=3).line
    # nobody holds the run while its jobs wait and work, and mammo reap leaves it alone
    assert states == dict.fromkeys(("0", "1", "gather"), ("SCHEDULED", ""))
    assert line["metrics"] == {"total": 9.0}
    found = only_parent()
    assert (line["run_id"], found.info.status) == (found.info.run_id, "FINISHED")
    assert found.data.tags[OWNER].endswith(":tokengather")
    said = {name: found.data.metrics[name] for name in ("planned", "total", "children/finished")}
    assert said == {"planned": 2.0, "total": 9.0, "children/finished": 2.0}
    assert "nobody" not in found.data.metrics
    children = MlflowClient().search_runs(
        ["0"], f"tags.`mlflow.parentRunId` = '{found.info.run_id}'"
    )
    assert [each.info.status for each in children] == ["FINISHED"] * 2
    assert call(value=3).line == line  # reused


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/a"), 2, "/disk/a cannot be writ"),
        (OSError(errno.EACCES, "Permission denied", "/busi/jane.png"), 2, "a file or folder in so"),
        (IndexError("of jane.png"), 1, "part 1 of 2 failed; its traceback is in "),
    ],
)
def test_what_a_part_met_is_told_on_the_run_without_a_name(
    cluster: Cluster, error: Exception, code: int, told: str
) -> None:
    TROUBLES.append(error)
    settings = {"source": "/busi"}
    if code == 1:
        with pytest.raises(RuntimeError, match="the gathering job failed"):
            call(**settings)
    else:
        assert call(**settings).code == code
    found = only_parent()
    assert found.info.status == "FAILED"
    assert found.data.tags["error"].startswith(told) and "jane" not in found.data.tags["error"]


def test_without_a_launcher_the_run_of_mlflow_run_points_to_the_one_that_waits(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mlflow run` closes its own when the command ends, which is before anything is done."""
    client = MlflowClient()
    for _ in range(2):
        joined = client.create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", joined)
        line = doors.here("evaluate", launcher="none").line
        pointer, waiting = client.get_run(joined), client.get_run(line["run_id"])
        assert (pointer.info.status, waiting.info.status) == ("FINISHED", "SCHEDULED")
        assert pointer.data.tags["mammo.continues"] == line["run_id"] != joined
    for each in line["commands"]:
        assert doors.here(*shlex.split(each)[3:]).code == 0
    done = doors.here("evaluate", launcher="none").line
    assert (done["run_id"], done["metrics"]) == (line["run_id"], {"total": 3.0})


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_gathering_that_slurm_starts_again_waits_until_the_lost_machine_is_silent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, restarts: str
) -> None:
    """The first start had the run, and nobody can ask its machine whether it lives."""
    *parts, gather = doors.here("evaluate", launcher="none").line["commands"]
    for each in parts:
        assert doors.here(*shlex.split(each)[3:]).code == 0
    run_id, last = only_parent().info.run_id, time.time() - ownership.STALE_S + 1.5
    for name, value in {OWNER: "elsewhere:1:00", HEARTBEAT: str(last)}.items():
        MlflowClient().set_tag(run_id, name, value)
    MlflowClient().update_run(run_id, "RUNNING")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    done = doors.here(*shlex.split(gather)[3:])
    found = MlflowClient().get_run(run_id)
    if restarts == "0":
        assert done.code == 2 and "is being written by another process on another ma" in done.err
        assert (found.info.status, found.data.tags[OWNER]) == ("RUNNING", "elsewhere:1:00")
    else:
        assert time.time() - last >= ownership.STALE_S
        assert (done.code, found.info.status) == (0, "FINISHED")
        assert found.data.metrics["total"] == 3.0


def test_jobs_on_their_way_are_found_though_their_run_is_in_another_store(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _empty_store: Path
) -> None:
    """Who forgot to name the tracking server must not clear the folder that they work in."""
    doors.here("evaluate", launcher="none")
    (folder,) = (tmp_path / "home" / "runs").glob("*/launch")
    (folder / "jobs.json").write_text('{"parts": ["1"], "gather": ["2"]}')
    shutil.copyfile(_empty_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")

    def again(commands: Sequence[Command], jobs: Sequence[str], *, before: Any) -> Elsewhere:
        assert (jobs, before) == (["2"], ["1"])
        cluster.before = lambda word: End(2, f"part: {word} is told")
        return Elsewhere(cluster.before, monkeypatch).start(commands)

    monkeypatch.setattr(cluster, "again", again)
    done = call()
    assert (done.code, done.err.splitlines()[-1]) == (2, "evaluate: gather is told")
    assert (folder / "order.json").is_file() and not MlflowClient().search_runs(["0"])


def test_nobody_else_does_what_jobs_are_on_their_way_to_do(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends first would clear the folder that the others work in."""
    doors.here("evaluate", launcher="none")
    (folder,) = (tmp_path / "home" / "runs").glob("*/launch")
    (folder / "jobs.json").write_text('{"parts": ["1"], "gather": ["2"]}')
    going = Elsewhere(cluster.before, monkeypatch, ["2"])
    monkeypatch.setattr(cluster, "again", lambda *commands, before: going)
    monkeypatch.setattr(launching.shutil, "which", lambda name: name)
    for launcher in ("local", "none"):
        refused = doors.here("evaluate", launcher=launcher)
        assert refused.code == 2
        assert "evaluate: job 2 of Slurm is on its way to do the same" in refused.err
    assert only_parent().info.status == "SCHEDULED"


def test_offline_it_goes_through_the_spool(cluster: Cluster) -> None:
    line = call(value=3, offline=True).line
    assert line["metrics"] == {"total": 9.0}
    assert MlflowClient().search_runs(["0"]) == []
    assert doors.here("sync").code == 0
    found = only_parent()
    assert (found.info.status, found.data.metrics["total"]) == ("FINISHED", 9.0)
    assert len(MlflowClient().search_runs(["0"])) == 3


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        (Stopped(15), "KILLED", "signal 15"),
        (End(-9, ""), "FAILED", "the gathering job was ended from outside (exit code -9)"),
    ],
)
@pytest.mark.parametrize("began", [False, True])
def test_who_waits_ends_a_run_that_nobody_else_can(
    cluster: Cluster, end: Any, status: str, told: str, began: bool
) -> None:
    """The gathering was never started, or was killed with the run in its hands."""

    def killed(word: str) -> Any:
        if word == "gather" and began:
            tags = {OWNER: "elsewhere:1:00", HEARTBEAT: str(int(time.time()))}
            for name, value in tags.items():
                MlflowClient().set_tag(only_parent().info.run_id, name, value)
            MlflowClient().update_run(only_parent().info.run_id, "RUNNING")
        return end if word == "gather" else None

    cluster.before = killed
    assert call().code == (2 if isinstance(end, End) else 143)
    found = only_parent()
    assert found.info.status == status
    assert told in found.data.tags["error" if status == "FAILED" else "mammo.stopped"]
    cluster.before = lambda word: None
    again = call()
    assert again.run_id == found.info.run_id and again.metrics == {"total": 3.0}


def test_who_waits_leaves_the_end_to_a_gathering_that_lives(
    cluster: Cluster, tmp_path: Path
) -> None:
    held: list[Tracking] = []

    def working(word: str) -> Any:
        if word != "gather":
            return None
        held.append(Tracking(tmp_path / "home"))
        held[0].reopen(only_parent().info.run_id)
        assert held[0].outbox.flush(10)
        return Stopped(15)

    cluster.before = working
    assert call().code == 143
    with held[0]:
        assert only_parent().info.status == "RUNNING"
        held[0].set_status(only_parent().info.run_id, "KILLED", stopped="signal 15")


def test_what_is_not_sent_is_sent_by_who_goes_on(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about: dict[str, Any] = {"folder": tmp_path / "run", "work": tmp_path, "inputs": {}}

    def away(*args: Any, **more: Any) -> None:
        raise MlflowException("not now", error_code=TEMPORARILY_UNAVAILABLE)

    monkeypatch.setenv("MAMMO_TRACKING_WAIT_S", "1")
    with Tracking(tmp_path) as first:
        run_id = first.create_run("given", "test")
        with monkeypatch.context() as outage:
            outage.setattr(MlflowClient, "log_batch", away)
            TrackedRun(first, run_id, **about).params({"lr": 0.5})
            first.hand_on(run_id)
        with Tracking(tmp_path) as second:
            second.claim(run_id)
            second.reopen(run_id)
            TrackedRun(second, run_id, **about).metrics({"auc": 0.75})
            second.set_status(run_id, "FINISHED")
    found = MlflowClient().get_run(run_id)
    assert (found.info.status, found.data.params["lr"]) == ("FINISHED", "0.5")
    assert found.data.metrics["auc"] == 0.75


@pytest.mark.parametrize("patient", [True, False])
def test_who_is_patient_waits_until_a_lost_machine_is_silent(
    store: str, tmp_path: Path, patient: bool
) -> None:
    with Tracking(tmp_path) as tracking:
        run_id = tracking.create_run("given", "test")
    last = time.time() - ownership.STALE_S + 1.5
    for name, value in {OWNER: "elsewhere:1:00", HEARTBEAT: str(last)}.items():
        MlflowClient().set_tag(run_id, name, value)
    with Tracking(tmp_path) as tracking:
        if not patient:
            with pytest.raises(ownership.Taken, match="on another machine"):
                tracking.claim(run_id)
            return
        tracking.claim(run_id, wait_s=30)
        assert time.time() - last >= ownership.STALE_S
        assert tracking.get(run_id).data.tags[OWNER] == ownership.owner()
        tracking.set_status(run_id, "KILLED")


def test_a_part_whose_child_the_server_refuses_fails(store: str, tmp_path: Path) -> None:
    with Tracking(tmp_path) as tracking:
        run_id = tracking.create_run("given", "test")
        tracking.hand_on(run_id)
    share = Share(run_id, tmp_path / "run", tmp_path, {}, offline=False)
    with (
        pytest.raises(TrackingError, match="refused metrics lossloss"),
        share.child("fold 0", "train_classifier") as child,
    ):
        child.metrics({"loss" * 63: 1.0})
