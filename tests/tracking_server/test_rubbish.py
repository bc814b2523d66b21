"""What no run needs is named exactly, and nothing else is deleted."""

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from keeping import rubbish
from keeping.rubbish import Books, Owner
from keeping_stores import Stores, last_json
from test_keeping import stores

__all__ = ["stores"]
DAY_MS = 86_400_000
NOW = 100 * DAY_MS
LIVE, TRASHED, RECENT, SOURCE, GRAND, MADE = (letter * 32 for letter in "abcdef")
NOBODY = "0" * 32
MODEL, OTHER = f"m-{'1' * 32}", f"m-{'2' * 32}"


def books(**changed: Any) -> Books:
    """One run that is there, one deleted 70 days ago, one deleted yesterday."""
    runs = {LIVE: 0, TRASHED: NOW - 70 * DAY_MS, RECENT: NOW - DAY_MS} | changed.pop("runs", {})
    said: dict[str, Any] = {"models": {}, "registered": {}, "inputs": {}} | changed
    return Books(runs={id_: Owner(id_, ms) for id_, ms in runs.items()}, **said)


def found(keys: list[str], said: Books) -> list[tuple[str, str, list[str]]]:
    objects = [(key, 10) for key in keys]
    return [
        (each.kind, each.id, each.keys)
        for each in rubbish.find(objects, said, before_ms=NOW - 30 * DAY_MS)
    ]


def test_only_what_is_deleted_for_long_or_unknown_is_rubbish():
    keys = [f"mlflow/1/{run}/artifacts/x" for run in (LIVE, TRASHED, RECENT, NOBODY)]
    assert found(keys, books()) == [("run", NOBODY, [keys[3]]), ("run", TRASHED, [keys[1]])]


def test_keys_of_no_known_form_are_left_alone():
    strange = ["mlflow/notes.txt", "mlflow/1/traces/tr-1/artifacts/x", f"mlflow/1/{NOBODY}/x"]
    assert found(strange, books(runs={TRASHED: 0})) == []


def test_the_owner_is_the_outermost_run_of_a_key():
    key = f"mlflow/1/{LIVE}/artifacts/{NOBODY}/artifacts/x"
    assert found([key], books(runs={TRASHED: 0})) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_logged_model_goes_with_the_run_that_it_came_from(known):
    models = {MODEL: Owner(MODEL, source_run=TRASHED if known else NOBODY)}
    models[OTHER] = Owner(OTHER, source_run=LIVE)
    keys = [f"mlflow/1/models/{model}/artifacts/MLmodel" for model in (MODEL, OTHER)]
    gone = [each for each in found(keys, books(models=models)) if each[0] == "model"]
    assert gone == [("model", MODEL, [keys[0]])]


def test_what_a_registered_version_needs_stays():
    models = {MODEL: Owner(MODEL, source_run=TRASHED)}
    said = books(models=models, registered={MODEL: "classifier/3"})
    keys = [f"mlflow/1/models/{MODEL}/artifacts/MLmodel", f"mlflow/1/{TRASHED}/artifacts/x"]
    assert found(keys, said) == []


def test_what_a_run_was_made_from_stays_however_far_back():
    old = NOW - 70 * DAY_MS
    inputs = {LIVE: {SOURCE}, SOURCE: {GRAND}, TRASHED: {MADE}}
    said = books(runs={SOURCE: old, GRAND: old, MADE: old}, inputs=inputs)
    keys = [f"mlflow/1/{run}/artifacts/x" for run in (SOURCE, GRAND, MADE)]
    assert [id_ for _, id_, _ in found(keys, said)] == [TRASHED, MADE]
    why = rubbish.kept(said, NOW - 30 * DAY_MS)
    assert [line.split()[1].rstrip(":") for line in why] == [SOURCE, GRAND]
    assert all("a run that is there was made from it" in line for line in why)


def entry(key: str, version: str, day: int, *, mark: bool = False) -> dict[str, Any]:
    """A version or deletion mark of that day, as S3 lists it."""
    when = datetime.datetime.fromtimestamp(day * 86_400, datetime.UTC)
    content = {} if mark else {"ETag": "x", "Size": 10}
    return {"Key": key, "VersionId": version, "LastModified": when, **content}


def test_old_versions_go_when_they_were_replaced_long_ago():
    entries = [entry("a", "3", 95), entry("a", "2", 60), entry("a", "1", 10), entry("b", "1", 1)]
    # of a: 1 was replaced on day 60, 2 on day 95, and 3 is the one that is there
    assert rubbish.old_versions(entries, 70 * DAY_MS) == [("a", "1", 10)]


