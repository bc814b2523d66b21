"""The tracking server as deployed: runs in PostgreSQL, files in MinIO, an honest health check."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import servers
from mlflow import MlflowClient

pytestmark = pytest.mark.doors


def test_a_logged_run_lies_in_postgresql_and_its_artifact_in_minio(
    mlflow_server, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)  # artifacts go where this points
    client = MlflowClient(mlflow_server.url)
    experiment = client.create_experiment("stores")
    run = client.create_run(experiment)
    client.log_param(run.info.run_id, "real_percentage", "0.5")
    client.log_metric(run.info.run_id, "val/auc", 0.875, step=3)
    client.log_text(run.info.run_id, "known words", "tables/words.txt")
    client.set_terminated(run.info.run_id)

    rows = mlflow_server.postgres.query(
        "SELECT p.value, m.value, m.step, r.status FROM runs r "
        "JOIN params p USING (run_uuid) JOIN metrics m USING (run_uuid) WHERE r.run_uuid = %s",
        run.info.run_id,
    )
    assert rows == [("0.5", 0.875, 3, "FINISHED")]
    storage = mlflow_server.minio.client()
    listing = storage.list_objects_v2(Bucket=mlflow_server.bucket)
    [key] = [item["Key"] for item in listing["Contents"] if item["Key"].endswith("words.txt")]
    assert run.info.run_id in key
    [local] = Path(client.download_artifacts(run.info.run_id, "tables", tmp_path)).iterdir()
    assert local.read_text() == "known words"
    assert storage.get_object(Bucket=mlflow_server.bucket, Key=key)["Body"].read() == b"known words"


def test_the_ui_opens_in_a_browser(mlflow_server, chromium):
    page = chromium.new_page()
    page.goto(mlflow_server.url, wait_until="domcontentloaded")
    page.wait_for_selector("text=Experiments", timeout=60_000)


def test_clients_are_never_sent_to_the_object_store(mlflow_server):
    address = f"{mlflow_server.url}/api/3.0/mlflow/server-info"
    with urllib.request.urlopen(address, timeout=10) as answer:
        offers = json.load(answer)
    assert not offers["multipart_downloads_enabled"]
    assert not offers["multipart_uploads_enabled"]


def test_a_foreign_host_name_is_refused(mlflow_server):
    request = urllib.request.Request(
        f"{mlflow_server.url}/api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Host": "elsewhere.example"},
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=10)


def test_the_health_check_asks_the_server_itself(mlflow_server):
    assert mlflow_server.start("check").returncode == 0
    nobody = mlflow_server.start("check", MLFLOW_PORT=str(servers.free_port()))
    assert nobody.returncode == 1
    assert "does not serve experiments" in nobody.stderr


def test_a_missing_setting_is_named_in_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, servers.START, "serve"],
        env={"PATH": os.environ["PATH"], "STORES_WAIT_S": "0"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "start.py: POSTGRES_DB is missing in the environment; see tracking_server/README.md"
    ]
