"""A tracking server that can be kept: what was acknowledged survives the loss of both stores."""

import dataclasses
import hashlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import servers
from keeping_stores import KEEP, Stores, opened_stores
from mlflow import MlflowClient

pytestmark = pytest.mark.doors
CLIENTS = 5


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """A PostgreSQL and a MinIO with an empty, versioned bucket."""
    with ExitStack() as stack:
        yield opened_stores(stack, tmp_path)


class Writer(threading.Thread):
    """A client that logs without pause and notes what the server acknowledged, and when."""

    def __init__(self, url: str, experiment: str, scratch: Path) -> None:
        super().__init__(daemon=True)
        self.client, self.experiment, self.scratch = MlflowClient(url), experiment, scratch
        self.acknowledged: list[tuple[float, str, str, str, Any]] = []
        self.asked_to_stop = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self.asked_to_stop.is_set():
                self._one_run()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failure = error

    def _one_run(self) -> None:
        run = self.client.create_run(self.experiment).info.run_id
        self._note(run, "run", "", "RUNNING")
        for step in range(3):
            value = secrets.randbelow(10**6) / 7
            self.client.log_metric(run, "val/auc", value, step=step)
            self._note(run, "metric", str(step), value)
            content = secrets.token_bytes(50_000)
            path = self.scratch / f"{step}.bin"
            path.write_bytes(content)
            self.client.log_artifact(run, str(path), "checkpoints")
            self._note(run, "artifact", path.name, hashlib.sha256(content).hexdigest())
        self.client.set_tag(run, "mammo.step", "evaluate")
        self._note(run, "tag", "mammo.step", "evaluate")

    def _note(self, *what: Any) -> None:
        self.acknowledged.append((time.monotonic(), *what))


def test_what_was_acknowledged_before_a_backup_is_there_after_both_stores_are_lost(
    tmp_path, monkeypatch
):
    backup = tmp_path / "backup"
    with ExitStack() as stack:
        first = opened_stores(stack, tmp_path / "first")
        server = stack.enter_context(
            servers.running_mlflow(tmp_path / "server", first.postgres, first.minio)
        )
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        studied = _study(first)
        experiment = MlflowClient(server.url).create_experiment("written to")
        writers = [
            Writer(server.url, experiment, _made(tmp_path / f"writer-{number}"))
            for number in range(CLIENTS)
        ]
        for writer in writers:
            writer.start()
        _until(lambda: all(len(writer.acknowledged) >= 8 for writer in writers), writers)
        began = time.monotonic()
        first.done("backup", str(backup))
        ended = time.monotonic()
        for writer in writers:
            writer.asked_to_stop.set()
        for writer in writers:
            writer.join()
            assert writer.failure is None
            assert any(began < at < ended for at, *_ in writer.acknowledged)
    noted = [each for writer in writers for each in writer.acknowledged]
    before = [what for at, *what in noted if at < began]
    assert len(before) >= 8 * CLIENTS
    assert backup.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in backup.rglob("*")} == {0}

    with ExitStack() as stack:
        second = opened_stores(stack, tmp_path / "second")
        second.prepare()
        assert "restored 3 databases" in second.done("restore", str(backup))
        assert _best(second) == studied
        assert "is not empty; a backup is restored into a new stack alone" in second.refused(
            "restore", str(backup)
        )
        server = stack.enter_context(
            servers.running_mlflow(tmp_path / "server", second.postgres, second.minio)
        )
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        client = MlflowClient(server.url)
        for run, kind, name, value in before:
            found = client.get_run(run)
            if kind == "metric":
                history = client.get_metric_history(run, "val/auc")
                assert [each.value for each in history if each.step == int(name)] == [value]
            elif kind == "tag":
                assert found.data.tags[name] == value
            elif kind == "run":
                assert found.info.status == value
        sent = [each for each in before if each[1] == "artifact"]
        artifacts = {f"{run}/{name}": digest for run, _, name, digest in sent}
        there = {
            f"{key.split('/')[2]}/{key.split('/')[-1]}": hashlib.sha256(content).hexdigest()
            for key, content in second.objects().items()
        }
        assert artifacts.items() <= there.items()
        run, _, name, value = sent[0]
        local = Path(client.download_artifacts(run, f"checkpoints/{name}", str(tmp_path)))
        assert hashlib.sha256(local.read_bytes()).hexdigest() == value


