"""Who breaks in: foreign names and pages, paths that climb out, places not an experiment's own."""

import http.client
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import servers
from mlflow import MlflowClient

pytestmark = pytest.mark.doors
ARTIFACTS = ("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts")
OUTSIDE = "outside/words.txt"  # in the bucket, beside the folder that the server uses
CLIMBS = [
    "../outside/words.txt",
    "0/../../outside/words.txt",
    "%2e%2e/outside/words.txt",
    "..%2foutside%2fwords.txt",
    "%2e%2e%2foutside%2fwords.txt",
    "%252e%252e%252foutside%252fwords.txt",
    "%25252e%25252e%25252foutside%25252fwords.txt",
    "0/%2e%2e/%2e%2e/outside/words.txt",
    "file:///etc/passwd",
    "C:/windows/win.ini",
]
# Names like others to this server: a backslash is a character, a second slash is dropped.
ODD = [
    "..%5coutside%5cwords.txt",
    "..\\outside\\words.txt",
    "/outside/words.txt",
    "%2fetc%2fpasswd",
]


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("secured")


@pytest.fixture(scope="module")
def server(log, postgres, minio):
    """A server without log-in; beside its folder in the bucket lies an object not its own."""
    with servers.running_mlflow(log, postgres, minio, bucket="secured") as running:
        minio.client().put_object(Bucket="secured", Key=OUTSIDE, Body=b"not for the server")
        yield running


def ask(
    server: servers.TrackingServer,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and body of a request that is sent as it stands: other clients tidy paths up first."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, content, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "host", ["elsewhere.example", "127.0.0.1.elsewhere.example:5000", "localhost.elsewhere.example"]
)
def test_a_foreign_name_is_refused(server, host):
    for path in ("/", "/api/2.0/mlflow/experiments/search?max_results=1", f"{ARTIFACTS[0]}?path=0"):
        assert ask(server, "GET", path, headers={"Host": host})[0] == 403


@pytest.mark.parametrize(
    "origin", ["http://elsewhere.example", "https://127.0.0.1.elsewhere.example", "null"]
)
@pytest.mark.parametrize("door", ["api", "ajax-api"])
def test_a_foreign_page_cannot_write(server, origin, door):
    requests = [
        ("POST", f"/{door}/2.0/mlflow/experiments/create", {"name": "by a foreign page"}),
        ("POST", f"/{door}/2.0/mlflow/runs/create", {"experiment_id": "0"}),
        ("PUT", f"/{door}/2.0/mlflow-artifacts/artifacts/0/page.txt", b"by a foreign page"),
        ("DELETE", f"/{door}/2.0/mlflow-artifacts/artifacts/0/page.txt", None),
    ]
    for method, path, body in requests:
        assert ask(server, method, path, body, {"Origin": origin})[0] == 403, path
    for path in ("/graphql", "/v1/traces", "/get-artifact"):  # beside the API
        assert ask(server, "POST", path, {}, {"Origin": origin})[0] == 403, path
    client = MlflowClient(server.url)
    assert client.get_experiment_by_name("by a foreign page") is None
    assert client.search_runs(["0"]) == []


@pytest.mark.parametrize("door", ARTIFACTS)
@pytest.mark.parametrize("climb", CLIMBS)
def test_a_path_that_climbs_out_is_refused(server, door, climb):
    before = keys(server)
    assert 400 <= ask(server, "GET", f"{door}/{climb}")[0] < 500
    assert 400 <= ask(server, "PUT", f"{door}/{climb}", b"overwritten")[0] < 500
    assert 400 <= ask(server, "DELETE", f"{door}/{climb}")[0] < 500
    status, listed = ask(server, "GET", f"{door}?path={climb}")
    assert 400 <= status < 500
    assert b"words.txt" not in listed or b"error_code" in listed
    untouched(server, before)


@pytest.mark.parametrize("door", ARTIFACTS)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_leads_nowhere_else(server, door, name):
    assert b"not for the server" not in ask(server, "GET", f"{door}/{name}")[1]
    ask(server, "PUT", f"{door}/{name}", b"overwritten")
    ask(server, "DELETE", f"{door}/{name}")
    assert {key.split("/")[0] for key in keys(server)} <= {"mlflow", "outside"}
    untouched(server, keys(server))


@pytest.mark.parametrize("climb", CLIMBS)
def test_a_run_leads_nowhere_else_either(server, climb):
    run = MlflowClient(server.url).create_run("0").info.run_id
    before = keys(server)
    for path in (
        f"/get-artifact?run_uuid={run}&path={climb}",
        f"/api/2.0/mlflow/artifacts/list?run_id={run}&path={climb}",
    ):
        assert 400 <= ask(server, "GET", path)[0] < 500, path
    uploaded = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={climb}"
    assert 400 <= ask(server, "POST", uploaded, b"overwritten")[0] < 500
    untouched(server, before)


def keys(server: servers.TrackingServer) -> set[str]:
    listing = server.minio.client().list_objects_v2(Bucket=server.bucket)
    return {item["Key"] for item in listing["Contents"]}


