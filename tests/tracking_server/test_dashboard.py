"""Optuna's dashboard as the stack starts it: an empty database works, foreign names are refused."""

import json
import sys
import urllib.error
import urllib.request

import optuna
import pytest
import servers

pytestmark = pytest.mark.doors


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory, mlflow_server):
    """Address of the dashboard of a server's database of studies."""
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed (`server`)")
    folder, port = tmp_path_factory.mktemp("dashboard"), str(servers.free_port())
    environment = {**mlflow_server.environment, "DASHBOARD_PORT": port}
    command = [sys.executable, servers.START, "dashboard"]
    with servers.running(command, folder / "log", env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        servers.wait_until(lambda: studies(url), process, folder / "log", timeout_s=90)
        assert mlflow_server.start("dashboard", "check", DASHBOARD_PORT=port).returncode == 0
        yield url


def studies(url, host="localhost"):
    request = urllib.request.Request(f"{url}/api/studies", headers={"Host": host})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return [entry["study_name"] for entry in json.load(answer)["study_summaries"]]


def test_a_study_shows_from_before_its_first_trial(dashboard, mlflow_server):
    assert studies(dashboard) == []
    server = mlflow_server.postgres
    role = servers.Postgres(server.port, "optuna", servers.OPTUNA_DB_PASSWORD, "optuna")
    optuna.create_study(study_name="shown", storage=role.uri)
    assert studies(dashboard) == ["shown"]


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1.elsewhere.example:8080"])
def test_a_foreign_name_is_refused(dashboard, host):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        studies(dashboard, host)


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null"])
def test_a_foreign_page_cannot_write(dashboard, origin):
    """A form needs no permission of the browser to be sent as text."""
    body = json.dumps({"study_name": "by a page", "directions": ["minimize"]}).encode()
    headers = {"Content-Type": "text/plain", "Origin": origin}
    request = urllib.request.Request(f"{dashboard}/api/studies", body, headers)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=10)
    own = {"Content-Type": "application/json", "Origin": dashboard}
    body = json.dumps({"study_name": f"its own {origin}", "directions": ["minimize"]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{dashboard}/api/studies", body, own)):
        assert {f"its own {origin}"} <= {*studies(dashboard)}
    assert "by a page" not in studies(dashboard)


def test_a_dashboard_that_is_down_is_unhealthy(mlflow_server):
    down = mlflow_server.start("dashboard", "check", DASHBOARD_PORT=str(servers.free_port()))
    assert down.returncode == 1
    assert "does not list studies" in down.stderr
