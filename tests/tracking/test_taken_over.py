"""A run that another process took up: the first is told, and writes nothing over the other's."""

from pathlib import Path
from types import ModuleType
from typing import Any

import doors
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import TEMPORARILY_UNAVAILABLE, MlflowException

from mammo import driver
from mammo.run import Result
from mammo.tracking import TrackedRun, Tracking, delivery, ownership
from mammo.tracking.ownership import HEARTBEAT, OWNER

pytestmark = pytest.mark.doors
OTHER = {OWNER: "elsewhere:1:00", HEARTBEAT: "9999999999"}


def take_over(run_id: str, **tags: str) -> None:
    """What another machine does once a heart was silent for long."""
    for name, value in {**OTHER, **tags}.items():
        MlflowClient().set_tag(run_id, name, value)


def left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose process was killed with a number that the server has not got; its id."""

    def away(*args: Any, **more: Any) -> None:
        raise MlflowException("not now", error_code=TEMPORARILY_UNAVAILABLE)

    with Tracking(folder / "home") as tracking:
        run_id = tracking.create_run("given", "evaluate")
        about: dict[str, Any] = {"folder": folder / "run", "work": folder, "inputs": {}}
        tracked = TrackedRun(tracking, run_id, **about)
        tracked.metrics({"val/auc": 0.5}, 1)
        assert tracking.outbox.flush(10)
        with monkeypatch.context() as outage:
            outage.setattr(MlflowClient, "log_batch", away)
            tracked.metrics({"val/auc": 0.75}, 2)
            tracking.close(0.1)  # as good as killed: it did not end the run
    return run_id


def run(tracked: Any, *, seed: int = 0) -> Result:
    """Lose the run half way."""
    tracked.metrics({"val/auc": 0.5}, 1)
    assert tracked.tracking.outbox.flush(10)
    take_over(tracked.id, note="of the other")
    tracked.metrics({"val/auc": 0.75}, 2)
    tracked.tags({"note": "of the first"})
    return Result({}, {"auc": 0.75})


@pytest.mark.parametrize("joined", [False, True])
def test_who_lost_its_run_is_told_in_one_line_and_writes_no_more(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joined: bool
) -> None:
    toy = ModuleType("toy")
    toy.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "step_module", lambda step: toy)
    monkeypatch.setattr(delivery, "BEAT_S", 0.0)  # it looks at every contact
    if joined:
        opened = MlflowClient().create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    ended = doors.here("evaluate")
    assert ended.code == 2
    (line,) = [each for each in ended.err.splitlines() if each.startswith("evaluate: ")]
    assert "was taken up by another process" in line
    (found,) = MlflowClient().search_runs(["0"])
    assert (found.info.status, found.data.tags["note"]) == ("RUNNING", "of the other")
    assert found.data.tags[OWNER] == OTHER[OWNER]
    assert "error" not in found.data.tags
    history = MlflowClient().get_metric_history(found.info.run_id, "val/auc")
    assert [each.value for each in history] == [0.5]
    (aside,) = (tmp_path / "home" / "taken").iterdir()
    assert '"val/auc":0.75' in (aside / "journal.jsonl").read_text()
    assert doors.here("sync").out == ""  # nobody sends it


@pytest.mark.parametrize("status", ["FINISHED", "RUNNING"])
def test_sync_leaves_a_run_alone_that_another_process_went_on_with(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    run_id = left_behind(tmp_path, monkeypatch)
    take_over(run_id)
    MlflowClient().update_run(run_id, status)
    done = doors.here("sync")
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert f"{run_id}: not sent: another process went on with this run" in done.out
    found = MlflowClient().get_run(run_id)
    assert (found.info.status, found.data.metrics["val/auc"]) == (status, 0.5)
    assert "mammo.stopped" not in found.data.tags
    assert len(list((tmp_path / "home" / "taken").iterdir())) == 1
    assert doors.here("sync").out == ""


def test_who_goes_on_in_the_same_work_folder_sends_what_was_left_first(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is of a process that is gone; the run is this one's by now, and so is that."""
    run_id = left_behind(tmp_path, monkeypatch)
    MlflowClient().set_tag(run_id, HEARTBEAT, "1000000000")
    monkeypatch.setattr(ownership, "_TOKEN", "second")
    with Tracking(tmp_path / "home") as second:
        second.claim(run_id)
        second.reopen(run_id)
        second.set_status(run_id, "FINISHED")
    found = MlflowClient().get_run(run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"val/auc": 0.75})
    assert found.data.tags[OWNER].endswith(":second")
    assert not (tmp_path / "home" / "taken").exists()