def untouched(server: servers.TrackingServer, before: set[str]) -> None:
    store = server.minio.client()
    assert keys(server) == before
    assert store.get_object(Bucket="secured", Key=OUTSIDE)["Body"].read() == b"not for the server"


@pytest.mark.parametrize("key", ["artifact_location", "artifactLocation"])
@pytest.mark.parametrize(
    "place",
    ["file:///tmp/anywhere", "/tmp/anywhere", "s3://secured/outside", "mlflow-artifacts:/1"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_experiment_cannot_name_a_place_for_its_files(server, key, place, encoding):
    wanted = json.dumps({"name": f"{key} {place} {encoding}", key: place}).encode(encoding)
    for door in ("api", "ajax-api"):
        status, answer = ask(server, "POST", f"/{door}/2.0/mlflow/experiments/create", wanted)
        assert status == 400
        assert b"leave the place out" in answer
    assert MlflowClient(server.url).get_experiment_by_name(f"{key} {place} {encoding}") is None


@pytest.mark.parametrize(
    "source",
    [
        *("s3://secured/outside", "s3://secured", "s3://secured/mlflow", "gs://secured/outside"),
        *("file:///etc", "/etc", "http://127.0.0.1:9000/secured", "dbfs:/outside", "b2://secured"),
        *("wasbs://a@b/outside", "mlflow-artifacts://elsewhere/0", "ftp://elsewhere/etc"),
    ],
)
def test_a_model_cannot_name_a_source_outside(server, source):
    name = f"of {source}".replace("/", "-").replace(":", "-")
    MlflowClient(server.url).create_registered_model(name)
    wanted = {"name": name, "source": source}
    status, answer = ask(server, "POST", "/api/2.0/mlflow/model-versions/create", wanted)
    assert (status, b"Invalid model version source" in answer) == (400, True)


@pytest.mark.parametrize("place", ["file://{}", "{}", "s3://secured/outside", "s3://secured"])
def test_a_trace_cannot_name_a_place_outside(server, place, tmp_path):
    """A tag says where a trace's files lie, and whoever may write the trace may write the tag."""
    name = "11111111-1111-1111-1111-111111111111"
    (tmp_path / "attachments").mkdir()
    (tmp_path / "attachments" / name).write_text("not for the server")
    (tmp_path / "traces.json").write_text('{"spans": [], "note": "not for the server"}')
    experiment = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    trace = {"trace_location": experiment, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
    trace |= {"trace_id": f"tr-{secrets.token_hex(16)}", "tags": {}}
    status, made = ask(server, "POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": trace}})
    assert status == 200, made
    trace_id = json.loads(made)["trace"]["trace_info"]["trace_id"]
    tag = {"key": "mlflow.artifactLocation", "value": place.format(tmp_path)}
    assert ask(server, "PATCH", f"/api/3.0/mlflow/traces/{trace_id}/tags", tag)[0] == 200
    read = f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id={trace_id}"
    for path in (read, f"{read}&path={name}"):
        status, answer = ask(server, "GET", path)
        assert (status, b"not for the server" in answer) == (403, False)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(
    "path", ["config", "message", "skills/install", "providers/claude_code/health"]
)
def test_the_assistant_is_off(server, method, path):
    """From loopback, where MLflow itself would let it run commands."""
    for door in ("ajax-api/3.0", "ajax-api/3.0//"):
        status, _ = ask(server, method, f"/{door}/mlflow/assistant/{path}", {})
        assert status in {403, 404}
    assert ask(server, method, f"/ajax-api/3.0/mlflow/assistant/{path}", {})[0] == 403


def test_jobs_and_the_gateway_are_off(server):
    status, answer = ask(server, "GET", "/api/3.0/mlflow/gateway/endpoints/list")
    assert (status, b"disabled" in answer) == (501, True)
    commands = [command for command in processes(server) if "huey" in command]
    assert commands == []


def test_no_secret_shows_in_a_process_or_a_log(server, log, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    client = MlflowClient(server.url)
    run = client.create_run("0")
    client.log_text(run.info.run_id, "words", "words.txt")
    ask(server, "GET", "/api/2.0/mlflow/runs/get?run_id=nothing")
    server.start("check")
    secret = {
        value
        for key, value in server.environment.items()
        if key.endswith(("PASSWORD", "SECRET_ACCESS_KEY", "SECRET_KEY")) and len(value) > 8
    }
    assert len(secret) == 6
    stored = json.dumps(client.get_run(run.info.run_id).to_dictionary())
    files = [path for path in log.rglob("*") if path.is_file()]
    assert files
    shown = [*processes(server), stored, *(path.read_text(errors="replace") for path in files)]
    assert any("uvicorn" in text for text in shown)
    for text in shown:
        assert not [value for value in secret if value in text]


def processes(server: servers.TrackingServer) -> list[str]:
    """The command lines of this machine's processes, as `ps` shows them to everyone."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # ended meanwhile
    assert any(str(server.port) in line for line in lines)
    return lines