def _study(stores: Stores) -> tuple[float, dict[str, Any]]:
    """A study in the database beside MLflow's; its best value and settings."""
    import optuna

    study = optuna.create_study(storage=_studies(stores), study_name="mixing")
    for share in (0.25, 0.5):
        kind = optuna.distributions.FloatDistribution(0, 1)
        trial = optuna.trial.create_trial(
            value=1 - share, params={"share": share}, distributions={"share": kind}
        )
        study.add_trial(trial)
    return 0.5, {"share": 0.5}


def _best(stores: Stores) -> tuple[float, dict[str, Any]]:
    import optuna

    study = optuna.load_study(storage=_studies(stores), study_name="mixing")
    return study.best_value, study.best_params


def _studies(stores: Stores) -> Any:
    """Optuna's storage as its workers reach it: with a role of its own."""
    import optuna
    from sqlalchemy.pool import NullPool

    own = {"user": "optuna", "password": servers.OPTUNA_DB_PASSWORD, "database": "optuna"}
    uri = dataclasses.replace(stores.postgres, **own).uri
    return optuna.storages.RDBStorage(uri, engine_kwargs={"poolclass": NullPool})


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _until(condition: Any, writers: list[Writer]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert not any(writer.failure for writer in writers)
        time.sleep(0.05)


def test_a_second_backup_holds_what_is_new_and_shares_what_is_old(stores):
    stores.put("mlflow/1/old", b"never changed" * 9999)
    stores.put("mlflow/1/changed", b"first")
    stores.done("backup", "backups/a")
    stores.put("mlflow/1/changed", b"second")
    stores.put("mlflow/1/new", b"new")
    stores.done("backup", "backups/b")
    one, two = (stores.folder / "backups" / name for name in "ab")
    old = f"objects/{hashlib.sha256(b'never changed' * 9999).hexdigest()[:2]}"
    [shared] = (one / old).iterdir()
    assert shared.samefile(two / old / shared.name)
    stores.done("verify", "backups/a")
    # a file of the older backup that went bad is fetched anew
    shared.chmod(0o600)
    shared.unlink()
    shared.write_bytes(b"never chanGed" * 9999)
    stores.done("backup", "backups/c")
    stores.done("verify", "backups/c")
    assert "has another content" in stores.refused("verify", "backups/a")
    assert "exists already" in stores.refused("backup", "backups/a")
    assert not list(stores.folder.glob("backups/*.partial"))


def test_an_object_that_the_store_cannot_read_is_named_and_the_rest_is_kept(stores):
    stores.put("mlflow/1/good", b"words")
    stores.put("mlflow/1/rotten", secrets.token_bytes(3_000_000))
    [part] = stores.folder.glob("minio/data/mlflow/mlflow/1/rotten/*/part.1")
    with part.open("r+b") as file:
        file.truncate(1_000_000)
    line = stores.refused("backup", "backup")
    assert "lacks 1 objects that the store cannot read: mlflow/1/rotten (" in line
    assert "is whole: 1 objects" in stores.done("verify", "backup")


def test_what_fails_while_objects_are_written_leaves_the_bucket_empty(stores):
    from keeping import frames

    with (stores.folder / "cut").open("wb") as file:
        told = {"content_type": "text/plain", "metadata": {}}
        for key, digest in (("a", hashlib.sha256(b"words").hexdigest()), ("b", "0" * 64)):
            frames.send(file, {"key": key, "sha256": digest, **told}, [b"words"])
        frames.finish(file)
    with (stores.folder / "cut").open("rb") as file:
        result = subprocess.run(
            [sys.executable, KEEP, "store", "import"],
            stdin=file,
            env=stores.environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert "object b does not read as it was written" in result.stderr
    assert stores.listing() == []


def test_a_connected_client_keeps_a_restore_from_starting(stores):
    import psycopg2

    stores.done("backup", "backup")
    connection = psycopg2.connect(stores.postgres.uri.replace("+psycopg2", ""))
    try:
        line = stores.refused("restore", "backup")
    finally:
        connection.close()
    assert "1 connections to the databases are open; stop the server first" in line


def test_a_store_that_does_not_answer_is_named_in_one_line_and_leaves_no_folder(stores):
    nowhere = str(servers.free_port())
    line = stores.refused("backup", "backup", POSTGRES_PORT=nowhere)
    assert "OperationalError" in line
    assert f"port {nowhere}" in line
    stores.postgres.query("CREATE TABLE notes (word text)")
    away = f"http://127.0.0.1:{nowhere}"
    assert away in stores.refused("backup", "backup", MLFLOW_S3_ENDPOINT_URL=away)
    assert not list(stores.folder.glob("backup*"))
