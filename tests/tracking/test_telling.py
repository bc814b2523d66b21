"""Runs through the driver say what they are: tags, environment, notes and counts in MLflow."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient

from mammo import cli, driver
from mammo.errors import DataError
from mammo.run import Pruned, Result, Run, Stopped
from mammo.tracking import TrackedRun
from mammo.tracking.context import code_state
from mammo.tracking.note import NOTE
from mammo.tracking.telling import GOING

pytestmark = pytest.mark.doors


def leaf(tracked: Run, *, value: float = 1.0, storage: str = "") -> Result:
    """Say the value back.

    Args:
        value: a number.
        storage: an address.
    """
    if value < 0:
        raise DataError(f"value {value} is below 0")
    tracked.metrics({"best/val/auc": value}, step=3)
    return Result({}, {"best/val/auc": value})


def step(run: Callable[..., Result]) -> ModuleType:
    module = ModuleType("toy")
    module.run = run  # type: ignore[attr-defined]
    return module


@pytest.fixture
def client(store: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    steps = {"evaluate": step(leaf)}
    monkeypatch.setattr(driver, "step_module", steps.__getitem__)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return MlflowClient()


def parent(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result]) -> None:
    """Let `run` be the step main, beside the leaf."""
    steps = {"evaluate": step(leaf), "main": step(run)}
    monkeypatch.setattr(driver, "step_module", steps.__getitem__)


def test_a_run_says_its_code_its_machine_and_how_to_run_it_again(client: MlflowClient) -> None:
    assert cli.run_entry("evaluate", ["--value", "0.75"]) == 0
    (run,) = client.search_runs(["0"])
    tags = run.data.tags
    assert tags.items() >= code_state().tags.items()
    assert tags[NOTE].startswith("**evaluate**")
    assert "| best/val/auc | 0.75 |" in tags[NOTE]
    assert tags[NOTE].endswith("mammo evaluate --value 0.75\n```")
    files = {item.path for item in client.list_artifacts(run.info.run_id, "environment")}
    assert {"environment/packages.txt", "environment/machine.json"} <= files
    assert ("environment/uncommitted.diff" in files) == bool(code_state().diff)


def test_a_run_names_no_user_no_folder_and_no_repository(client: MlflowClient) -> None:
    assert cli.run_entry("evaluate", []) == 0
    (run,) = client.search_runs(["0"])
    assert "mlflow.user" not in run.data.tags
    assert "/" not in run.data.tags["mlflow.source.name"]
    assert not {"mlflow.source.git.repoURL", "mlflow.source.git.branch"} & run.data.tags.keys()


def test_the_run_that_mlflow_opened_says_so_too(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = client.create_run("0").info.run_id
    client.log_param(opened, "value", "'0.75'")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    assert cli.run_entry("evaluate", ["--value", "0.75"]) == 0
    run = client.get_run(opened)
    assert run.data.tags["mammo.git_commit"] == code_state().commit
    assert "effective.value" not in run.data.params
    assert NOTE in run.data.tags


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (DataError("no image of x://anna:s3cret@db"), "Failed: no image of x://anna:***@db"),
        (Stopped(15), "Stopped by signal 15"),
        (Pruned("it is hopeless"), "Pruned: it is hopeless"),
        (ZeroDivisionError("patient 7"), "Failed: ZeroDivisionError in driver.py, line "),
    ],
)
def test_a_run_that_does_not_finish_says_where_it_stopped_and_how_it_goes_on(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, ends: BaseException, told: str
) -> None:
    seen = []

    def run(tracked: Run, *, value: float = 1.0) -> Result:
        """Say the value, and end."""
        (found,) = client.search_runs(["0"])
        seen.append(found.data.tags[NOTE])
        tracked.metrics({"best/val/auc": value, "val/loss": float("nan")}, step=7)
        raise ends

    parent(monkeypatch, run)
    opened = TrackedRun.tags

    def at_once(self: TrackedRun, values: Any) -> None:
        opened(self, values)
        assert self.tracking.outbox.flush(10)

    monkeypatch.setattr(TrackedRun, "tags", at_once)
    with pytest.raises(type(ends)):
        driver.run_step("main", {"value": 0.5})
    command = "The same command goes on with it:\n\n```sh\nmammo main --value 0.5\n```"
    assert GOING in seen[0] and seen[0].endswith(command)  # what a killed process leaves
    (found,) = client.search_runs(["0"])
    note = found.data.tags[NOTE]
    assert f"**{told}" in note and "the last number was of step 7**" in note
    assert "| best/val/auc | 0.5 |" in note and "loss" not in note
    assert note.endswith(command)
    assert "patient 7" not in note and "s3cret" not in note


def test_a_child_that_does_not_finish_is_its_parents_to_go_on_with(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(tracked: Run) -> Result:
        """Fail in a fold."""
        with tracked.child("fold-0", "evaluate", {"value": 0.5}):
            raise DataError("full")

    parent(monkeypatch, run)
    with pytest.raises(DataError):
        driver.run_step("main", {})
    runs = {each.info.run_name: each for each in client.search_runs(["0"])}
    page = f"#/experiments/0/runs/{runs['main'].info.run_id}"
    note = runs["fold-0"].data.tags[NOTE]
    assert note.endswith(f"**Failed: full**\n\nIts [parent]({page}) goes on with it.")
    row = f"| [fold-0](#/experiments/0/runs/{runs['fold-0'].info.run_id}) | evaluate | FAILED |"
    assert row in runs["main"].data.tags[NOTE]


def test_no_password_is_in_params_config_or_note(client: MlflowClient, tmp_path: Path) -> None:
    assert cli.run_entry("evaluate", ["--storage", "postgresql://anna:s3cret@db/optuna"]) == 0
    (run,) = client.search_runs(["0"])
    assert run.data.params["storage"] == "postgresql://anna:***@db/optuna"
    path = client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
    told = Path(path).read_text() + run.data.tags[NOTE]
    assert told.count("anna:***@db") == 2 and "s3cret" not in told


def test_a_parent_counts_children_of_both_kinds_and_shows_them(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(tracked: Run) -> Result:
        """Launch."""
        with tracked.child("fold-0", "evaluate", {"value": 0.5}) as child:
            child.metrics({"best/val/auc": 0.5}, step=1)
        for value in (0.75, -1.0):
            try:
                tracked.launch("evaluate", {"value": value}, name=f"value {value}")
            except DataError:
                continue
        return Result()

    parent(monkeypatch, run)
    caplog.set_level("INFO", "mammo")
    run_id = driver.run_step("main", {})["run_id"]
    ended = [
        client.get_metric_history(run_id, f"children/{state}")[-1].value
        for state in ("finished", "failed", "killed")
    ]
    assert ended == [2, 1, 0]
    found = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{run_id}'")
    ids = {each.info.run_name: each.info.run_id for each in found}
    lines = client.get_run(run_id).data.tags[NOTE].splitlines()
    page = "#/experiments/0/runs/"
    assert f"| [fold-0]({page}{ids['fold-0']}) | evaluate | FINISHED | 0.5 |" in lines
    assert f"| [value 0.75]({page}{ids['value 0.75']}) | evaluate | FINISHED | 0.75 |" in lines
    assert f"| [value -1.0]({page}{ids['value -1.0']}) | evaluate | FAILED |  |" in lines
    assert "| **mean** | | | 0.625 |" in lines
    fold = client.get_run(ids["fold-0"]).data.tags
    assert fold["mammo.git_commit"] == code_state().commit
    assert fold[NOTE].endswith("mammo evaluate --value 0.5\n```")
    printed = [line for line in caplog.messages if "side by side" in line]
    assert len(printed) == 1
    assert ids["value 0.75"] in printed[0] and ids["value -1.0"] not in printed[0]


def test_a_parent_that_is_gone_on_with_knows_the_children_it_had(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(tracked: Run) -> Result:
        """Launch."""
        first = not (tracked.folder / "family.jsonl").exists()
        for value in (0.5, 0.75):
            tracked.launch("evaluate", {"value": value}, name=f"value {value}")
            if first:
                raise DataError("stopped half way")
        return Result()

    parent(monkeypatch, run)
    with pytest.raises(DataError):
        driver.run_step("main", {})
    run_id = driver.run_step("main", {})["run_id"]
    said: Any = client.get_run(run_id).data
    assert said.metrics["children/finished"] == 2
    assert said.tags[NOTE].count("| evaluate | FINISHED |") == 2
