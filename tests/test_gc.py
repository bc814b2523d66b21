"""`mammo gc` names what no run needs and, asked to, deletes that alone."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mammo.cli import main

pytestmark = pytest.mark.doors
OLD = time.time() - 40 * 86_400
NOBODY = "0" * 32


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(store)


def made(path: Path, content: Any = "words", *, at: float = OLD) -> Path:
    """A file that was last touched at that time, as its folder was; returns the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for each in (path, path.parent):
        os.utime(each, (at, at))
    return path.parent


def swept(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[set[str], dict[str, Any]]:
    """Folders of the work folder that `mammo gc` names, and its last line."""
    capsys.readouterr()
    assert main(["gc", *words]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    work = f"{os.environ['MAMMO_HOME']}/"
    verb = "deleted " if "--delete" in words else "would delete "
    assert all(line.startswith(verb) for line in lines)
    named = {line.removeprefix(verb).partition(": ")[0].removeprefix(work) for line in lines}
    return named, json.loads(last)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_work_folder_keeps_what_a_run_names(client, store, capsys, tmp_path):
    work = tmp_path / "home"
    run = client.create_run("0", tags={"mammo.digest": "made", "mammo.input.data": "used"})
    other = client.create_run("0", tags={"mammo.digest": "binned"})
    client.delete_run(other.info.run_id)
    id_ = run.info.run_id
    made(work / "datasets/made/dataset.json", {"digest": "made", "parents": [{"digest": "below"}]})
    made(work / "datasets/below/dataset.json", {"digest": "below", "parents": []})
    made(work / "datasets/used/dataset.json", {"digest": "used"})
    made(work / "datasets/binned/dataset.json", {"digest": "binned"})
    made(work / "datasets/new/dataset.json", {"digest": "new"}, at=time.time())
    made(work / "datasets/strange/notes.txt")
    made(work / "datasets/.download-abc/part")
    made(work / f"models/{id_}-models-b/model.json", {"digest": "x"})
    made(work / f"models/{NOBODY}-model/model.json", {"digest": "y"})
    made(work / "features/unused/a.npy")
    made(work / "features/used/a.npy")
    os.utime(work / "features/used")  # by who has read from it
    made(work / "private/ids.csv")
    gone = {"datasets/binned", "datasets/.download-abc", f"models/{NOBODY}-model"}
    gone.add("features/unused")

    before = files(work)
    named, last = swept(capsys)
    assert named == gone
    assert last == {"artifacts": 0, "folders": 4, "bytes": 20 + 5 + 15 + 5, "deleted": False}
    assert files(work) == before

    named, last = swept(capsys, "--delete", "true")
    assert (named, last["deleted"]) == (gone, True)
    left = {name for name in before if not any(name.startswith(f"{each}/") for each in gone)}
    assert files(work) == left
    assert swept(capsys)[0] == set()


def test_state_and_journals_go_with_runs_that_ended_and_have_nothing_left(
    client, store, capsys, tmp_path
):
    work = tmp_path / "home"
    runs = {}
    for name in ("running", "finished", "failed", "deleted"):
        runs[name] = client.create_run("0").info.run_id
    client.set_terminated(runs["finished"])
    client.set_terminated(runs["failed"], "FAILED")
    client.delete_run(runs["deleted"])
    runs["gone"] = NOBODY
    for name, id_ in runs.items():
        made(work / f"runs/{name}/run.json", {"run_id": id_, "tracking_uri": store})
        journal = json.dumps({"kind": "about", "run_id": id_, "address": store}) + "\n"
        folder = made(work / f"spool/{name}/journal.jsonl", journal)
        sent = {"run_id": id_, "words": len(journal), "files": len(journal)}
        made(folder / "cursor", sent)
    half = {"run_id": runs["finished"], "words": 10, "files": 10}
    made(work / "spool/unsent/journal.jsonl", json.dumps({"address": store}) + "\n")
    made(work / "spool/unsent/cursor", half)
    whole = json.dumps({"address": store}) + "\n"
    made(work / "spool/a file waits/journal.jsonl", whole)
    waits = {"run_id": runs["failed"], "words": len(whole), "files": len(whole), "aside": [9]}
    made(work / "spool/a file waits/cursor", waits)
    made(work / "taken/by another/journal.jsonl", whole)
    made(work / "spool/offline/journal.jsonl", json.dumps({"id": "a", "address": store}) + "\n")
    made(work / "runs/offline/run.json", {"run_id": "offline", "tracking_uri": store})
    made(work / "runs/elsewhere/run.json", {"run_id": NOBODY, "tracking_uri": "http://other"})
    made(work / "runs/locks/deleted", "")
    with (work / "runs/locks/deleted").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process that continues it does
        named, _ = swept(capsys)
    state = {"runs/finished", "runs/gone"}
    journals = {f"spool/{name}" for name in ("finished", "failed", "deleted", "gone")}
    journals.add("taken/by another")
    assert named == state | journals
    assert swept(capsys)[0] == state | journals | {"runs/deleted"}
    swept(capsys, "--delete", "true")
    assert {path.parent.name for path in work.glob("runs/*/run.json")} == {
        *("running", "failed", "offline", "elsewhere")
    }
    assert {path.parent.name for path in work.glob("spool/*/journal.jsonl")} == {
        *("running", "unsent", "offline", "a file waits")
    }


def test_artifacts_of_runs_that_do_not_exist_are_named_and_deleted(
    client, store, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run, binned = (client.create_run("0").info.run_id for _ in range(2))
    for id_ in (run, binned):
        client.log_text(id_, "words", "a/words.txt")
    client.delete_run(binned)
    model = client.create_logged_model("0", source_run_id=run).model_id
    place = tmp_path / "mlruns" / "0"
    made(place / NOBODY / "artifacts" / "x")
    made(place / "models" / model / "artifacts" / "MLmodel")
    unknown = f"m-{NOBODY}"
    made(place / "models" / unknown / "artifacts" / "MLmodel")
    made(place / "notes" / "artifacts" / "x")
    made(tmp_path / "mlruns" / "77" / NOBODY / "artifacts" / "x")
    made(tmp_path / "mlruns" / "88" / "pictures" / "x")
    gone = {f"0/{NOBODY}", f"0/models/{unknown}", f"77/{NOBODY}"}

    before = files(tmp_path / "mlruns")
    named, last = swept(capsys)
    assert {name.partition("mlruns/")[2] for name in named} == {*(gone - {f"77/{NOBODY}"}), "77"}
    assert last["artifacts"] == 3
    assert files(tmp_path / "mlruns") == before

    swept(capsys, "--delete", "true")
    left = {name for name in before if not any(name.startswith(f"{each}/") for each in gone)}
    assert files(tmp_path / "mlruns") == left
    assert f"0/{run}/artifacts/a/words.txt" in left
    assert f"0/{binned}/artifacts/a/words.txt" in left


def test_a_store_that_knows_no_run_is_not_believed(client, capsys, tmp_path):
    made(tmp_path / "mlruns" / "0" / NOBODY / "artifacts" / "x")
    assert main(["gc", "--delete", "true"]) == 2
    assert "knows no run, but there are artifacts" in capsys.readouterr().err
    assert (tmp_path / "mlruns" / "0" / NOBODY / "artifacts" / "x").exists()


def test_orphans_of_a_real_server_go_through_its_proxy(mlflow_server, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    client, storage = MlflowClient(mlflow_server.url), mlflow_server.minio.client()
    experiment = client.create_experiment("with orphans")
    run = client.create_run(experiment).info.run_id
    client.log_text(run, "words", "a/words.txt")
    root = f"mlflow/{experiment}"
    keys = [f"{root}/{NOBODY}/artifacts/{name}" for name in ("a", "b/c")]
    keys.append(f"{root}/{NOBODY}-not/artifacts/x")
    for key in keys:
        storage.put_object(Bucket=mlflow_server.bucket, Key=key, Body=b"content")
    assert f"mlflow-artifacts:/{experiment}/{NOBODY}" in swept(capsys)[0]
    swept(capsys, "--delete", "true")
    found = storage.list_objects_v2(Bucket=mlflow_server.bucket, Prefix=f"{root}/")["Contents"]
    assert {each["Key"] for each in found} == {keys[2], f"{root}/{run}/artifacts/a/words.txt"}
