"""How a run behaves: precedence, parameters, status, reuse and resume, through both doors."""

import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import PERMISSION_DENIED, MlflowException

from mammo import cli, driver
from mammo.errors import ConfigError, DataError
from mammo.run import Pruned, Result, Run, Stopped
from mammo.tracking import Tracking


def run(tracked: Run, *, value: float = 1.0, note: str = "none", fail: str = "") -> Result:
    """Say the value back.

    Args:
        value: a number.
        note: a text.
        fail: how to fail.
    """
    state = tracked.folder / "state"
    state.write_text(state.read_text() + "+" if state.exists() else "started")
    if fail == "user" or (fail == "once" and state.read_text() == "started"):
        raise DataError(f"value {value} is wrong; give another")
    if fail == "bug":
        raise ZeroDivisionError("one divided by zero")
    if fail == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if fail == "disk":
        raise OSError(28, "No space left on device", "/data/images.npy")
    (tracked.folder / "answer.txt").write_text(str(value))
    tracked.artifacts(tracked.folder / "answer.txt")
    tracked.metrics({"value": value})
    if fail == "nan":
        return Result(metrics={"value": value, "other": float("nan")})
    return Result({"answer": tracked.uri("answer.txt")}, {"value": value}, digest="d" * 32)


@pytest.fixture
def client(store: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    toy = ModuleType("toy")
    toy.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "step_module", lambda step: toy)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return MlflowClient()


def call(*arguments: str) -> int:
    return cli.run_entry("evaluate", arguments)


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def opened_by_mlflow_run(client: MlflowClient, monkeypatch: Any, **params: str) -> str:
    run_id: str = client.create_run("0").info.run_id
    for name, value in params.items():
        client.log_param(run_id, name, value)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    return run_id


def test_the_last_line_of_stdout_is_the_result(client: MlflowClient, capsys: Any) -> None:
    assert call("--value", "2.5") == 0
    line = said(capsys)
    run_id = line["run_id"]
    assert line == {
        "step": "evaluate",
        "run_id": run_id,
        "status": "FINISHED",
        "outputs": {"answer": f"runs:/{run_id}/answer.txt"},
        "metrics": {"value": 2.5},
    }
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["value"] == "2.5"
    assert found.data.tags["mammo.step"] == "evaluate"
    assert found.data.tags["mammo.digest"] == "d" * 32


def test_a_number_that_does_not_exist_is_not_in_the_result(client: Any, capsys: Any) -> None:
    call("--fail", "nan")
    assert said(capsys)["metrics"] == {"value": 1.0}


def test_where_a_nested_step_runs_is_no_part_of_the_fingerprint() -> None:
    on_cpu = {"seed": 0, "evaluate": {"device": "cpu", "split": "test"}}
    on_gpu = {"seed": 0, "evaluate": {"device": "cuda", "split": "test"}}
    of_val = {"seed": 0, "evaluate": {"device": "cpu", "split": "val"}}
    first, second, third = (
        driver.fingerprint_of("main", each, {}) for each in (on_cpu, on_gpu, of_val)
    )
    assert first == second != third


