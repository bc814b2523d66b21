"""Runs that no server has seen yet: named, found, reused and sent, all from the work folder."""

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import small
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from mammo import cli, driver
from mammo.lineage import Graph
from mammo.references import resolve
from mammo.run import Result
from mammo.tracking import Tracking
from mammo.tracking.answers import Away, asked
from mammo.tracking.journal import Journal

pytestmark = pytest.mark.doors
TOO_LONG = "loss" * 63  # MLflow takes 250 letters
ROWS = small.real_rows({"benign": [2], "malignant": [1]})


def run(tracked: Any, *, source: str = "", seed: int = 0) -> Result:
    """Log a dataset that lies in `source`, and what training would."""
    for step in (1, 2):
        tracked.metrics({"val/auc": step / 4}, step)
    tracked.artifacts(Path(source), "dataset")
    with tracked.child("fold 0", "train_classifier", {"fold": 0}) as child:
        child.metrics({"fold/auc": 0.5})
    about = json.loads((Path(source) / "dataset.json").read_text())
    return Result({"dataset": tracked.uri("dataset")}, {"auc": 0.5}, about["digest"])


def refused(tracked: Any, *, seed: int = 0) -> Result:
    """Log two good numbers and a name that MLflow refuses."""
    tracked.metrics({"good": 1.0, TOO_LONG: 2.0, "better": 3.0}, 1)
    return Result()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("toy")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "step_module", lambda step: module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small.dataset(tmp_path / "elsewhere", ROWS).folder


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.run_entry("preprocess", arguments) == 0
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def test_an_offline_run_is_recorded_found_and_reused_with_no_store_at_all(
    toy: ModuleType, source: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, caplog: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the port that discards
    given = (f"--source={source}", "--offline=true")
    with caplog.at_level(logging.WARNING, "mammo"):
        line = call(capsys, *given)
    (said,) = [each.message for each in caplog.records]
    assert said.startswith("recorded offline: 2 runs wait in")
    assert said.endswith("mammo sync")
    again = call(capsys, *given)
    assert again["run_id"] == line["run_id"]
    with Tracking(tmp_path / "home", offline=True) as tracking:
        found = resolve(
            f"runs:/{line['run_id']}/dataset",
            *("dataset", "data"),
            tracking=tracking,
            work=tmp_path / "other",
        )
        assert (found.path / "dataset.json").read_text() == (source / "dataset.json").read_text()
        assert tracking.get(line["run_id"]).data.metrics["val/auc"] == 0.5
        assert tracking.history(line["run_id"], "val/auc") == {1: 0.25, 2: 0.5}
        (child,) = tracking.children(line["run_id"])
        assert (child.info.run_name, child.info.status) == ("fold 0", "FINISHED")


def test_what_only_the_server_knows_is_one_line(toy: ModuleType, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with (
        Tracking(offline=True) as tracking,
        pytest.raises(Exception, match=r"only the server at http://127.0.0.1:9 knows") as caught,
    ):
        tracking.model_run("models:/generator@champion")
    assert "\n" not in str(caught.value)


def test_synchronized_the_local_id_still_names_the_run(
    toy: ModuleType, source: Path, store: str, tmp_path: Path, capsys: Any
) -> None:
    local = call(capsys, f"--source={source}", "--offline=true")["run_id"]
    client = MlflowClient(store)
    assert client.search_runs(["0"]) == []
    assert cli.main(["sync"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert "5 metrics" in printed[0]  # two of its own, and the count of its children by their end
    assert not (tmp_path / "home" / "spool").exists()
    (run,) = client.search_runs(["0"], f"tags.`mammo.id` = '{local}'")
    assert (run.info.status, run.data.metrics["val/auc"]) == ("FINISHED", 0.5)
    real = run.info.run_id
    assert real != local
    with Tracking() as tracking:
        assert tracking.get(local).info.run_id == real
        assert tracking.has_artifact(local, "dataset")
        found = resolve(local, "dataset", "data", tracking=tracking, work=tmp_path / "work")
        assert (found.path / "dataset.json").is_file()
        (child,) = tracking.children(local)
        assert child.data.tags["mlflow.parentRunId"] == real
        user = tracking.create_run("user", "mix")
        client.set_tag(user, "mammo.input.real", local)
        tracking.set_status(user, "FINISHED")
        assert Graph(tracking.nodes()).descendants(real) == {user}


def test_a_run_that_was_created_though_no_answer_came_is_not_made_twice(
    toy: ModuleType, source: Path, store: str, capsys: Any, monkeypatch: Any
) -> None:
    create = MlflowClient.create_run
    answers = []

    def lost(self: Any, *args: Any, **settings: Any) -> Any:
        made = create(self, *args, **settings)
        if not answers:
            answers.append(made)
            raise ConnectionResetError("the answer is lost")
        return made

    monkeypatch.setattr(MlflowClient, "create_run", lost)
    line = call(capsys, f"--source={source}")
    assert line["run_id"] == answers[0].info.run_id
    assert len(MlflowClient(store).search_runs(["0"])) == 2  # and its child


def test_an_experiment_that_another_process_makes_first_is_taken(
    store: str, monkeypatch: Any
) -> None:
    """Of many jobs that start at once each finds no experiment, and one makes it."""
    made = MlflowClient(store).create_experiment("shared")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shared")
    look, looks = MlflowClient.get_experiment_by_name, iter([lambda *_: None])
    monkeypatch.setattr(
        *(MlflowClient, "get_experiment_by_name"),
        lambda self, name: next(looks, look)(self, name),
    )
    with Tracking() as tracking:
        assert tracking.experiment_id == made


def test_a_server_that_ran_out_of_connections_is_asked_again() -> None:
    """MLflow tells it as a bad request; fifty clients at once have seen it."""
    busy = MlflowException("QueuePool limit of size 5 overflow 5 reached", error_code=BAD_REQUEST)

    def request() -> None:
        raise busy

    assert busy.get_http_status_code() == 400
    with pytest.raises(Away):
        asked(request)


def test_what_the_server_refuses_fails_the_step_in_one_line_and_is_kept(
    toy: ModuleType, store: str, tmp_path: Path, capsys: Any
) -> None:
    toy.run = refused  # type: ignore[attr-defined]
    assert cli.run_entry("preprocess", []) == 2
    said = capsys.readouterr().err.splitlines()
    (line,) = [each for each in said if each.startswith("preprocess: ")]
    assert "the tracking server refused metrics lossloss" in line
    (found,) = MlflowClient(store).search_runs(["0"])
    assert (found.info.status, found.data.metrics) == ("FAILED", {"good": 1.0, "better": 3.0})
    assert TOO_LONG in found.data.tags["error"]
    (kept,) = (tmp_path / "home" / "spool").rglob("rejected.jsonl")
    (entry,) = map(json.loads, kept.read_text().splitlines())
    assert entry["values"] == {TOO_LONG: 2.0}


def test_hearts_that_stopped_are_found_and_their_runs_closed(store: str, capsys: Any) -> None:
    client = MlflowClient(store)
    with Tracking() as tracking:
        stopped, beating = (tracking.create_run(name, "evaluate") for name in ("old", "new"))
    client.set_tag(stopped, "mammo.heartbeat", "1000000000")
    assert cli.main(["reap", "--dry_run", "true"]) == 0
    assert client.get_run(stopped).info.status == "RUNNING"
    assert cli.main(["reap", "--older", "5"]) == 0
    assert f"{stopped} old: closed" in capsys.readouterr().out
    assert client.get_run(stopped).info.status == "KILLED"
    assert "silent for" in client.get_run(stopped).data.tags["mammo.reaped"]
    assert client.get_run(beating).info.status == "RUNNING"
    for wrong in ("1", "nan", "-5", "soon"):
        assert cli.main(["reap", "--older", wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert client.get_run(beating).info.status == "RUNNING"


def test_a_run_whose_living_process_is_cut_off_is_not_reaped_from_its_own_work_folder(
    store: str, tmp_path: Path, capsys: Any
) -> None:
    client = MlflowClient(store)
    with Tracking(tmp_path / "home") as tracking:
        living = tracking.create_run("living", "evaluate")
        dead = client.create_run("0", tags={"mammo.step": "evaluate"}).info.run_id
        for run_id in (living, dead):
            client.set_tag(run_id, "mammo.heartbeat", "1000000000")
        assert cli.main(["reap"]) == 0
        assert f"{living} living: skipped, for its process is still" in capsys.readouterr().out
        assert client.get_run(living).info.status == "RUNNING"
        assert client.get_run(dead).info.status == "KILLED"


def test_sync_leaves_a_living_process_its_journal(store: str, tmp_path: Path, capsys: Any) -> None:
    with Tracking(tmp_path / "home") as tracking:
        run_id = tracking.create_run("living", "evaluate")
        assert cli.main(["sync"]) == 0
        assert "skipped: its process is still at work" in capsys.readouterr().out
        tracking.set_status(run_id, "FINISHED")
    assert MlflowClient(store).get_run(run_id).info.status == "FINISHED"


def test_sync_asks_a_server_that_is_away_once_and_skips_what_is_for_it(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A server behind a wall answers nothing for minutes; there may be many runs."""
    with Tracking(tmp_path / "home", offline=True) as tracking:
        runs = [tracking.create_run(name, "evaluate") for name in "abc"]
    asked_for = []

    def away(*args: Any, **more: Any) -> None:
        asked_for.append(args)
        raise ConnectionError("timed out")

    with monkeypatch.context() as wall:
        for name in ("create_run", "get_experiment_by_name"):
            wall.setattr(MlflowClient, name, away)
        assert cli.main(["sync"]) == 2
    assert len(asked_for) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in printed] == runs
    assert all("does not answer (timed out)" in line for line in printed)
    assert cli.main(["sync"]) == 0


def test_a_child_waits_for_its_parent(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Sent without it the child would hang below a run that is nowhere."""
    with Tracking(tmp_path / "home", offline=True) as tracking:
        parent = tracking.create_run("parent", "main")
        child = tracking.create_run("child", "evaluate", parent)
        other = tracking.create_run("other", "evaluate")
        for run_id in (parent, child, other):
            tracking.set_status(run_id, "FINISHED")
    create = MlflowClient.create_run

    def busy(self: Any, *args: Any, **more: Any) -> Any:
        if more["run_name"] == "parent":
            raise ConnectionError("too many 500 error responses")
        return create(self, *args, **more)

    with monkeypatch.context() as fault:
        fault.setattr(MlflowClient, "create_run", busy)
        assert cli.main(["sync"]) == 2
    assert f"{child}: not sent" in capsys.readouterr().out
    assert [each.info.run_name for each in MlflowClient().search_runs(["0"])] == ["other"]
    assert cli.main(["sync"]) == 0
    found = {each.info.run_name: each for each in MlflowClient().search_runs(["0"])}
    of = found["child"].data.tags["mlflow.parentRunId"]
    assert of == found["parent"].info.run_id


def test_a_child_in_another_process_finds_a_parent_that_the_server_made(
    store: str, tmp_path: Path
) -> None:
    """`mlflow run` makes the run of the parent: no tag of it bears an id of ours."""
    parent = MlflowClient().create_run("0").info.run_id
    with Tracking(tmp_path) as first, Tracking(tmp_path) as second:
        first.claim(parent)
        first.outbox.beat(parent)
        child = second.create_run("child", "evaluate", parent)
        second.set_status(child, "FINISHED")
        assert second.outbox.flush(10)
        (found,) = MlflowClient().search_runs(["0"], f"tags.`mlflow.parentRunId` = '{parent}'")
        assert found.info.status == "FINISHED"
        first.set_status(parent, "FINISHED")


def test_sync_finds_a_store_that_was_named_from_another_folder(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as named:
        named.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        with Tracking(tmp_path / "home", offline=True) as tracking:
            tracking.set_status(tracking.create_run("given", "evaluate"), "FINISHED")
        (tmp_path / "below").mkdir()
        named.chdir(tmp_path / "below")
        assert cli.main(["sync"]) == 0
    assert list((tmp_path / "below").iterdir()) == []  # no store was made there
    assert len(MlflowClient(store).search_runs(["0"])) == 1


def test_sync_clears_a_folder_whose_process_was_killed_before_its_first_line(
    store: str, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "spool" / "begun"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text('{"kind":"abo')
    living = Journal(tmp_path / "home" / "spool" / "living")  # about to write its first line
    assert cli.main(["sync"]) == 0
    assert [each.name for each in (tmp_path / "home" / "spool").iterdir()] == ["living"]
    living.close()
