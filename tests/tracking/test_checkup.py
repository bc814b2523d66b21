"""`mammo doctor` without a dataset: all well on the real stack, and each fault with its remedy."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.handlers import format_date_time

import pytest
import servers
from doors import Outcome, here
from mlflow import MlflowClient

from mammo.tracking import checkup

NAMES = ["driver", "disk", "versions", "host check", "files", "latency", "clock"]


def lines(outcome: Outcome) -> dict[str, str]:
    """What was said of each thing, its mark in front."""
    said = {}
    for line in outcome.out.splitlines()[:-1]:
        mark, rest = line[:7].strip(), line[7:]
        name, _, text = rest.partition(": ")
        said[name] = f"{mark}: {text}"
    return said


@pytest.mark.doors
def test_all_is_well_on_the_stack(mlflow_server: servers.TrackingServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "not made by looking")
    role = studies(mlflow_server)
    done = here("doctor", storage=role.uri)
    said = lines(done)
    # how fast this machine answers while it tests is not what is tested
    slow = {"latency"} & {name for name, text in said.items() if text.startswith("wrong")}
    assert {name for name, text in said.items() if not text.startswith("ok: ")} == slow
    assert {*said} == {*NAMES, "connections"}
    assert json.loads(done.out.splitlines()[-1]) == {"checks": 9, "wrong": sorted(slow)}
    assert done.code == (2 if slow else 0)
    assert "written, read back and deleted" in said["files"]
    assert f"the server's MLflow {metadata.version('mlflow')}" in said["versions"]
    keys = mlflow_server.minio.client().list_objects_v2(Bucket=mlflow_server.bucket)
    assert not [each["Key"] for each in keys.get("Contents", []) if "doctor-" in each["Key"]]
    client = MlflowClient(mlflow_server.url)
    assert client.get_experiment_by_name("not made by looking") is None
    assert role.password not in done.out + done.err


def studies(server: servers.TrackingServer) -> servers.Postgres:
    return servers.Postgres(server.postgres.port, "optuna", servers.OPTUNA_DB_PASSWORD, "optuna")


@pytest.mark.doors
def test_few_connections_are_told_before_the_workers_lack_them(
    mlflow_server: servers.TrackingServer,
) -> None:
    role, owner = studies(mlflow_server), mlflow_server.postgres
    try:
        owner.query("ALTER ROLE optuna CONNECTION LIMIT 23")
        found = checkup.connections(role.uri)
        assert found.remedy == ""
        assert "22 are left to this role: 11 more workers" in found.said
        owner.query("ALTER ROLE optuna CONNECTION LIMIT 8")
        found = checkup.connections(role.uri)
        assert "7 are left to this role" in found.said
        assert "stop idle workers, or raise max_connections" in found.remedy
    finally:
        owner.query("ALTER ROLE optuna CONNECTION LIMIT 60")


class Wrong(BaseHTTPRequestHandler):
    """A server with each fault: old, slow, an hour behind, and it answers to any name."""

    protocol_version = "HTTP/1.1"
    place = ""

    def do_GET(self) -> None:
        if self.path.startswith("/api/2.0/mlflow/experiments/search"):
            time.sleep(0.04)
        experiment = {"experiment_id": "0", "name": "x", "artifact_location": self.place}
        content = json.dumps({"experiment": experiment, "experiments": []})
        body = (b"3.1.0" if self.path == "/version" else content.encode()) or b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_date_time(time.time() - 3600)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[str]:
    """Its address; its experiments lie below a file, where nothing can be written."""
    (tmp_path / "file").write_text("")
    handler = type("Here", (Wrong,), {"place": f"file://{tmp_path}/file/0"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_each_fault_of_a_server_is_told_with_what_helps(wrong: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
    done = here("doctor")
    said = lines(done)
    own = metadata.version("mlflow")
    for name, text in {
        "driver": "ok: http: the server's own",
        "versions": f"MLflow {own}, the server's MLflow 3.1.0; bring up the one there: make upgra",
        "host check": "called as elsewhere.invalid it answers 200: a web page could",
        "files": "could not be looked at: ",
        "latency": "over 30 ms on this machine itself; install uvloop and httptools",
        "clock": "the server's is -3600 s from this one; set both by NTP",
    }.items():
        assert text in said[name], name
    faults = ["versions", "host check", "files", "latency", "clock"]
    assert json.loads(done.out.splitlines()[-1])["wrong"] == faults
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        f"doctor: wrong: {', '.join(faults)}; each line above says what helps"
    )


def test_a_server_that_is_away_is_told_and_the_rest_is_looked_at(monkeypatch: Any) -> None:
    address = f"http://127.0.0.1:{servers.free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    done = here("doctor")
    assert done.code == 2
    assert f"wrong: no tracking server answers at {address}" in lines(done)["server"]
    assert [*lines(done)] == ["driver", "disk", "server"]


def test_a_folder_is_told_to_be_no_store(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    done = here("doctor")
    assert done.code == 2
    assert "set MLFLOW_TRACKING_URI to a server, or to sqlite://" in lines(done)["driver"]
    assert lines(done)["server"].startswith("wrong: ")


def test_a_store_in_a_file_needs_no_server(store: str) -> None:
    done = here("doctor")
    assert done.code == 0
    assert [*lines(done)] == NAMES
    assert "sqlite is read by sqlite3" in lines(done)["driver"]


@pytest.mark.parametrize(
    ("address", "installed", "remedy"),
    [
        ("postgresql://u:p@h/d", {"psycopg2"}, "write postgresql+psycopg2://, which is installed"),
        ("postgresql+psycopg://u:p@h/d", {"psycopg2"}, "install it"),
        ("postgresql+psycopg2://u:p@h/d", {"psycopg2"}, ""),
        ("postgresql+psycopg2://u:p@h/d", set(), "install it"),
    ],
)
def test_the_driver_that_an_address_needs_is_named(
    address: str, installed: set[str], remedy: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(checkup, "find_spec", lambda name: name if name in installed else None)
    found = checkup.driver(address)
    assert found.remedy == remedy
    assert "u:p" not in found.said


def test_a_disk_that_is_nearly_full_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4.9e9))
    found = checkup.disk(tmp_path / "not" / "made")
    assert found.said.startswith("4.9 GB are free")
    assert "make room" in found.remedy
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5.1e9))
    assert checkup.disk(tmp_path).remedy == ""


def test_settings_of_the_other_doctor_are_not_taken() -> None:
    assert here("doctor", "--output", "somewhere").err.startswith("doctor: dataset is missing")
    assert "seed" in here("doctor", "--work_dir", "here", "--seed", "1").err