def test_a_deletion_mark_goes_with_the_last_version_and_after_it():
    deleted = [entry("a", "mark", 60, mark=True), entry("a", "1", 10)]
    assert rubbish.old_versions(deleted, 70 * DAY_MS) == [("a", "1", 10), ("a", "mark", 0)]
    assert rubbish.old_versions(deleted, 50 * DAY_MS) == []
    # deleted late, written anew and deleted again: the mark still hides the newer version
    again = [entry("a", "m", 65, mark=True), entry("a", "2", 64), *deleted]
    assert rubbish.old_versions(again, 64 * DAY_MS) == [("a", "1", 10), ("a", "mark", 0)]


@pytest.mark.doors
def test_gc_names_what_was_planted_deletes_nothing_and_then_that_alone(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(stores.postgres.uri, registry_uri=stores.postgres.uri)
    experiment = client.create_experiment("planted", artifact_location="mlflow-artifacts:/1")
    names = ("live", "trashed", "recent", "source", "registered")
    runs = {name: client.create_run(experiment).info.run_id for name in names}
    client.set_tag(runs["live"], "mammo.input.data", f"{runs['source']},{'9' * 32}")
    client.create_registered_model("classifier")
    at = f"mlflow-artifacts:/1/{runs['registered']}/artifacts/model"
    client.create_model_version("classifier", at, runs["registered"])
    models = {
        name: client.create_logged_model(experiment, source_run_id=runs[name]).model_id
        for name in ("live", "trashed")
    }
    for name in names[1:]:
        client.delete_run(runs[name])
    sql = "UPDATE runs SET deleted_time = deleted_time - %s WHERE run_uuid <> %s"
    stores.postgres.query(sql, 40 * DAY_MS, runs["recent"])
    root = f"mlflow/{experiment}"
    keys = {name: f"{root}/{run}/artifacts/a/file.bin" for name, run in runs.items()}
    keys |= {f"m {name}": f"{root}/models/{id_}/artifacts/x" for name, id_ in models.items()}
    keys |= {"unknown": f"{root}/{NOBODY}/artifacts/x", "strange": "mlflow/readme.txt"}
    for key in keys.values():
        stores.put(key, b"content")

    state = (stores.listing(), _rows(stores), _versions(stores))
    dry = stores.done("gc")
    assert (stores.listing(), _rows(stores), _versions(stores)) == state
    planted = {f"model {models['trashed']}", f"run {NOBODY}", f"run {runs['trashed']}"}
    named = {line for line in dry.splitlines() if line.startswith("would delete ")}
    assert {" ".join(line.split()[2:4]).rstrip(":") for line in named} == planted | {"0 old"}
    kept = [line for line in dry.splitlines() if line.startswith("kept run ")]
    assert {line.split()[2].rstrip(":") for line in kept} == {runs["source"], runs["registered"]}
    assert any("model classifier/1 is of it" in line for line in kept)
    counts = {"runs": 2, "models": 1, "objects": 3, "bytes": 21, "old_versions": 0}
    assert last_json(dry) == {**counts, "deleted": False}

    assert last_json(stores.done("gc", "--delete")) == {**counts, "deleted": True}
    gone = {keys["trashed"], keys["m trashed"], keys["unknown"]}
    assert set(stores.objects()) == set(keys.values()) - gone
    left = {run for (run,) in stores.postgres.query("SELECT run_uuid FROM runs")}
    assert left == set(runs.values()) - {runs["trashed"]}
    assert stores.postgres.query("SELECT model_id FROM logged_models") == [(models["live"],)]
    assert last_json(stores.done("gc"))["objects"] == 0

    # what was deleted can be had back from the bucket until it is swept again
    assert gone < {each["Key"] for each in _versions(stores)}
    assert last_json(stores.done("gc", "--days", "0", "--delete"))["runs"] == 1  # the recent one
    assert not gone & {each["Key"] for each in _versions(stores)}
    assert set(stores.objects()) == set(keys.values()) - gone - {keys["recent"]}


def _rows(stores: Stores) -> list[Any]:
    return [stores.postgres.query(f"SELECT * FROM {table}") for table in ("runs", "logged_models")]


def _versions(stores: Stores) -> list[Any]:
    found = stores.minio.client().list_object_versions(Bucket=stores.bucket)
    return [*found.get("Versions", []), *found.get("DeleteMarkers", [])]


@pytest.mark.doors
def test_gc_refuses_a_database_that_knows_no_run(stores):
    stores.put(f"mlflow/1/{NOBODY}/artifacts/x", b"content")
    assert "not the schema of this MLflow" in stores.refused("gc", "--delete")
    make = [sys.executable, "-m", "mlflow", "db", "upgrade", stores.postgres.uri]
    subprocess.run(make, check=True, capture_output=True)
    assert "the database knows no run, but there are objects" in stores.refused("gc", "--delete")
    assert len(stores.listing()) == 1