def test_config_yaml_of_a_run_is_a_valid_config(client: Any, capsys: Any, tmp_path: Path) -> None:
    call("--value", "7", "--note", "seven", "--reuse", "false")
    first = said(capsys)["run_id"]
    saved = client.download_artifacts(first, "config.yaml", str(tmp_path))
    call("--config", saved)
    second = client.get_run(said(capsys)["run_id"])
    assert (second.data.params["value"], second.data.params["note"]) == ("7.0", "seven")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--value", "3"], 3.0),  # differs from the default: outranks the file
        (["--value", "1.0"], 5.0),  # equals the default: the file decides
        ([], 5.0),
    ],
)
def test_precedence_of_value_file_and_default(
    given: list[str], expected: float, client: Any, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text("value: 5\n")
    settings = cli.parse("evaluate", [*given, "--config", str(tmp_path / "settings.yaml")])
    assert settings["value"] == expected
    assert settings["note"] == "none"


def test_yaml_numbers_in_scientific_notation_are_numbers(client: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("value: 1e-3\n")
    assert cli.parse("evaluate", ["--config", str(tmp_path / "settings.yaml")])["value"] == 0.001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("valeu: 3\n", "valeu"),
        ("- 3\n", "is not a mapping"),
        ("value: [\n", "is not YAML"),
        ("value: many\n", "many"),
    ],
)
def test_a_wrong_config_file_is_refused(
    text: str, expected: str, client: Any, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        cli.parse("evaluate", ["--config", str(tmp_path / "settings.yaml")])


@pytest.mark.parametrize("step", driver.STEPS)
def test_every_entry_point_takes_the_common_settings(step: str) -> None:
    required = [
        f"--{name}={'phantom' if name == 'dataset' else 'x'}" for name in cli._kinds(step)[1]
    ]
    common = ["--seed=3", "--device=cpu", "--run_name=r", "--launcher=local", "--reuse=false"]
    common.append("--offline=true")
    found = cli.parse(step, [*required, *common])
    assert (found["seed"], found["device"], found["reuse"]) == (3, "cpu", False)


def test_config_without_its_file_is_one_line(client: Any, capsys: Any) -> None:
    assert call("--config") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate: config has no value")


def test_it_joins_the_run_of_mlflow_run(client: Any, capsys: Any, monkeypatch: Any) -> None:
    joined = opened_by_mlflow_run(client, monkeypatch, value="2", note="'quoted'")
    assert call("--value", "2.0", "--note", "quoted") == 0
    assert said(capsys)["run_id"] == joined
    params = client.get_run(joined).data.params
    assert params["value"] == "2"  # numerically equal, stays as MLflow wrote it
    assert "effective.value" not in params
    assert "effective.note" not in params


def test_another_effective_value_is_logged_beside_mlflows(
    client: Any, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text("value: 9\n")
    joined = opened_by_mlflow_run(client, monkeypatch, value="1.0")
    call("--value", "1.0", "--config", str(tmp_path / "settings.yaml"))
    params = client.get_run(joined).data.params
    assert (params["value"], params["effective.value"]) == ("1.0", "9.0")


def test_a_users_mistake_is_one_line_exit_2_and_a_failed_run(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    joined = opened_by_mlflow_run(client, monkeypatch)
    assert call("--fail", "user") == 2
    printed = capsys.readouterr()
    assert printed.err.strip() == "evaluate: value 1.0 is wrong; give another"
    assert printed.out == ""
    found = client.get_run(joined)
    assert found.info.status == "FAILED"
    assert found.data.tags["error"] == "value 1.0 is wrong; give another"


def test_a_command_line_that_cannot_be_parsed_fails_the_joined_run(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    joined = opened_by_mlflow_run(client, monkeypatch)
    assert call("--value", "many") == 2
    assert "many" in capsys.readouterr().err
    assert client.get_run(joined).info.status == "FAILED"
    assert "many" in client.get_run(joined).data.tags["error"]


def test_a_bug_keeps_its_traceback_and_fails_the_run(client: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        call("--fail", "bug")
    (found,) = client.search_runs(["0"])
    assert found.info.status == "FAILED"
    assert found.data.tags["error"].startswith("ZeroDivisionError in ")
    assert "one divided by zero" not in found.data.tags["error"]  # a message may name a patient


def test_a_signal_ends_the_run_as_killed(client: Any, capsys: Any) -> None:
    assert call("--fail", "term") == 143
    (found,) = client.search_runs(["0"])
    assert found.info.status == "KILLED"


@pytest.mark.parametrize(
    ("raised", "status"), [(Stopped(signal.SIGTERM), "KILLED"), (KeyError("x"), "FAILED")]
)
def test_what_ends_a_step_before_its_run_is_open_ends_the_joined_run(
    raised: BaseException, status: str, client: Any, monkeypatch: Any
) -> None:
    def resolve(execution: Any) -> None:
        raise raised

    joined = opened_by_mlflow_run(client, monkeypatch)
    monkeypatch.setattr(driver.Execution, "_resolve", resolve)
    with pytest.raises(type(raised)):
        driver.run_step("evaluate", {})
    assert client.get_run(joined).info.status == status


def test_a_full_disk_is_a_users_error(client: Any, capsys: Any) -> None:
    assert call("--fail", "disk") == 2
    expected = "evaluate: /data/images.npy cannot be written: No space left on device"
    assert capsys.readouterr().err.startswith(expected)


def test_a_finished_run_is_reused(client: Any, capsys: Any) -> None:
    call("--value", "4")
    first = said(capsys)
    call("--value", "4")
    assert said(capsys) == first
    assert len(client.search_runs(["0"])) == 1


def test_reuse_through_mlflow_run_closes_its_empty_run(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    call("--value", "4")
    first = said(capsys)["run_id"]
    empty = opened_by_mlflow_run(client, monkeypatch)
    call("--value", "4")
    assert said(capsys)["run_id"] == first
    closed = client.get_run(empty)
    assert closed.info.status == "FINISHED"
    assert closed.data.tags["mammo.reused"] == first


def test_reuse_false_computes_again(client: Any, capsys: Any) -> None:
    call("--value", "4")
    first = said(capsys)["run_id"]
    call("--value", "4", "--reuse", "false")
    assert said(capsys)["run_id"] != first


def test_a_finished_run_whose_artifact_is_gone_is_computed_again(
    client: Any, capsys: Any, tmp_path: Path
) -> None:
    call("--value", "4")
    first = said(capsys)["run_id"]
    next((tmp_path / "mlruns").rglob("answer.txt")).unlink()
    assert call("--value", "4") == 0
    assert said(capsys)["run_id"] != first


def test_only_some_settings_take_several_references(client: Any) -> None:
    toy = driver.step_module("evaluate")
    given = {"data": "a,b", "synthetic": "a, b"}
    toy.SEVERAL = ("synthetic",)  # type: ignore[attr-defined]
    assert driver.named(toy, given, "synthetic") == ["a", "b"]
    assert driver.named(toy, given, "data") == ["a,b"]  # a folder's name may have a comma


def test_other_settings_and_other_code_are_computed(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    call("--value", "4")
    first = said(capsys)["run_id"]
    call("--value", "5")
    assert said(capsys)["run_id"] != first
    monkeypatch.setattr(driver, "code_digest", lambda: "changed")
    call("--value", "4")
    assert said(capsys)["run_id"] != first


def test_an_unfinished_run_is_continued(client: Any, capsys: Any) -> None:
    assert call("--fail", "once") == 2
    (failed,) = client.search_runs(["0"])
    assert call("--fail", "once") == 0
    assert said(capsys)["run_id"] == failed.info.run_id
    found = client.get_run(failed.info.run_id)
    assert found.info.status == "FINISHED"
    assert "error" not in found.data.tags


def test_state_of_a_run_that_was_deleted_is_not_gone_on_with(client: Any, capsys: Any) -> None:
    call("--fail", "once")
    (failed,) = client.search_runs(["0"])
    client.delete_run(failed.info.run_id)
    assert call("--fail", "once") == 2  # started afresh, so it fails for the first time again
    (again,) = client.search_runs(["0"])
    assert again.info.run_id != failed.info.run_id


@pytest.mark.doors
def test_state_of_a_run_that_the_server_refuses_to_tell_of_is_kept(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    """It may be hours of training; somebody took this user's permission away."""
    call("--fail", "once")
    (failed,) = client.search_runs(["0"])
    (state,) = driver.work_folder("").glob("runs/*/run.json")

    def forbidden(*args: Any) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    with monkeypatch.context() as closed:
        closed.setattr(MlflowClient, "get_run", forbidden)
        assert call("--fail", "once") == 2
    assert "Permission denied" in capsys.readouterr().err.splitlines()[-1]
    assert state.is_file()
    assert call("--fail", "once") == 0
    assert said(capsys)["run_id"] == failed.info.run_id


def test_resume_through_mlflow_run_closes_its_empty_run(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    call("--fail", "once")
    (failed,) = client.search_runs(["0"])
    empty = opened_by_mlflow_run(client, monkeypatch)
    assert call("--fail", "once") == 0
    assert said(capsys)["run_id"] == failed.info.run_id
    closed = client.get_run(empty)
    assert closed.info.status == "FINISHED"
    assert closed.data.tags["mammo.continues"] == failed.info.run_id


def test_two_processes_never_share_a_run(client: Any, capsys: Any) -> None:
    fingerprint = driver.fingerprint_of("evaluate", cli.parse("evaluate", []), {})
    with driver._only_process_in(driver.work_folder("") / "runs" / fingerprint, patient=False):
        assert call() == 2
    assert "already running" in capsys.readouterr().err


def test_an_absent_server_is_named_at_once(client: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert call() == 2
    assert "no tracking server answers at http://127.0.0.1:9" in capsys.readouterr().err


def test_help_names_every_setting_with_type_default_and_line(client: Any, capsys: Any) -> None:
    assert call("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--value VALUE a number. (type: float, default: 1.0)" in text


def test_python_m_mammo_is_mammo(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["mammo", "frobnicate"])
    assert cli.main() == 2
    assert "unknown entry 'frobnicate'; choose one of main, preprocess" in capsys.readouterr().err


def parent_step(asked: list[dict[str, Any]], listener: Any = None) -> ModuleType:
    """A step that launches the toy step with each of `asked`."""

    def run_parent(tracked: Run) -> Result:
        """Launch."""
        for number, settings in enumerate(asked):
            try:
                tracked.launch("evaluate", settings, name=f"child {number}", listener=listener)
            except (Pruned, DataError):
                continue
        return Result()

    module = ModuleType("parent")
    module.run = run_parent  # type: ignore[attr-defined]
    return module


def launched(
    client: MlflowClient, monkeypatch: Any, *asked: dict[str, Any], reuse: bool = True, **more: Any
) -> Any:
    """Child runs of a parent step that launched the toy step, by name."""
    toy, parent = driver.step_module("evaluate"), parent_step(list(asked), **more)
    monkeypatch.setattr(driver, "step_module", lambda step: {"main": parent}.get(step, toy))
    run_id = driver.run_step("main", {"reuse": reuse})["run_id"]
    found = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.info.run_name: run for run in found}


def test_child_runs_end_in_their_true_states(client: Any, monkeypatch: Any) -> None:
    def listener(values: Any, step: Any) -> None:
        if values.get("value") == 2:
            raise Pruned("hopeless")

    children = launched(
        client, monkeypatch, {"value": 1.0}, {"value": 2.0}, {"fail": "user"}, listener=listener
    )
    states = {name: run.info.status for name, run in children.items()}
    assert states == {"child 0": "FINISHED", "child 1": "KILLED", "child 2": "FAILED"}
    assert children["child 1"].data.tags["mammo.pruned"] == "hopeless"
    assert children["child 2"].data.tags["error"] == "value 1.0 is wrong; give another"
    assert children["child 0"].data.params["note"] == "none"  # defaults are logged too


def test_a_reused_child_is_a_link_to_the_finished_run(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    call("--value", "4")
    first = said(capsys)["run_id"]
    children = launched(client, monkeypatch, {"value": 4.0})
    assert children["child 0"].data.tags["mammo.reused"] == first


def test_reuse_false_holds_for_the_children_but_not_among_them(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    call("--value", "4")
    settings = {"value": 4.0}
    children = launched(client, monkeypatch, settings, settings, reuse=False)
    assert list(children) == ["child 0"]  # the second is the first, as after a kill
    assert "mammo.reused" not in children["child 0"].data.tags


def test_a_child_that_another_parent_left_unfinished_is_continued_and_linked(
    client: Any, capsys: Any, monkeypatch: Any
) -> None:
    assert call("--fail", "once") == 2
    (failed,) = client.search_runs(["0"])
    children = launched(client, monkeypatch, {"fail": "once"})
    assert children["child 0"].info.status == "FINISHED"
    assert children["child 0"].data.tags["mammo.continues"] == failed.info.run_id
    assert client.get_run(failed.info.run_id).info.status == "FINISHED"


def test_a_parent_that_asks_its_own_child_again_adds_no_link(client: Any, monkeypatch: Any) -> None:
    assert len(launched(client, monkeypatch, {"value": 4.0}, {"value": 4.0})) == 1


def test_a_run_that_is_gone_on_with_forgets_how_it_ended(client: Any, capsys: Any) -> None:
    assert call("--fail", "term") == 143
    (stopped,) = client.search_runs(["0"])
    assert "mammo.stopped" in stopped.data.tags
    with Tracking() as tracking:
        tracking.reopen(stopped.info.run_id)
    found = client.get_run(stopped.info.run_id)
    assert found.info.status == "RUNNING" and "mammo.stopped" not in found.data.tags


def test_a_child_within_a_step_carries_its_settings_as_a_config(
    client: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    def run_family(tracked: Run) -> Result:
        """Train."""
        with tracked.child("fold-0", "evaluate", {"value": 7.0, "note": "seven"}):
            pass
        return Result()

    toy, family = driver.step_module("evaluate"), ModuleType("family")
    family.run = run_family  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "step_module", lambda step: {"main": family}.get(step, toy))
    driver.run_step("main", {})
    (child,) = client.search_runs(["0"], "attributes.run_name = 'fold-0'")
    saved = client.download_artifacts(child.info.run_id, "config.yaml", str(tmp_path))
    monkeypatch.setattr(driver, "step_module", lambda step: toy)
    assert cli.parse("evaluate", ["--config", saved])["note"] == "seven"
    assert child.data.params == {"value": "7.0", "note": "seven"}
